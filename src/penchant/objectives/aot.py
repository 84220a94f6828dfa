"""Alignment by optimal transport: rewards are compared as distributions, quantile by quantile, not pair by pair.
Sorting couples all responses of a step; its number of rows is part of the method, and micro-batches do not change it."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from penchant.objectives.base import REFERENCE, Objective, Positive, State
from penchant.objectives.scored import Batch, Labelled, Pairs, Scored

SORTED = "Quantiles of the whole step are compared, so another pair's swap moves this pair's loss too."


@dataclass(frozen=True)
class AOT(Objective):
    """-log σ( β (m₍ᵢ₎ − m_ref₍ᵢ₎) ),  m = log π(y_w)/π(y_l), sorted        Melnyk et al. 2024, arXiv 2406.05882, paired

    The margins under the policy shall dominate those under the reference: m₍ᵢ₎ is the i-th smallest margin of the step,
    m_ref₍ᵢ₎ the i-th smallest under the reference, which may be another pair's. The penalty is the paper's logistic one;
    TRL calls this `aot` and adds label smoothing. A value belongs to the pair whose margin under the policy it reads."""

    beta: Positive = 0.1
    """Scale of the margins: larger stays closer to the reference."""

    breaks: ClassVar = {"mirror": SORTED}
    data = Pairs
    unit = "pair"
    needs = REFERENCE
    couples = True

    def reward(self, y: Scored) -> Float[Tensor, "n"]:
        return self.beta * y.ratio

    def __call__(self, batch: Pairs, state: State | None = None) -> Float[Tensor, "units"]:
        now = batch.w.total - batch.l.total
        before = batch.w.sum(batch.w.anchor("ref")) - batch.l.sum(batch.l.anchor("ref"))
        rank = now.argsort().argsort()
        return -logsigmoid(self.beta * (now - before.sort().values[rank]))


@dataclass(frozen=True)
class AOTUnpaired(Objective):
    """-log σ( r_good₍ᵢ₎ − r_bad₍ᵢ₎ ),  r = β log π/π_ref, sorted        Melnyk et al. 2024, arXiv 2406.05882, unpaired

    The rewards of the good responses shall dominate those of the bad; which answered the same prompt does not matter. Of
    unequal numbers, as labelled data has them, the i-th of g good responses stands for the quantiles from i/g to (i+1)/g and
    is compared with the bad responses of those quantiles, each by the share that they have in common: the paper's integral
    over quantiles, exactly. TRL has it for pairs alone (`aot_pair`, later `aot_unpaired`). A value belongs to a good response;
    a step without bad ones has loss 0."""

    beta: Positive = 0.1
    """Scale of the log-ratio: larger stays closer to the reference."""

    known_as = ("AOT-unpaired",)
    breaks: ClassVar = {"mirror": SORTED}
    data = (Pairs, Labelled)
    unit = "pair"
    needs = REFERENCE
    couples = True

    def reward(self, y: Scored) -> Float[Tensor, "n"]:
        return self.beta * y.ratio

    def __call__(self, batch: Pairs | Labelled, state: State | None = None) -> Float[Tensor, "units"]:
        good, bad = self.reward(batch.good).sort().values, self.reward(batch.bad).sort().values
        return -(common(len(good), len(bad)).to(good) * logsigmoid(good[:, None] - bad)).sum(-1)

    def count(self, batch: Batch) -> int:
        kept = batch.kept()
        assert isinstance(kept, Pairs | Labelled)
        return len(kept.good)


def common(n: int, m: int) -> Float[Tensor, "n m"]:
    """The share of the i-th of n equal parts of an interval that lies in the j-th of m: rows sum to 1. It is counted in
    whole numbers of 1/(n m), so nothing is lost to rounding."""
    i, j = torch.arange(n)[:, None] * m, torch.arange(m) * n
    return (torch.minimum(i + m, j + n) - torch.maximum(i, j)).clamp(min=0) / max(m, 1)

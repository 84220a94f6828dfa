"""Kahneman-Tversky optimisation: each response is good or bad by itself, measured from the policy's gain elsewhere.
That reference point, z0, is a number of the whole optimiser step, so it comes in as state; it is never a micro-batch's."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from penchant.errors import Refusal
from penchant.objectives.base import REFERENCE, Needs, Objective, Positive, State, recall
from penchant.objectives.scored import NOTHING, Labelled, Scored


@dataclass(frozen=True)
class KTO(Objective):
    """λ (1 − σ( ±β (u − z0) )),  u = log π/π_ref, + good, − bad        Ethayarajh et al. 2024, arXiv 2402.01306, eq. 7

    z0 = max(0, mean of u over responses paired with another prompt), without gradient, over the whole step and all
    machines. Equation 7 is the first version's count. The authors advise desirable · n_good / (undesirable · n_bad)
    between 1 and 1.33."""

    beta: Positive = 0.1
    """Scale of the log-ratio and of z0: larger saturates sooner."""
    desirable: Positive = 1.0
    """λ of good responses."""
    undesirable: Positive = 1.0
    """λ of bad responses."""

    data = Labelled
    unit = "response"
    needs = REFERENCE | Needs(mismatched=True)

    def reward(self, y: Scored) -> Float[Tensor, "n"]:
        return self.beta * y.ratio

    def __call__(self, batch: Labelled, state: State | None = None) -> Float[Tensor, "units"]:
        gain = self.reward(batch.y) - self.beta * recall(self, state, "z0")
        good, bad = self.desirable * torch.sigmoid(-gain), self.undesirable * torch.sigmoid(gain)  # 1 − σ(x) = σ(−x)
        return torch.where(batch.label, good, bad)

    def init(self, levels: Mapping[str, int] = NOTHING) -> dict[str, Tensor]:
        return {"z0": torch.tensor(0.0)}

    def statistics(self, batch: Labelled, state: State) -> dict[str, tuple[Tensor, Tensor]]:
        ratio = batch.strangers.detach().ratio
        return {"z0": (ratio.sum(), torch.ones_like(ratio).sum())}

    def update(self, state: State, totals: Mapping[str, tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
        total, count = totals["z0"]
        if count < 1:
            raise Refusal(
                "KTO's z0 needs a response under another row's prompt in every step; make the step at least 2 rows."
            )
        return {"z0": (total / count).clamp(min=0)}

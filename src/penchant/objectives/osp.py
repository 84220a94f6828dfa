"""Soft preferences: a pair says how surely its chosen is the better one, and the margin stops where it says as much.
Who said so (people's votes, a judge, the model itself) is not its business; a probability comes with the pair."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from penchant.objectives.base import REFERENCE, STRENGTH, Objective, Positive, State
from penchant.objectives.scored import Pairs, Scored
from penchant.objectives.wrapper import Wrapper


@dataclass(frozen=True)
class OSP(Objective):
    """-p log σ(s) − (1−p) log σ(−s),  s = β (u_w − u_l),  u = log π/π_ref        Zhai et al. 2024, arXiv 2405.14103

    The soft-preference cross-entropy of online self-preferring models: p, the column `strength`, is the probability that
    the chosen is preferred to the rejected. The loss is least at s* = log(p/(1−p)), where it is p's entropy: at p = 1 it
    is DPO, at p = 1/2 it keeps the two level, at p = 1−ε it is conservative DPO. The paper's text was not at hand: the
    form is the cross-entropy that its abstract names."""

    beta: Positive = 0.1
    """Strength of the pull to the reference: larger stays closer."""

    known_as = ("SPCE",)
    data = Pairs
    unit = "pair"
    needs = REFERENCE | STRENGTH

    def reward(self, y: Scored) -> Float[Tensor, "n"]:
        return self.beta * y.ratio

    def __call__(self, batch: Pairs, state: State | None = None) -> Float[Tensor, "units"]:
        s = self.reward(batch.w) - self.reward(batch.l)
        p = batch.column("strength").to(s).detach()
        return -p * logsigmoid(s) - (1 - p) * logsigmoid(-s)


@dataclass(frozen=True, repr=False)
class StrengthWeighted(Wrapper):
    """|2p − 1| · loss of the pair, the preferred response first        after Zhai et al. 2025 (PSO, SIGIR)

    The other use of a strength p: an unsure pair counts less, but its margin grows as without; a tie counts nothing.
    `StrengthWeighted(DPO())` is −(2p−1) log σ(s) for p ≥ 1/2. Only the abstract of the source was at hand ("reweight the
    impact of different response pairs"), so the weight is ours: the difference of the two probabilities."""

    needs = STRENGTH

    def __call__(self, batch: Pairs, state: State | None = None) -> Float[Tensor, "units"]:
        ahead, turned = self.both_ways(batch)
        p = batch.column("strength").to(ahead).detach()
        return (2 * p - 1).clamp(min=0) * ahead + (1 - 2 * p).clamp(min=0) * turned

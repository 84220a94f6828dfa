"""Smoothed preference optimisation: a pair counts as much as its two sides differ. How surely one is preferred comes with the
data; where it comes from a reward model, `strength = σ(r_w − r_l)` with rewards scaled to [0, 1] over the whole data set."""

from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from penchant.objectives.base import REFERENCE, STRENGTH, Paired, Positive, State
from penchant.objectives.scored import Pairs, Scored


@dataclass(frozen=True)
class SmPO(Paired):
    """-log σ( γ (2P − 1) β [u_w − u_l] ),  u = log π/π_ref        Lu et al. 2025, arXiv 2506.02698, and JaydenLyh/SmPO

    P is how surely the chosen is preferred, the column `strength`. γ (2P − 1) is 2α − γ of the paper with α = γ P. A tie,
    P = ½, has the loss log 2 and no gradient. The paper's other half, noise from inverting the picture instead of random
    noise, is the scorer's."""

    beta: Positive = 0.1
    """Strength of the pull to the reference: larger stays closer."""
    gamma: Positive = 10.0
    """γ, the weight of a pair that everybody agrees on."""

    needs = REFERENCE | STRENGTH

    def reward(self, y: Scored) -> Float[Tensor, "n"]:
        return self.beta * y.ratio

    def __call__(self, batch: Pairs | Scored, l: Any = None, state: State | None = None) -> Float[Tensor, "pairs"]:
        batch = Pairs(batch, l) if isinstance(batch, Scored) else batch
        margin = self.reward(batch.w) - self.reward(batch.l)
        return -logsigmoid(self.gamma * (2 * batch.column("strength").to(margin) - 1) * margin)

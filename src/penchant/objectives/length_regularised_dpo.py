"""Length-regularised DPO (R-DPO): the reward of a response includes a share of its length, so that length explains part of
the preference and the policy need not. It is not rDPO, which is about wrong labels."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from penchant.objectives.base import REFERENCE, Paired, Positive, Real
from penchant.objectives.scored import Scored


@dataclass(frozen=True)
class LengthRegularisedDPO(Paired):
    """-log σ( β (u_w − u_l) + α (|y_w| − |y_l|) ),  u = log π/π_ref        Park et al. 2024, arXiv 2403.19159

    From reward − α |y| = β u + const: where the chosen is longer, part of the margin is granted for free."""

    beta: Positive = 0.1
    """Strength of the pull to the reference: larger stays closer."""
    alpha: Real = 0.01
    """α, the reward that a token of length explains."""

    known_as = ("R-DPO",)
    needs = REFERENCE

    def reward(self, y: Scored) -> Float[Tensor, "n"]:
        return self.beta * y.ratio + self.alpha * y.length

    def loss(self, w: Float[Tensor, "pairs"], l: Float[Tensor, "pairs"]) -> Float[Tensor, "pairs"]:
        return -logsigmoid(w - l)

"""DPO with a share of the reference: between DPO, which is anchored in full, and CPO's preference term, which is not anchored.
The anchor is scaled for the loss alone; the implicit reward is scaled with it."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from penchant.objectives.base import REFERENCE, NonNegative, Paired, Positive
from penchant.objectives.scored import Scored


@dataclass(frozen=True)
class GammaDPO(Paired):
    """-log σ( β [ log π(y_w)/π(y_l) + γ log π_ref(y_l)/π_ref(y_w) ] )        Chen et al. 2024, arXiv 2405.19534, eq. 4

    γ = 1 is DPO, γ = 0 CPO's preference term. Below 1 less is asked of pairs that the reference ranks right, and more of
    those it ranks wrong, which DPO seldom turns."""

    beta: Positive = 0.1
    """Scale of the summed log-probabilities."""
    gamma: NonNegative = 0.5
    """γ, how much of the reference's own preference is subtracted; the paper tries 0 to 2."""

    known_as = ("gamma-DPO", "γ-DPO")
    needs = REFERENCE

    def reward(self, y: Scored) -> Float[Tensor, "n"]:
        return self.beta * y.against({"ref": self.gamma})

    def loss(self, w: Float[Tensor, "pairs"], l: Float[Tensor, "pairs"]) -> Float[Tensor, "pairs"]:
        return -logsigmoid(w - l)

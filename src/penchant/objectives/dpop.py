"""DPO-positive (Smaug): DPO that also pays for letting the chosen fall below the reference.
Where the chosen is above the reference it is DPO exactly."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid, relu

from penchant.objectives.base import REFERENCE, NonNegative, Paired, Positive
from penchant.objectives.scored import Scored


@dataclass(frozen=True)
class DPOP(Paired):
    """-log σ( β (u_w − u_l − λ max(0, −u_w)) ),  u = log π/π_ref        Pal et al. 2024, arXiv 2402.13228, L_DPOP

    λ stands inside β, as in the paper. Its runs use β = 0.3 and λ from 5 to 500."""

    beta: Positive = 0.3
    """Strength of the pull to the reference: larger stays closer."""
    penalty: NonNegative = 50.0
    """λ, the price of each nat by which the chosen is less likely than under the reference."""

    known_as = ("DPO-Positive", "Smaug")
    needs = REFERENCE

    def reward(self, y: Scored) -> Float[Tensor, "n"]:
        return self.beta * y.ratio

    def loss(self, w: Float[Tensor, "pairs"], l: Float[Tensor, "pairs"]) -> Float[Tensor, "pairs"]:
        return -logsigmoid(w - l - self.penalty * relu(-w))  # w and l carry β already

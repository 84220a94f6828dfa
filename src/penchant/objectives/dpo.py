"""Direct preference optimisation. It is the plainest of the family: nothing here but the paper's equation 7."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from penchant.objectives.base import REFERENCE, Paired, Positive
from penchant.objectives.scored import Scored


@dataclass(frozen=True)
class DPO(Paired):
    """-log σ( β log π/π_ref (y_w) − β log π/π_ref (y_l) )        Rafailov et al. 2023, arXiv 2305.18290, eq. 7"""

    beta: Positive = 0.1
    """Strength of the pull to the reference: larger stays closer."""

    needs = REFERENCE

    def reward(self, y: Scored) -> Float[Tensor, "n"]:
        return self.beta * y.ratio

    def loss(self, w: Float[Tensor, "pairs"], l: Float[Tensor, "pairs"]) -> Float[Tensor, "pairs"]:
        return -logsigmoid(w - l)

"""Noise-contrastive alignment on pairs: each response is told from noise by itself, so the chosen's likelihood is held up.
This is the case of two responses with a hard preference; the method for graded lists is another objective."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from penchant.objectives.base import REFERENCE, Paired, Positive
from penchant.objectives.scored import Scored


@dataclass(frozen=True)
class NCA(Paired):
    """-log σ(r_w) − ½ log σ(−r_w) − ½ log σ(−r_l),  r = β log π/π_ref        Chen et al. 2024, arXiv 2402.05369, K = 2"""

    beta: Positive = 0.1
    """Strength of the pull to the reference: larger stays closer."""

    needs = REFERENCE

    def reward(self, y: Scored) -> Float[Tensor, "n"]:
        return self.beta * y.ratio

    def loss(self, w: Float[Tensor, "pairs"], l: Float[Tensor, "pairs"]) -> Float[Tensor, "pairs"]:
        return -logsigmoid(w) - (logsigmoid(-w) + logsigmoid(-l)) / 2

"""The hinge loss over all pairs of a graded list: no pull on a pair once its margin has reached 1. Only the order of the
grades counts."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import relu

from penchant.objectives.listwise import OverPairs


@dataclass(frozen=True)
class PairwiseHinge(OverPairs):
    """Σ_{ψ_i > ψ_j} max(0, 1 − (s_i − s_j)),  s = β log π/π_ref        Liu et al. 2024, arXiv 2402.01878, eq. 6

    With two responses it is Hinge."""

    def cost(self, margin: Float[Tensor, "lists k k"]) -> Float[Tensor, "lists k k"]:
        return relu(1 - margin)

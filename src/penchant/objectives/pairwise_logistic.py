"""DPO's logistic loss over all pairs of a graded list. Only the order of the grades counts; LiPO weighs the pairs by how
far the grades lie apart and by where the responses now stand."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from penchant.objectives.listwise import OverPairs


@dataclass(frozen=True)
class PairwiseLogistic(OverPairs):
    """Σ_{ψ_i > ψ_j} -log σ(s_i − s_j),  s = β log π/π_ref        Liu et al. 2024, arXiv 2402.01878, eq. 5

    With two responses it is DPO."""

    def cost(self, margin: Float[Tensor, "lists k k"]) -> Float[Tensor, "lists k k"]:
        return -logsigmoid(margin)

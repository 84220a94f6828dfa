"""The likelihood of a ranking under Plackett and Luce: the best is chosen out of all, the next out of the rest. Only the
order of the grades counts; PRO is its relative with reward gaps for temperatures and without a reference."""

from dataclasses import dataclass

from jaxtyping import Bool, Float
from torch import Tensor

from penchant.objectives.base import REFERENCE, Positive
from penchant.objectives.listwise import Listwise, above, passed_over
from penchant.objectives.scored import Scored


@dataclass(frozen=True)
class ListMLE(Listwise):
    """-Σ_i log e^s_i / (e^s_i + Σ_{ψ_j < ψ_i} e^s_j),  s = β log π/π_ref        arXiv 2402.01878, eq. 7

    DPO's Plackett-Luce form (arXiv 2305.18290, appendix A.3); with two responses it is DPO. The equation is written for
    rankings without ties. Here responses of equal grade are not held against one another, each is chosen before all that
    are worse; codes that sort let chance or the order of the data decide."""

    beta: Positive = 0.05
    """Strength of the pull to the reference: larger stays closer. 0.05 is the LiPO paper's."""

    known_as = ("Plackett-Luce", "DPO-PL")
    needs = REFERENCE

    def reward(self, y: Scored) -> Float[Tensor, "n"]:
        return self.beta * y.ratio

    def loss(
        self, reward: Float[Tensor, "lists k"], gain: Float[Tensor, "lists k"], mask: Bool[Tensor, "lists k"]
    ) -> Float[Tensor, "lists"]:
        worse = above(gain, mask)
        return passed_over(reward, reward[..., None, :].expand(worse.shape), worse).sum(-1)

"""InfoNCA: a list's graded responses as a soft classification, of which was the good one. With two responses and a hard
grade it is DPO; it moves likelihoods relative to one another and does not hold the best one up (NCA does)."""

from dataclasses import dataclass

from jaxtyping import Bool, Float
from torch import Tensor

from penchant.objectives.base import REFERENCE, Positive
from penchant.objectives.listwise import Listwise, log_share
from penchant.objectives.scored import Scored


@dataclass(frozen=True)
class InfoNCA(Listwise):
    """-Σ_i q_i log softmax_i(β u),  q = softmax(gain/α), u = log π/π_ref        Chen et al. 2024, arXiv 2402.05369

    The sums run over the responses to one prompt. The authors' code adds 0.01 to the first response's grade to break ties
    its way; here ties stay ties."""

    beta: Positive = 0.1
    """Strength of the pull to the reference: larger stays closer."""
    alpha: Positive = 1.0
    """α, the temperature of the grades: near 0 only the best response is a target. It has the grades' own scale."""

    needs = REFERENCE

    def reward(self, y: Scored) -> Float[Tensor, "n"]:
        return self.beta * y.ratio

    def loss(
        self, reward: Float[Tensor, "lists k"], gain: Float[Tensor, "lists k"], mask: Bool[Tensor, "lists k"]
    ) -> Float[Tensor, "lists"]:
        return -(log_share(gain / self.alpha, mask).exp() * log_share(reward, mask)).sum(-1)

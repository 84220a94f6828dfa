"""LiPO-λ: all pairs of a graded list, each weighed by what swapping the two would do to the list's DCG as the policy now
ranks it. The weights are numbers to the gradient: it flows through the margins alone."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from penchant.objectives.base import Range
from penchant.objectives.listwise import UNIT, OverPairs, differences, places


@dataclass(frozen=True)
class LiPO(OverPairs):
    """Σ_{ψ_i > ψ_j} -Δ_ij log σ(s_i − s_j),  s = β log π/π_ref        Liu et al. 2024, arXiv 2402.01878, eq. 8

    Δ_ij = |2^ψ_i − 2^ψ_j| · |1/log(1 + τ_i) − 1/log(1 + τ_j)|, τ the place of a response by its present score s, 1 the
    highest; equal scores keep the order of the data, as all do at the first step. Labels ψ lie in [0, 1]. The logarithm is
    natural; reduction "rax" takes that of base 2 and multiplies by the list's length, as the authors' library does."""

    known_as = ("LiPO-λ", "LiPO-lambda", "LambdaLoss")

    @property
    def gains(self) -> Range:
        return UNIT

    def cost(self, margin: Float[Tensor, "lists k k"]) -> Float[Tensor, "lists k k"]:
        return -logsigmoid(margin)

    def weight(
        self, reward: Float[Tensor, "lists k"], gain: Float[Tensor, "lists k"], mask: Bool[Tensor, "lists k"]
    ) -> Float[Tensor, "lists k k"]:
        place = 1 + places(reward, mask)
        discount = mask.sum(-1, keepdim=True) / place.log2() if self.reduction == "rax" else 1 / place.log()
        return differences(torch.exp2(gain)).abs() * differences(discount).abs()

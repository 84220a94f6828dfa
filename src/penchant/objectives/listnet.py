"""A list's labels as shares of one whole, and the cross-entropy of the scores' softmax to them. It pulls equal labels to
equal scores; InfoNCA is the same with a temperature for the grades."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from penchant.objectives.base import REFERENCE, Positive, Range
from penchant.objectives.listwise import Listwise, log_share
from penchant.objectives.scored import Scored


@dataclass(frozen=True)
class ListNet(Listwise):
    """-Σ_i q_i log softmax_i(s),  s = β log π/π_ref        Liu et al. 2024, arXiv 2402.01878, eq. 11

    The target q is made of the labels ψ in three ways. A list without a label above 0 has loss 0 where q is no softmax."""

    beta: Positive = 0.05
    """Strength of the pull to the reference: larger stays closer. 0.05 is the LiPO paper's."""
    target: Literal["psi_norm", "psi", "softmax"] = "psi_norm"
    """psi_norm: ψ / Σψ, as printed. psi: ψ itself, as in the authors' library Rax. softmax: softmax(ψ), as in ListNet
    (Cao et al. 2007). The first two take labels that are not negative."""

    needs = REFERENCE

    @property
    def gains(self) -> Range:
        return Range() if self.target == "softmax" else Range(0.0)

    def reward(self, y: Scored) -> Float[Tensor, "n"]:
        return self.beta * y.ratio

    def loss(
        self, reward: Float[Tensor, "lists k"], gain: Float[Tensor, "lists k"], mask: Bool[Tensor, "lists k"]
    ) -> Float[Tensor, "lists"]:
        if self.target == "softmax":
            gain = log_share(gain, mask).exp()
        elif self.target == "psi_norm":
            total = gain.sum(-1, keepdim=True)
            gain = gain / torch.where(total > 0, total, 1.0)
        return -(gain * log_share(reward, mask)).sum(-1)

"""Anchored preference optimisation: it says where the chosen should go, not only how far from the rejected.
TRL adds 1 to each loss so that it is positive; here they are the paper's."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from penchant.objectives.base import REFERENCE, Paired, Positive
from penchant.objectives.scored import Scored


@dataclass(frozen=True)
class APOZero(Paired):
    """-σ(r_w) + σ(r_l),  r = β log π/π_ref        D'Oosterlinck et al. 2024, arXiv 2408.06266, eq. 7

    For chosen responses better than the policy's own: the chosen is raised, the rejected lowered."""

    beta: Positive = 0.1
    """Scale of the log-ratio: larger saturates sooner."""

    known_as = ("APO-zero",)
    needs = REFERENCE

    def reward(self, y: Scored) -> Float[Tensor, "n"]:
        return self.beta * y.ratio

    def loss(self, w: Float[Tensor, "pairs"], l: Float[Tensor, "pairs"]) -> Float[Tensor, "pairs"]:
        return torch.sigmoid(l) - torch.sigmoid(w)


@dataclass(frozen=True)
class APODown(Paired):
    """σ(r_w) − σ(r_w − r_l),  r = β log π/π_ref        D'Oosterlinck et al. 2024, arXiv 2408.06266, eq. 8

    For chosen responses worse than the policy's own: both are lowered, the rejected further."""

    beta: Positive = 0.1
    """Scale of the log-ratio: larger saturates sooner."""

    breaks: ClassVar = {"descent": "It lowers the chosen on purpose; at policy = reference the chosen has no gradient yet."}

    known_as = ("APO-down",)
    needs = REFERENCE

    def reward(self, y: Scored) -> Float[Tensor, "n"]:
        return self.beta * y.ratio

    def loss(self, w: Float[Tensor, "pairs"], l: Float[Tensor, "pairs"]) -> Float[Tensor, "pairs"]:
        return torch.sigmoid(w) - torch.sigmoid(w - l)

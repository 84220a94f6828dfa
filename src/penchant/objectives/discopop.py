"""DiscoPOP: the loss that a language model found when it was asked for one, a blend of the logistic and the exponential.
It is not convex: between its two regimes a larger margin costs more."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from penchant.objectives.base import REFERENCE, Paired, Positive, Range
from penchant.objectives.scored import Scored


@dataclass(frozen=True)
class DiscoPOP(Paired):
    """-(1−m) log σ(s) + m e⁻ˢ,  m = σ(s/τ), s = β log-ratio margin        Lu et al. 2024, arXiv 2406.08414, eq. 5"""

    beta: Positive = 0.1
    """Strength of the pull to the reference: larger stays closer."""
    tau: Annotated[float | int, Range(0.0, 1.0, open_low=True)] = 0.05
    """τ, how sharply the blend turns from logistic to exponential at margin 0; above 1 the loss has no bound."""

    breaks: ClassVar = {
        "descent": "With small τ its slope at policy = reference points the wrong way: the loss has a hump at margin 0.",
        "mirror": "On its hump around margin 0 the right order costs more than the wrong one.",
    }

    needs = REFERENCE

    def reward(self, y: Scored) -> Float[Tensor, "n"]:
        return self.beta * y.ratio

    def loss(self, w: Float[Tensor, "pairs"], l: Float[Tensor, "pairs"]) -> Float[Tensor, "pairs"]:
        s = w - l
        exponential = torch.exp(logsigmoid(s / self.tau) - s)  # m e⁻ˢ without e⁻ˢ, which overflows where m vanishes
        return exponential - torch.sigmoid(-s / self.tau) * logsigmoid(s)

"""Each response's score is fitted to its label by least squares, by itself. It prefers nothing: the level of the scores
is learned too, so it serves as a baseline."""

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from penchant.objectives.listwise import Pointwise


@dataclass(frozen=True)
class PointwiseMSE(Pointwise):
    """Σ_i (ψ_i − s_i)²,  s = β log π/π_ref        Liu et al. 2024, arXiv 2402.01878, eq. 9"""

    breaks: ClassVar = {"descent": "Every score is drawn to its own label, a low one too."}

    def cost(self, reward: Float[Tensor, "lists k"], gain: Float[Tensor, "lists k"]) -> Float[Tensor, "lists k"]:
        return (gain - reward) ** 2

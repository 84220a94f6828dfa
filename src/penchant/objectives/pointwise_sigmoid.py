"""Each response's score is fitted to its label as the log-odds of being good, by itself. It prefers nothing: the level of
the scores is learned too, so it serves as a baseline."""

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from penchant.objectives.base import Range
from penchant.objectives.listwise import UNIT, Pointwise


@dataclass(frozen=True)
class PointwiseSigmoid(Pointwise):
    """-Σ_i ψ_i log σ(s_i) + (1 − ψ_i) log σ(−s_i),  s = β log π/π_ref        arXiv 2402.01878, eq. 10

    Labels ψ lie in [0, 1]."""

    breaks: ClassVar = {"descent": "A response labelled above ½ is raised, be it the worst of its list."}

    @property
    def gains(self) -> Range:
        return UNIT

    def cost(self, reward: Float[Tensor, "lists k"], gain: Float[Tensor, "lists k"]) -> Float[Tensor, "lists k"]:
        return -(gain * logsigmoid(reward) + (1 - gain) * logsigmoid(-reward))

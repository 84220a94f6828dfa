"""DPO held to its reference by other divergences than the reverse KL: the log-ratio becomes f′(π/π_ref).
What is compared is still the pair; only what a step away from the reference costs is another."""

from dataclasses import dataclass
from math import log
from typing import Annotated, Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from penchant.objectives.base import REFERENCE, Paired, Positive, Range
from penchant.objectives.scored import Scored

STEEPEST = 60.0
"""e^x is followed by its tangent from here on: e^60 is far from any policy in use, and e^89 is infinite in float32."""


@dataclass(frozen=True)
class FDPO(Paired):
    """-log σ( β f′(v_w) − β f′(v_l) ),  v = π/π_ref of the response        Wang et al. 2023, arXiv 2309.16240 (f-DPO)

    f′(v) is log v for the reverse KL (DPO), 1 − 1/v for the forward KL, log 2v/(1+v) for Jensen-Shannon; constants cancel.
    v belongs to the whole response. Under the forward KL a response that has become unlikely pulls e^(−log v) times: past
    log v = −60 the pull stays what it is there (TRL cuts the exponential off where the format ends, which leaves no pull)."""

    beta: Positive = 0.1
    """Strength of the pull to the reference: larger stays closer."""
    divergence: Literal["reverse_kl", "forward_kl", "jensen_shannon"] = "jensen_shannon"
    """The divergence that holds the policy. reverse_kl is DPO; jensen_shannon's reward has the bound β log 2; forward_kl
    covers all that the reference does, and its reward the bound β."""

    known_as = ("f-DPO",)
    needs = REFERENCE

    def reward(self, y: Scored) -> Float[Tensor, "n"]:
        if self.divergence == "reverse_kl":
            return self.beta * y.ratio
        if self.divergence == "forward_kl":
            return self.beta * alpha_slope(y.ratio, 1.0)
        return self.beta * (logsigmoid(y.ratio) + log(2))  # v/(1+v) = σ(log v)

    def loss(self, w: Float[Tensor, "pairs"], l: Float[Tensor, "pairs"]) -> Float[Tensor, "pairs"]:
        return -logsigmoid(w - l)


@dataclass(frozen=True)
class AlphaDivergenceDPO(Paired):
    """-log σ( β (v_l^−α − v_w^−α)/α ),  v = π/π_ref of the response        Wang et al. 2023, arXiv 2309.16240 (f-DPO)

    f-DPO with the α-divergences, f′(v) = (1 − v^−α)/α: between the reverse KL (α → 0, DPO) and the forward KL (α → 1).
    TRL's default, α = 1, is the forward KL. Past v^−α = e^60 the pull stays what it is there."""

    beta: Positive = 0.1
    """Strength of the pull to the reference: larger stays closer."""
    alpha: Annotated[float | int, Range(0.0, 1.0, open_low=True, open_high=True)] = 0.5
    """α, from 0 (reverse KL) to 1 (forward KL), without the ends: those are FDPO's."""

    needs = REFERENCE

    def reward(self, y: Scored) -> Float[Tensor, "n"]:
        return self.beta * alpha_slope(y.ratio, self.alpha)

    def loss(self, w: Float[Tensor, "pairs"], l: Float[Tensor, "pairs"]) -> Float[Tensor, "pairs"]:
        return -logsigmoid(w - l)


def alpha_slope(log_v: Float[Tensor, "n"], alpha: float) -> Float[Tensor, "n"]:
    """(1 − v^−α)/α, the slope of the α-divergence at v; linear in log v past v^−α = e^60."""
    x = -alpha * log_v
    near = x.clamp(max=STEEPEST)
    return -(torch.expm1(near) + near.exp() * (x - near)) / alpha

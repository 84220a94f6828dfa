"""Margin-aware preference optimisation: no reference, a bounded margin between the denoising errors of two pictures, and the
ordinary denoising loss on the chosen one. It reads errors, not log-probs, so it is for domains that denoise."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from penchant.objectives.base import Needs, NonNegative, Paired, Positive
from penchant.objectives.scored import Scored

ERROR = Needs(values=frozenset({"error"}))
"""The mean squared denoising error of every step, with gradient."""
NEAR = 1e-2
"""Below this x / (eˣ − 1) is its series, whose next term, x⁶/30240, is under 4e-17."""


@dataclass(frozen=True)
class MaPO(Paired):
    """m_w − β log σ( T [φ(κ m_w) − φ(κ m_l)] ),  φ(x) = x / (eˣ − 1)        Hong et al. 2024, arXiv 2406.06424, mapo-t2i/mapo

    m is the mean squared denoising error, T = `timesteps`. This is the authors' code; the paper's later text has another link,
    see PowerMaPO."""

    beta: NonNegative = 0.1
    """Weight of the margin term; 0 is imitation of the chosen."""
    kappa: Positive = 0.5
    """κ, by which errors are scaled in the link; it stands for a signal-to-noise ratio, but is constant."""
    timesteps: Positive = 1000.0
    """T, the scale of the margin."""

    needs = ERROR

    def reward(self, y: Scored) -> Float[Tensor, "n"]:
        return self.timesteps * bounded(self.kappa * error(y))

    def loss_scored(self, w: Scored, l: Scored) -> Float[Tensor, "pairs"]:
        return error(w) - self.beta * logsigmoid(self.reward(w) - self.reward(l))


@dataclass(frozen=True)
class PowerMaPO(Paired):
    """m_w − (1/β) log σ( φ(m_w)^β − φ(m_l)^β ),  φ(x) = x / (eˣ − 1)        Hong et al., AAAI 2026, eq. 9 to 11 of that text

    As MaPO, with the link of the paper's later text; its β (8 to 1024, larger where chosen pictures are farther from the
    model's own) is not MaPO's. That β is a power is inferred from the stated range of the link, (0, 1): its exponent is lost
    in the text that was at hand."""

    beta: Positive = 8.0
    """The exponent of the link; the margin term's weight is 1/β."""

    needs = ERROR

    def reward(self, y: Scored) -> Float[Tensor, "n"]:
        return bounded(error(y)) ** self.beta

    def loss_scored(self, w: Scored, l: Scored) -> Float[Tensor, "pairs"]:
        return error(w) - logsigmoid(self.reward(w) - self.reward(l)) / self.beta


def error(y: Scored) -> Float[Tensor, "n"]:
    """The denoising error of each response, a mean over its steps."""
    return y.per_step(y.sum(y.value("error")))


def bounded(x: Float[Tensor, "n"]) -> Float[Tensor, "n"]:
    """x / (eˣ − 1) for x ≥ 0: 1 at 0, falling to 0. Computed so that value and gradient are finite, at 0 too; less than 0,
    which no error is, is read as 0."""
    x = x.clamp(min=0)
    near = x < NEAR
    small, large = torch.where(near, x, 0.0), torch.where(near, 1.0, x)
    series = 1 - small / 2 + small**2 / 12 - small**4 / 720
    return torch.where(near, series, large * torch.exp(-large) / -torch.expm1(-large))

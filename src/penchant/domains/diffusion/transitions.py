"""The steps of a sampling chain as Gaussians, x' ~ N(keep·x + turn·given, std²), where `given` is what the network gives at x: DDIM
with noise, or the stochastic form of a flow. Nothing is drawn or scored here."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from penchant.domains.diffusion.loading import the_library
from penchant.domains.diffusion.noise import Flow, Level, VariancePreserving
from penchant.domains.diffusion.policy import DiffusionPolicy
from penchant.domains.diffusion.sampling import started
from penchant.errors import Refusal

ETA = {"flow": 0.7, "variance preserving": 1.0}
"""How noisy a chain is where it is not said: of flows Flow-GRPO's value, else DDPO's, which is DDPM's own."""


@dataclass(frozen=True)
class Walk:
    """How a chain goes from noise to a picture."""

    steps: int = 10
    """Of the scheduler. Flow-GRPO trains with 10, DDPO with 50."""
    eta: float | None = None
    """How noisy each step is, above 0: without noise a step has no density. None: ETA's, by kind of process."""

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise Refusal(f"steps={self.steps}: at least one step is needed to draw a picture.")
        if self.eta is not None and not (math.isfinite(self.eta) and self.eta > 0):
            raise Refusal(f"eta={self.eta}: it must be finite and above 0, for a step without noise has no density.")


@dataclass(frozen=True, eq=False)
class Transitions:
    """The steps of a chain, from noise to picture; all numbers float64 [K]."""

    level: Level
    """Where the network is asked."""
    keep: Float[Tensor, "K"]
    turn: Float[Tensor, "K"]
    std: Float[Tensor, "K"]

    def __len__(self) -> int:
        return len(self.std)

    def mean(self, k: int, x: Tensor, given: Tensor) -> Tensor:
        """Where step k goes to from x, before its noise."""
        return float(self.keep[k]) * x + float(self.turn[k]) * given


def transitions(policy: DiffusionPolicy, walk: Walk) -> Transitions:
    """The steps of a walk by the policy's own scheduler. A variance-preserving chain ends at ᾱ_0, the least noise that the model
    knows, as Stable Diffusion's schedulers do, so that its last step has a density too; a schedule that asks the network there is
    one step shorter."""
    ways = asked(policy, walk.steps)
    if isinstance(policy.process, Flow):
        sigmas = torch.cat([ways, torch.zeros(1, dtype=torch.float64)])
        return of_flow(policy.process, sigmas, ETA["flow"] if walk.eta is None else walk.eta)
    assert isinstance(policy.process, VariancePreserving)
    times = torch.cat([ways[ways > 0], torch.zeros(1, dtype=torch.long)])
    return of_ddim(policy.process, times, ETA["variance preserving"] if walk.eta is None else walk.eta)


def asked(policy: DiffusionPolicy, steps: int) -> Tensor:
    """Where a sampler of so many steps asks the network, from noise to picture: a flow's amounts of noise, float64 [steps], or a
    variance-preserving model's times by DDIM, int64 [steps]."""
    if isinstance(policy.process, Flow):
        scheduler, _ = started(policy, steps)
        return scheduler.sigmas.double().cpu()[:-1]
    scheduler: Any = the_library().DDIMScheduler.from_config(policy.scheduler.config)
    scheduler.set_timesteps(steps)
    return scheduler.timesteps.long()


def of_ddim(process: VariancePreserving, times: Tensor, eta: float) -> Transitions:
    """DDIM with noise between falling times, int64 [K + 1]:        Song et al. 2021, eq. 12 and 16

    x' = a'·x̂0 + √(s'² − σ²)·ε̂ + σ·n,  σ² = η² (1 − ᾱ')/(1 − ᾱ) (1 − ᾱ/ᾱ')"""
    if eta > 1:
        raise Refusal(
            f"eta={eta}: DDIM's steps have at most the noise of η = 1; beyond it there can be more than a level holds."
        )
    here, there = process.at(times[:-1]), process.at(times[1:])
    variance = eta**2 * (there.s / here.s) ** 2 * (1 - (here.a / there.a) ** 2)

    def mean(x: Tensor, given: Tensor) -> Tensor:
        x0, eps = process.clean(x, given, here)
        return there.a * x0 + (there.s**2 - variance).clamp(min=0).sqrt() * eps

    return Transitions(here, *_linear(mean, here), variance.sqrt())


def of_flow(process: Flow, sigmas: Float[Tensor, "K1"], eta: float) -> Transitions:
    """A flow's stochastic form between falling amounts of noise [K + 1], whose marginals are the flow's as steps get short:
    Liu et al. 2025, arXiv 2505.05470, and sd3_sde_with_logprob of yifan123/flow_grpo

    x' = x + [v + g²/(2s) (x + (1 − s) v)] Δ + g √−Δ·n,  g = η √(s/(1 − s)),  Δ = s' − s < 0

    Where s = 1 the next s stands in g's denominator. The last step has noise too, and a density, though its picture keeps it: with
    K equal steps its standard deviation is about η/K."""
    here, step = process.at(sigmas[:-1]), sigmas[1:] - sigmas[:-1]
    s = here.s
    g2 = eta**2 * s / (1 - torch.where(s == 1, sigmas[1], s))

    def mean(x: Tensor, v: Tensor) -> Tensor:
        return x + (v + g2 / (2 * s) * (x + (1 - s) * v)) * step

    return Transitions(here, *_linear(mean, here), (g2 * -step).sqrt())


def _linear(mean: Callable[[Tensor, Tensor], Tensor], level: Level) -> tuple[Tensor, Tensor]:
    """The two factors of a mean that is linear in x and in what the network gives."""
    one, zero = torch.ones_like(level.s), torch.zeros_like(level.s)
    return mean(one, zero), mean(zero, one)

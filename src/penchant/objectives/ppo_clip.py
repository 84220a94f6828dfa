"""The clipped policy gradient: responses that the policy sampled itself, each as good or bad as its advantage says, and no step
further than a ratio allows. Where advantages come from is not its business: they arrive with the rollouts."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from penchant.objectives.base import PREVIOUS, Objective, Positive, Share, State
from penchant.objectives.scored import Rollouts, wide

FAR = 20.0
"""A log-ratio above this counts as this, as in verl's code: e^FAR is still a number that can be added up."""


@dataclass(frozen=True)
class PPOClip(Objective):
    """-min( ρ A, clip(ρ, 1 − low, 1 + high) A ),  ρ = π/π_prev of a step        Schulman et al. 2017, arXiv 1707.06347, eq. 7

    A is the advantage of the whole response, computed over all rollouts before the first step; π_prev is who sampled. Its mean
    over all steps of the optimiser step is GRPO's loss as DAPO normalises it, with `high` above `low` its clip-higher; there is no
    critic. On sampling chains of a diffusion model it is DDPO and Flow-GRPO. `TrustRegion()` beside it is GRPO's pull to the
    sampler (not to the reference)."""

    low: Share = 0.2
    """How far below 1 a ratio may fall before a bad step is left alone."""
    high: Positive = 0.2
    """How far above 1 it may rise before a good step is left alone."""

    data = Rollouts
    unit = "token"
    needs = PREVIOUS
    known_as: ClassVar = ("PPO", "GRPO", "DDPO", "Flow-GRPO")

    def __call__(self, batch: Rollouts, state: State | None = None) -> Float[Tensor, "units"]:
        y = batch.y
        ratio = (wide(y.logp) - wide(y.anchor("prev"))).clamp(max=FAR).exp()
        advantage = batch.advantage.to(ratio)[:, None]
        kept = ratio.clamp(1 - self.low, 1 + self.high)
        return -torch.minimum(ratio * advantage, kept * advantage)[y.mask]

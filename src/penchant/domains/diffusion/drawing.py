"""Where the noise comes from in which pictures are scored: drawn at random, or another source put in its place. What is made of the
noise is not its business."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from penchant.domains.base import Encoded, Want
from penchant.domains.diffusion.noise import Level, drawn
from penchant.domains.diffusion.policy import DiffusionPolicy

NoiseSource = Callable[[DiffusionPolicy, Encoded, Tensor, Tensor, Want], tuple[Level, Tensor]]
"""Gives levels [n] and noise [n, C, H, W], without gradient, to all pictures of some rows. It is told the policy, the rows, the
contexts [n, tokens] and the pictures [n, C, H, W] of all their responses, each as often as want.draws says, one after the other."""


def shared_noise(
    policy: DiffusionPolicy,
    encoded: Encoded,
    contexts: Int[Tensor, "n tokens"],
    pictures: Float[Tensor, "n channels height width"],
    want: Want,
) -> tuple[Level, Float[Tensor, "n channels height width"]]:
    """Level and noise at random, by (want.seed, the row's number, the draw's): the same for all of a row's pictures."""
    u, noise = drawn(policy.process.density, policy.shape, want.seed or 0, encoded.numbers, want.draws)
    of = torch.repeat_interleave(torch.arange(len(encoded)), torch.tensor(encoded.counts))
    return policy.process.level(u[of].flatten()), noise[of].flatten(0, 1).to(pictures)

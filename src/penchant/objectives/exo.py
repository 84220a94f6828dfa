"""Efficient exact optimisation on pairs: the reverse KL divergence from what the policy prefers to what the labels say.
Conservative DPO is the forward one; this one seeks the mode."""

from dataclasses import dataclass
from math import log
from typing import Annotated

import torch
from jaxtyping import Float
from torch import Tensor

from penchant.objectives.base import REFERENCE, Paired, Positive, Range, bernoulli_kl
from penchant.objectives.scored import Scored


@dataclass(frozen=True)
class EXO(Paired):
    """KL( [σ(s), σ(−s)] ‖ [1−ε, ε] ),  s = β log-ratio margin        Ji et al. 2024, arXiv 2402.00856, eq. 16

    The labels are [1−ε, ε] as the paper writes them; the authors' code has un-normalised log-labels (0, −10) instead."""

    beta: Positive = 0.1
    """Strength of the pull to the reference: larger stays closer."""
    flip: Annotated[float | int, Range(0.0, 0.5, open_low=True, open_high=True)] = 1e-3
    """ε, the share of labels taken to be wrong; at 0 the divergence is infinite."""

    needs = REFERENCE

    def reward(self, y: Scored) -> Float[Tensor, "n"]:
        return self.beta * y.ratio

    def loss(self, w: Float[Tensor, "pairs"], l: Float[Tensor, "pairs"]) -> Float[Tensor, "pairs"]:
        s = w - l
        return bernoulli_kl(s, torch.full_like(s, log(1 - self.flip) - log(self.flip)))

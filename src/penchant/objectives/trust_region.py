"""A trust region, token by token: what keeps a policy near the one that its responses were drawn from. It prefers nothing and
stands beside an objective that does."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from penchant.objectives.base import PREVIOUS, Objective, State
from penchant.objectives.scored import Batch, Labelled, Lists, Pairs, Rollouts, wide

CEILING = 10.0
"""A token counts for at most this."""
FAR = 50.0
"""Beyond the ceiling, and e^FAR is still a number in float32."""


@dataclass(frozen=True)
class TrustRegion(Objective):
    """min(10, e^d − d − 1),  d = log π_prev − log π of a token        Su et al. 2025, arXiv 2504.04524; Schulman's k3

    Its mean over tokens that the previous policy wrote estimates KL(π ‖ π_prev) while the two are near. It has no slope
    where the policy is what it was at the start of the phase. The ceiling is the authors' code's: beyond it a token pulls
    no more. `TRPA() + 0.001 * TrustRegion()` is TRPA's whole."""

    data = (Pairs, Labelled, Lists, Rollouts)
    unit = "token"
    needs = PREVIOUS
    breaks: ClassVar = {"descent": "It holds the policy where it was; nothing is preferred."}

    def __call__(self, batch: Batch, state: State | None = None) -> Float[Tensor, "units"]:
        y = batch.responses
        d = (wide(y.anchor("prev")) - wide(y.logp)).clamp(max=FAR)
        return y.flat((torch.expm1(d) - d).clamp(max=CEILING))

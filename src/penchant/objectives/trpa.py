"""Trust region preference approximation: levels given by rules, and every pair of two levels within a prompt's responses.
This is its preference part; the trust region is a term of its own: `TRPA() + 0.001 * TrustRegion()`."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from penchant.objectives.base import REFERENCE, Positive, Real, State
from penchant.objectives.listwise import Listwise, above, count_above, differences
from penchant.objectives.scored import Batch, Grouped, Lists, Rollouts, Scored


@dataclass(frozen=True)
class TRPA(Listwise):
    """-log σ( a_i β (u_i − u_j) ),  i of a better level than j, u = log π/π_ref        Su et al. 2025, arXiv 2504.04524

    The gain is the level, larger is better: 1 right, 0 well formed but wrong, −1 without an answer, −2 malformed make the
    paper's levels 1 to 4. a_i is `anisotropy` for winners of the best level and 1 for the others. One value per pair of
    levels, the mean over all pairs of the step; a prompt whose responses are all of one level says nothing (the authors'
    code then falls back to a loss on single responses). The factor multiplies the whole difference, as in their code; the
    paper writes one β per level and side. Two levels without anisotropy are DPO over all pairs."""

    beta: Positive = 0.1
    """Scale of the log-ratios: larger saturates sooner."""
    anisotropy: Positive = 2.5
    """How much more a pair pulls whose winner is of the best level."""
    best: Real = 1.0
    """Gains from here on are the best level: the answer is right."""
    normalise: Literal["sum", "mean"] = "sum"
    """sum: the log-ratio of whole responses (the paper). mean: per token, as the authors' code; differences are then so
    small that the loss is all but linear in them."""

    data = (Lists, Rollouts)
    unit = "pair"
    needs = REFERENCE

    def reward(self, y: Scored) -> Float[Tensor, "n"]:
        return self.beta * (y.ratio if self.normalise == "sum" else y.mean_ratio)

    def __call__(self, batch: Grouped, state: State | None = None) -> Float[Tensor, "units"]:
        reward, gain, mask = self.tables(batch)
        pull = torch.where(gain >= self.best, self.anisotropy, 1.0).to(reward)
        return -logsigmoid(pull[:, :, None] * differences(reward))[above(gain, mask)]

    def count(self, batch: Batch) -> int:
        return count_above(batch)

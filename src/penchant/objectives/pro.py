"""PRO: at each rank the best that is left is held against all that are worse, the gap of their rewards for a temperature,
and the best of all is imitated. It has no reference; without the imitation nothing keeps it a language model."""

from dataclasses import dataclass
from typing import Annotated

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from penchant.objectives.base import NonNegative, Range, State
from penchant.objectives.listwise import Listwise, above, differences, passed_over
from penchant.objectives.scored import Grouped, Scored


@dataclass(frozen=True)
class PRO(Listwise):
    """-Σ_k log e^{s_k T_k} / (e^{s_k T_k} + Σ_i e^{s_i T_ki}) − w (n−1)^p log π(y_1)        Song et al. 2024, arXiv 2306.17492

    i runs over the responses with a lower reward r than k, T_ki = r_k − r_i, T_k the largest of them; s is the mean log π
    per token, log π(y_1) the sum over the best response's tokens, n the length of the list. (The paper divides by
    temperatures that are 1/T.) The scale of the rewards sharpens or flattens the contrasts, a shift of them does nothing.

    The equation is written for rankings without ties. Here equal rewards are not held against one another, where the
    authors' code counts a constant rival e^0 for the one that comes first in the data; several best ones share the
    imitation, so a list of equal rewards is imitated and nothing more."""

    sft_weight: NonNegative = 0.05
    """w, how much the best response is imitated."""
    sft_power: Annotated[float | int, Range(0.0, 8.0)] = 2.0
    """p: longer lists have more contrasts, so the imitation grows with (n − 1)^p; past 8 it leaves the number format."""

    def reward(self, y: Scored) -> Float[Tensor, "n"]:
        return y.mean

    def loss(
        self, reward: Float[Tensor, "lists k"], gain: Float[Tensor, "lists k"], mask: Bool[Tensor, "lists k"]
    ) -> Float[Tensor, "lists"]:
        worse = above(gain, mask)
        gap = torch.where(worse, differences(gain), 0.0)
        return passed_over(reward * gap.amax(-1), reward[..., None, :] * gap, worse).sum(-1)

    def __call__(self, batch: Grouped, state: State | None = None) -> Float[Tensor, "lists"]:
        reward, gain, mask = self.tables(batch)
        best = mask & ~above(gain, mask).any(-2)
        likelihood = (batch.dense(batch.y.total)[0] * best).sum(-1) / best.sum(-1)
        longer = mask.sum(-1).to(likelihood.dtype) - 1
        return self.loss(reward, gain, mask) - self.sft_weight * longer**self.sft_power * likelihood

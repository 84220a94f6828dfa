"""Contrastive policy gradient: any reward of whole responses, learned from responses that anybody wrote. Each is compared
with the others of its list, so that no importance weight, critic or fresh sample is needed."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from penchant.objectives.base import REFERENCE, Positive
from penchant.objectives.listwise import Listwise, differences
from penchant.objectives.scored import Lists, Rollouts, Scored


@dataclass(frozen=True)
class CoPG(Listwise):
    """1/(2β(K−1)) Σ_i>j (R_i − R_j)²,  R = gain − β log π/π_ref        Flet-Berliac et al. 2024, arXiv 2406.19185, eq. 7

    The gain is the reward; a constant added to all of a list's cancels, and a list of one response says nothing. The
    paper's pair objective, to be maximised, is a constant less this. With K responses the gradient by log π(y_i) is minus
    R_i less the mean of the others' R: a policy gradient with leave-one-out baseline, off the policy as on it. With gains
    1/4 and −1/4 a pair gives β/2 of `IPO(tau=β, average=False)`. A pair with rewards is a list of two."""

    beta: Positive = 0.06
    """Strength of the pull to the reference, in the rewards' own unit; 0.06 was the paper's best for its reward model.
    Rewards that spread by 1 to 5 β make a good start."""
    scale: Literal["paper", "command_a"] = "paper"
    """paper: 1/(2β), so that gradients are those of a policy gradient. command_a: without this factor, as in the report of
    Command A. The minimum is the same; the learning rate is not."""

    data = (Lists, Rollouts)
    needs = REFERENCE

    def reward(self, y: Scored) -> Float[Tensor, "n"]:
        return self.beta * y.ratio

    def loss(
        self, reward: Float[Tensor, "lists k"], gain: Float[Tensor, "lists k"], mask: Bool[Tensor, "lists k"]
    ) -> Float[Tensor, "lists"]:
        both = mask[:, :, None] & mask[:, None, :]
        squares = torch.where(both, differences(gain - reward) ** 2, 0.0).sum((-2, -1)) / 2
        others = (mask.sum(-1) - 1).clamp(min=1)
        return squares / others / (2 * self.beta if self.scale == "paper" else 1)

"""Semi-policy preference optimisation: only the chosen comes from people; the other is a sample of an earlier checkpoint, which is
also the reference. Whether that sample is worse is asked of the policy, pair by pair. Where samples and checkpoints come from is
not its business."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from penchant.objectives.base import REFERENCE, Paired, Positive
from penchant.objectives.scored import Scored


@dataclass(frozen=True)
class SePPO(Paired):
    """-log σ( β [u_w − s u_l] ),  u = log π/π_ref,  s = +1 where u_w ≥ 0, else −1        Zhang et al. 2024, arXiv 2410.05255

    l is a sample of the reference. Where the policy already says the chosen better than the reference does (u_w ≥ 0), the
    reference is the weaker model and its sample a loser; else its sample is learned from too. s has no gradient; at exactly
    0 it is +1. The paper was read through others' accounts of its equations 7, 8 and 14; its authors released no training code."""

    beta: Positive = 0.1
    """Strength of the pull to the reference: larger stays closer."""
    flip: Literal["turn", "drop", "never"] = "turn"
    """What becomes of a sample that is no loser: turn, s = −1; drop, s = 0, which leaves imitation of the chosen (the paper's
    indicator); never, s = 1 always, which is DPO and, with samples of the last iterate, SPIN-Diffusion."""

    needs = REFERENCE

    def reward(self, y: Scored) -> Float[Tensor, "n"]:
        return self.beta * y.ratio

    def loss(self, w: Float[Tensor, "pairs"], l: Float[Tensor, "pairs"]) -> Float[Tensor, "pairs"]:
        otherwise = {"turn": -1.0, "drop": 0.0, "never": 1.0}[self.flip]
        s = torch.where(w.detach() >= 0, 1.0, otherwise)
        return -logsigmoid(w - s * l)

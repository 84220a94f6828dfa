"""Provably robust DPO: an unbiased estimate of the loss on clean labels, from labels of which a known share is flipped.
It subtracts what conservative DPO adds; do not mistake one for the other."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from penchant.objectives.base import REFERENCE, Flip, Paired, Positive
from penchant.objectives.scored import Scored


@dataclass(frozen=True)
class RDPO(Paired):
    """( -(1−ε) log σ(s) + ε log σ(−s) ) / (1−2ε),  s = β (u_w − u_l)        Chowdhury et al. 2024, arXiv 2403.00409, eq. 12

    u = log π/π_ref. Averaged over the flips it is DPO's loss on the true labels. It equals DPO − ε/(1−2ε) s, so it is not
    bounded below and its pull never ends: use few epochs."""

    beta: Positive = 0.1
    """Strength of the pull to the reference: larger stays closer."""
    flip: Flip = 0.1
    """ε, the share of labels that are wrong in the data (a fact, not a smoothing strength)."""

    known_as = ("Robust DPO",)
    needs = REFERENCE

    def reward(self, y: Scored) -> Float[Tensor, "n"]:
        return self.beta * y.ratio

    def loss(self, w: Float[Tensor, "pairs"], l: Float[Tensor, "pairs"]) -> Float[Tensor, "pairs"]:
        return (self.flip * logsigmoid(l - w) - (1 - self.flip) * logsigmoid(w - l)) / (1 - 2 * self.flip)

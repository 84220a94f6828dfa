"""Losses that are unbiased although a known share of the labels is flipped: provably robust DPO, and the same around any
pairwise objective. They subtract what conservative DPO adds; do not mistake one for the other."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from penchant.objectives.base import REFERENCE, Flip, Paired, Positive, State
from penchant.objectives.scored import Pairs, Scored
from penchant.objectives.wrapper import Wrapper


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
        return unbiased(-logsigmoid(w - l), -logsigmoid(l - w), self.flip)


@dataclass(frozen=True)
class Unbiased(Wrapper):
    """( (1−ε) L(w,l) − ε L(l,w) ) / (1−2ε)        Chowdhury et al. 2024, arXiv 2403.00409

    RDPO's correction around any pairwise objective: averaged over the flips it is that objective's loss on the true
    labels. `Unbiased(DPO())` is RDPO; around IPO the margin aims at 1/(1−2ε) times IPO's. That the paper goes beyond DPO is
    in its abstract; the form follows from what unbiased means."""

    flip: Flip = 0.1
    """ε, the share of labels that are wrong in the data."""

    def __call__(self, batch: Pairs, state: State | None = None) -> Float[Tensor, "units"]:
        return unbiased(*self.both_ways(batch), self.flip)


def unbiased(right: Float[Tensor, "pairs"], wrong: Float[Tensor, "pairs"], flip: float | int) -> Float[Tensor, "pairs"]:
    """The loss with E over flips of a share `flip` equal to `right`, where a flip shows `wrong` for `right`."""
    return ((1 - flip) * right - flip * wrong) / (1 - 2 * flip)

"""Iterative Nash policy optimisation: one mirror step of self-play, held by the reference and by the policy it started from.
How the pairs are drawn and judged is the outer iteration's; here is its loss."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from penchant.objectives.base import PREVIOUS, REFERENCE, Paired, Positive, Share
from penchant.objectives.scored import Scored


@dataclass(frozen=True)
class INPO(Paired):
    """( h_w − h_l − 1/(2η) )²,  h = log π − ρ log π_ref − (1−ρ) log π_prev        Zhang et al. 2024, arXiv 2407.00617

    ρ is the paper's τ/η. Sums over tokens. With one phase, or ρ = 1, it is `IPO(tau=η, average=False)`."""

    eta: Positive = 0.0075
    """η: the margin aims at 1/(2η), so a larger one takes a smaller step."""
    ratio: Share = 1 / 3
    """ρ = τ/η, the part of the pull that is to the reference; the rest is to the policy at the start of the phase."""

    needs = REFERENCE | PREVIOUS

    def reward(self, y: Scored) -> Float[Tensor, "n"]:
        return y.against({"ref": self.ratio, "prev": 1 - self.ratio})

    def loss(self, w: Float[Tensor, "pairs"], l: Float[Tensor, "pairs"]) -> Float[Tensor, "pairs"]:
        return (w - l - 1 / (2 * self.eta)) ** 2

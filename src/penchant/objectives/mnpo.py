"""Multiplayer Nash preference optimisation: a mirror step held by the reference and by several past policies. Pairs against
the past ones are the sampler's: without them history only anchors, and the win rates stay those against the last policy."""

from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float
from torch import Tensor

from penchant.objectives.base import REFERENCE, Needs, Paired, Positive, Share
from penchant.objectives.scored import Scored


@dataclass(frozen=True)
class MNPO(Paired):
    """( h_w − h_l − 1/(2η) )²,  h = log π − ρ log π_ref − (1−ρ) Σ_j λ_j log π_t−j        arXiv 2509.23102, eq. 17

    Wu et al. 2025, the time-dependent form: π_t−j is the policy at the start of this phase and of those before it, as many
    as there are; the weights λ add up to 1 over these. The reference as one of the opponents is the authors' code. η there
    is the reciprocal of the η in the paper's mirror step (eq. 10). One past policy, or decay 0, is INPO; ρ = 1 is
    `IPO(tau=η, average=False)`."""

    eta: Positive = 0.0075
    """η: the margin aims at 1/(2η), so a larger one takes a smaller step."""
    ratio: Share = 1 / 3
    """ρ, the part of the pull that is to the reference; the rest is to past policies."""
    decay: Share = 1.0
    """λ_j ∝ decay^j, newest first: 1 weighs all past policies alike (the authors'), 0 keeps the newest alone."""
    normalise: Literal["sum", "mean"] = "sum"
    """sum: log-probs of whole responses (the paper). mean: per token, as the authors' code; 1/(2η) is then nats per token
    and out of reach at their η, so that the loss is all but linear in the margin."""

    needs = REFERENCE | Needs(anchors=frozenset({"history"}))

    def reward(self, y: Scored) -> Float[Tensor, "n"]:
        past = y.family("history")
        weights = [self.decay**j for j in range(len(past))]
        anchors = {name: (1 - self.ratio) * weight / sum(weights) for name, weight in zip(past, weights, strict=True)}
        h = y.against({"ref": self.ratio, **anchors})
        return h if self.normalise == "sum" else y.per_step(h)

    def loss(self, w: Float[Tensor, "pairs"], l: Float[Tensor, "pairs"]) -> Float[Tensor, "pairs"]:
        return (w - l - 1 / (2 * self.eta)) ** 2

"""Reward-aware preference optimisation (Nemotron): the reward margin shall be as large as the judge's, not merely positive.
One of four methods called RPO; the others are `DPO() + w * NLL()`, RelativePO and robust ones such as Consensus."""

from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float
from torch import Tensor

from penchant.objectives.base import REFERENCE, Needs, Objective, Positive, State, bernoulli_kl
from penchant.objectives.scored import Pairs, Scored


@dataclass(frozen=True)
class RewardAwarePO(Objective):
    """D( β (u_w − u_l) ‖ η · margin ),  u = log π/π_ref        Adler et al. 2024, arXiv 2406.11704; Sun et al. 2025, 2502.00203

    The column `margin` says how much better the chosen is, on any scale. D is a distance between two margins a ‖ b:
    backward KL( σ(b) ‖ σ(a) ), as Nemotron-4 340B was trained; forward KL( σ(a) ‖ σ(b) ); squared (a − b)². The KLs are
    those of the two probabilities that the chosen wins. With η → ∞ the backward one is DPO, and it is soft-label DPO with
    P(w ≻ l) = σ(η · margin)."""

    beta: Positive = 0.1
    """Strength of the pull to the reference: larger stays closer."""
    eta: Positive = 1.0
    """η, the scale of the judge's margin: how many units of reward one of its units is worth."""
    distance: Literal["backward", "forward", "squared"] = "backward"
    """What a margin that is too small or too large costs."""

    known_as = ("RPO", "Reward-aware PO")
    data = Pairs
    unit = "pair"
    needs = REFERENCE | Needs(columns=frozenset({"margin"}))

    def reward(self, y: Scored) -> Float[Tensor, "n"]:
        return self.beta * y.ratio

    def __call__(self, batch: Pairs, state: State | None = None) -> Float[Tensor, "units"]:
        ours = self.reward(batch.w) - self.reward(batch.l)
        theirs = self.eta * batch.column("margin").to(ours).detach()
        if self.distance == "squared":
            return (ours - theirs) ** 2
        return bernoulli_kl(theirs, ours) if self.distance == "backward" else bernoulli_kl(ours, theirs)

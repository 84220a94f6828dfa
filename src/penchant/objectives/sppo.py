"""Self-play preference optimisation: each response's log-ratio is regressed onto its own win rate, not onto a difference.
The chosen is so held up by itself, and the rejected down."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from penchant.objectives.base import PREVIOUS, STRENGTH, Objective, Positive, State
from penchant.objectives.scored import Pairs, Scored


@dataclass(frozen=True)
class SPPO(Objective):
    """½ ( v_w − η(p − ½) )² + ½ ( v_l + η(p − ½) )²,  v = log π/π_prev        Wu et al. 2024, arXiv 2405.00675, eq. 4.7

    π_prev is the paper's π_t, the policy that the phase starts from and whose responses are compared: in a run of one phase
    it is the reference, so that nothing need be sampled. p, the column `strength`, is the probability that the chosen is
    preferred to the rejected; the win rate against π_t that the paper asks for is estimated by it, as in the authors' code
    under "sppo_single". The halves are the authors' too: TRL's "sppo_hard" is twice this, with β = 1/η."""

    eta: Positive = 1000.0
    """η = 1/β: v aims at η(p − ½). It multiplies, so a larger one takes a larger step. 1000 is the authors'."""
    hard: bool = False
    """True: every chosen counts as preferred with certainty, p = 1, and no strengths are read."""

    data = Pairs
    unit = "pair"
    needs = PREVIOUS | STRENGTH

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.hard:
            object.__setattr__(self, "needs", PREVIOUS)

    def reward(self, y: Scored) -> Float[Tensor, "n"]:
        return y.against("prev") / self.eta

    def __call__(self, batch: Pairs, state: State | None = None) -> Float[Tensor, "units"]:
        w, l = batch.w.against("prev"), batch.l.against("prev")
        goal = self.eta / 2 if self.hard else self.eta * (batch.column("strength").to(w).detach() - 0.5)
        return (w - goal) ** 2 / 2 + (l + goal) ** 2 / 2

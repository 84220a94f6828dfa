"""Optimistic Nash policy optimisation: the loss of both its half-steps. Which policy each of them starts from and which data
they share is the outer iteration's business."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from penchant.objectives.base import PREVIOUS, Paired, Positive
from penchant.objectives.scored import Scored


@dataclass(frozen=True)
class ONPO(Paired):
    """( v_w − v_l − η/2 )²,  v = log π/π'        Zhang et al. 2025, arXiv 2502.16852, algorithm 1

    π' is the paper's auxiliary policy, here `prev`: both half-steps of an iteration start from it and use the same pairs,
    drawn from the last policy. The first gives the next π'; the second, from there, the next policy. Nothing holds it to
    the run's reference: the paper's game has no KL term."""

    eta: Positive = 0.5
    """η: the margin aims at η/2, so a larger one takes a larger step. The rate of theorem 2 needs at most 1/2."""

    needs = PREVIOUS

    def reward(self, y: Scored) -> Float[Tensor, "n"]:
        return y.against("prev")

    def loss(self, w: Float[Tensor, "pairs"], l: Float[Tensor, "pairs"]) -> Float[Tensor, "pairs"]:
        return (w - l - self.eta / 2) ** 2

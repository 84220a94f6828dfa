"""Regression of relative rewards, step by step: each phase fits differences of reward with the policy it started from.
One step of it is a mirror step; nothing holds the policy to the run's reference."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from penchant.objectives.base import MARGIN, PREVIOUS, Positive
from penchant.objectives.regressed import Regressed
from penchant.objectives.scored import Pairs, Scored


@dataclass(frozen=True)
class REBEL(Regressed):
    """( (v_w − v_l)/η − margin )²,  v = log π/π_prev        Gao et al. 2024, arXiv 2404.16767

    The column `margin` is the difference of the two rewards. The authors' code has (v_w − v_l − η · margin)², which is η²
    times this. With the reference for π_prev and β for 1/η it is CoPG's loss on pairs, times 2β."""

    eta: Positive = 1.0
    """Length of the step: v_w − v_l aims at η · `margin`. 1 is the authors' code's; it has the rewards' own scale."""

    needs = PREVIOUS | MARGIN

    def reward(self, y: Scored) -> Float[Tensor, "n"]:
        return y.against("prev") / self.eta

    def target(self, batch: Pairs) -> Float[Tensor, "pairs"]:
        return batch.column("margin")

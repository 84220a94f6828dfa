"""The loss of extragradient preference optimisation: differences of win rates against a third response as targets. The two
gradient steps that give the method its name are the learner's; this is what both of them descend."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from penchant.objectives.base import MARGIN, REFERENCE, Positive
from penchant.objectives.regressed import Regressed
from penchant.objectives.scored import Pairs, Scored


@dataclass(frozen=True)
class EGPO(Regressed):
    """( u_w − u_l − margin/β )²,  u = log π/π_ref        Zhou et al. 2025, arXiv 2503.08942; the authors' code

    The column `margin` is P(w ≻ y'') − P(l ≻ y''), with y'' drawn from the policy (in the second half-step from the
    policy after the first); the pair itself comes from a fixed law. With the difference of two rewards as margin it is
    CoPG's loss on pairs, times 2/β."""

    beta: Positive = 0.1
    """Strength of the pull to the reference: the margin aims at `margin`/β."""

    needs = REFERENCE | MARGIN

    def reward(self, y: Scored) -> Float[Tensor, "n"]:
        return y.ratio

    def target(self, batch: Pairs) -> Float[Tensor, "pairs"]:
        return batch.column("margin") / self.beta

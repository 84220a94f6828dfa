"""IPO with probabilities instead of certainties: how surely the chosen is preferred sets how far apart the two should be.
On responses of the policy itself this is self-play towards a Nash equilibrium; where they come from is not its business."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from penchant.objectives.base import REFERENCE, STRENGTH, Positive
from penchant.objectives.regressed import Regressed
from penchant.objectives.scored import Pairs, Scored


@dataclass(frozen=True)
class NashIPO(Regressed):
    """( u_w − u_l − (p − 1/2)/τ )²,  u = log π/π_ref        Calandriello et al. 2024, arXiv 2403.08635

    The loss of online IPO and of IPO-MD in its form of less variance: p, the column `strength`, is the probability that
    the chosen is preferred to the rejected; p = 1 is `IPO(average=False)`. With both responses drawn from the policy, or
    from its mixture with the reference (IPO-MD), it is least at π ∝ π_ref exp(P(y ≻ π)/τ), the Nash policy of the
    regularised game; with pairs from a fixed set at π_ref exp(P(y ≻ set)/τ), which the set decides. The paper writes τ
    times this square and less a constant, so its gradients are τ times as large."""

    tau: Positive = 1.0
    """Strength of the regularisation: the margin aims at (p − 1/2)/τ. 1.0 is the paper's, on summaries."""

    known_as = ("Online IPO", "IPO-MD")
    needs = REFERENCE | STRENGTH

    def reward(self, y: Scored) -> Float[Tensor, "n"]:
        return y.ratio

    def target(self, batch: Pairs) -> Float[Tensor, "pairs"]:
        return (batch.column("strength") - 0.5) / self.tau

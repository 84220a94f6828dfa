"""Sequence likelihood calibration, its rank-calibration part alone: a hinge on summed log-probabilities, no reference.
The paper's whole is `SLiC(delta=1) + w*NLL(reduction="sum")`, on the chosen or on supervised targets."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import relu

from penchant.objectives.base import NonNegative, Paired
from penchant.objectives.scored import Scored


@dataclass(frozen=True)
class SLiC(Paired):
    """max( 0, δ − log π(y_w) + log π(y_l) )        Zhao et al. 2023, arXiv 2305.10425, calibration loss"""

    delta: NonNegative = 1.0
    """δ, the margin of log-probability asked for."""

    known_as = ("SLiC-HF",)

    def reward(self, y: Scored) -> Float[Tensor, "n"]:
        return y.total

    def loss(self, w: Float[Tensor, "pairs"], l: Float[Tensor, "pairs"]) -> Float[Tensor, "pairs"]:
        return relu(self.delta - w + l)

"""The hinge loss on DPO's margin, RSO's "hinge-norm": no pull once the margin has reached 1.
It has a reference; SLiC is the hinge without one."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import relu

from penchant.objectives.base import REFERENCE, Paired, Positive
from penchant.objectives.scored import Scored


@dataclass(frozen=True)
class Hinge(Paired):
    """max( 0, 1 − β (u_w − u_l) ),  u = log π/π_ref        Liu et al. 2023, arXiv 2309.06657, L_hinge-norm"""

    beta: Positive = 0.1
    """Scale of the log-ratio: the margin asked for is 1/β."""

    known_as = ("RSO",)
    needs = REFERENCE

    def reward(self, y: Scored) -> Float[Tensor, "n"]:
        return self.beta * y.ratio

    def loss(self, w: Float[Tensor, "pairs"], l: Float[Tensor, "pairs"]) -> Float[Tensor, "pairs"]:
        return relu(1 - (w - l))

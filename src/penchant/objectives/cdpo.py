"""Conservative DPO: DPO that expects a share of the labels to be wrong. It smooths the label; it does not undo the noise
(that is rDPO, whose correction has the opposite sign)."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from penchant.objectives.base import REFERENCE, Flip, Paired, Positive
from penchant.objectives.scored import Scored


@dataclass(frozen=True)
class CDPO(Paired):
    """-(1−ε) log σ(s) − ε log σ(−s),  s = β (u_w − u_l),  u = log π/π_ref        Mitchell 2023, cdpo.pdf, eq. 3

    "A note on DPO with noisy preferences and relationship to IPO". Equals DPO + ε s, so the margin settles at
    s* = log((1−ε)/ε) where DPO's grows without end."""

    beta: Positive = 0.1
    """Strength of the pull to the reference: larger stays closer."""
    flip: Flip = 0.1
    """ε, the share of labels taken to be wrong."""

    known_as = ("Conservative DPO",)
    needs = REFERENCE

    def reward(self, y: Scored) -> Float[Tensor, "n"]:
        return self.beta * y.ratio

    def loss(self, w: Float[Tensor, "pairs"], l: Float[Tensor, "pairs"]) -> Float[Tensor, "pairs"]:
        return -(1 - self.flip) * logsigmoid(w - l) - self.flip * logsigmoid(l - w)

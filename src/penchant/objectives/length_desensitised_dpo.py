"""Length-desensitised DPO (LD-DPO): of the longer response, the part past the shorter one's length counts less.
It weighs tokens by their place; it neither divides by the length (LN-DPO) nor adds a price on it (R-DPO)."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from penchant.objectives.base import REFERENCE, Paired, Positive, Range
from penchant.objectives.scored import Scored, wide


@dataclass(frozen=True)
class LengthDesensitisedDPO(Paired):
    """-log σ( β û_w − β û_l ),  û = Σ_{t≤p} u_t + α Σ_{t>p} u_t,  p = min length        Liu et al. 2024, arXiv 2409.06411

    u_t = log π/π_ref of a token. The paper writes the likelihood as π̂(y) = Π_{t≤p} π(y_t) · Π_{t>p} π(y_t)^α, and here both
    policy and reference are so written, so that the margin is 0 where they agree. TRL and LLaMA-Factory leave the
    reference's likelihood whole, which grants the longer response a margin of −β (1−α) Σ_{t>p} log π before any training."""

    beta: Positive = 0.1
    """Strength of the pull to the reference: larger stays closer."""
    alpha: Annotated[float | int, Range(0.0, 1.0)] = 0.5
    """α, the weight of the tokens past the shorter response's length: 1 is DPO, 0 leaves them out."""

    known_as = ("LD-DPO",)
    breaks: ClassVar = {"mirror": "A response alone does not know the other's length, so its reward counts all its tokens."}
    needs = REFERENCE

    def reward(self, y: Scored) -> Float[Tensor, "n"]:
        return self.beta * y.ratio

    def loss_scored(self, w: Scored, l: Scored) -> Float[Tensor, "pairs"]:
        public = torch.minimum(w.length, l.length)
        return -logsigmoid(self.beta * (self.shortened(w, public) - self.shortened(l, public)))

    def shortened(self, y: Scored, public: Float[Tensor, "n"]) -> Float[Tensor, "n"]:
        """û: the log-ratio with the steps after the first `public` ones weighed by α."""
        past = y.mask.cumsum(-1) > public[:, None]
        ratio = wide(y.logp) - wide(y.anchor("ref"))
        return y.sum(torch.where(past, self.alpha * ratio, ratio))

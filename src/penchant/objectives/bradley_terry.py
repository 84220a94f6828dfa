"""The loss of a reward model: the chosen's score above the rejected's, by the Bradley-Terry model of comparisons. What scores is a
head of its own on the policy's last hidden state; there is no reference, and nothing here makes text."""

import math
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import softplus

from penchant.objectives.base import MARGIN, STRENGTH, Flip, Needs, NonNegative, Paired, Range, State
from penchant.objectives.scored import Pairs, Scored


@dataclass(frozen=True)
class BradleyTerry(Paired):
    """sp(m − d) + c (r_w + r_l)²,  d = r_w − r_l,  sp(z) = log(1 + exp z)        Ouyang et al. 2022, arXiv 2203.02155, eq. 1

    Minus the log-likelihood of P(w ≻ l) = σ(d) (Bradley & Terry 1952). The margin m is Llama 2's (Touvron et al. 2023,
    2307.09288, eq. 2), the second term that of Eisenstein et al. 2023 (2312.09244), as TRL has both. Where a label is wrong with
    probability ε, or holds with probability p only, so does its margin: the loss is q sp(m − d) + (1−q) sp(m + d) with
    q = (1−ε) p + ε (1−p). Where a share e of the answers is given by chance, P(w ≻ l) = (1−e) σ(d − m) + e/2 and the loss is minus
    its log (Christiano et al. 2017, 1706.03741, section 2.2.3): a single wild answer then pulls ever less, and under label
    smoothing ever more. `Unbiased(BradleyTerry())` corrects for a known share of wrong labels instead, and
    `Consensus(BradleyTerry())` learns it of each annotator. A constant added to all rewards changes nothing where c = 0."""

    margin: NonNegative = 0.0
    """How much reward one unit of the column `margin` asks for: m = margin · column. 0 does not read the column; 1 is TRL's."""
    centre: NonNegative = 0.0
    """c: how strongly the mean of a pair's two rewards is drawn to 0. TRL suggests 0.01."""
    flip: Flip = 0.0
    """ε, the share of labels taken to be wrong (label smoothing)."""
    strength: bool = False
    """True: the column `strength` says how probably the chosen is preferred, p; ½ is a tie. False: p = 1."""
    lapse: Annotated[float | int, Range(0.0, 1.0, open_high=True)] = 0.0
    """e, the share of answers given by chance, whatever the rewards; 0.1 in Christiano et al."""

    known_as = ("BT", "Reward model", "RM")
    needs = Needs(head="reward")

    def __post_init__(self) -> None:
        super().__post_init__()
        for asked, column in ((self.margin > 0, MARGIN), (self.strength, STRENGTH)):
            if asked:
                object.__setattr__(self, "needs", self.needs | column)

    def reward(self, y: Scored) -> Float[Tensor, "n"]:
        """A reward model's single step is its score, so that the sum over steps is the reward."""
        return y.total

    def loss(self, w: Float[Tensor, "pairs"], l: Float[Tensor, "pairs"]) -> Float[Tensor, "pairs"]:
        return self._loss(w, l, 0.0, 1.0)

    def __call__(self, batch: Pairs | Scored, l: Any = None, state: State | None = None) -> Float[Tensor, "pairs"]:
        if isinstance(batch, Scored):
            batch = Pairs(batch, l)
        rewards = self.reward(batch.w), self.reward(batch.l)
        read = lambda name: batch.column(name).to(rewards[0]).detach()  # noqa: E731
        return self._loss(
            *rewards, self.margin * read("margin") if self.margin else 0.0, read("strength") if self.strength else 1.0
        )

    def _loss(
        self, w: Float[Tensor, "pairs"], l: Float[Tensor, "pairs"], margin: Tensor | float, right: Tensor | float
    ) -> Float[Tensor, "pairs"]:
        """right: the probability p that the chosen is the better one."""
        d, q = w - l, (1 - self.flip) * right + self.flip * (1 - right)
        return q * self._said(margin - d) + (1 - q) * self._said(margin + d) + self.centre * (w + l) ** 2

    def _said(self, against: Float[Tensor, "pairs"]) -> Float[Tensor, "pairs"]:
        """−log of the probability of an answer that so much reward speaks against."""
        if not self.lapse:
            return softplus(against)
        by_chance = torch.full_like(against, math.log(self.lapse / 2))
        return -torch.logaddexp(math.log1p(-self.lapse) - softplus(against), by_chance)

"""Regression of a pair's margin onto a target that the data bring: a difference of rewards or of win rates. It holds no
method; they differ in what the policy is held against and in what the target means."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from penchant.objectives.base import Objective, State
from penchant.objectives.scored import Pairs


class Regressed(Objective):
    """( r_w − r_l − target )². Unlike a `Paired` loss it is not defined by the two rewards alone."""

    data = Pairs
    unit = "pair"

    def target(self, batch: Pairs) -> Float[Tensor, "pairs"]:
        """What the difference of the two rewards should be."""
        raise NotImplementedError(f"{type(self).__name__} does not say what its target is.")

    def __call__(self, batch: Pairs, state: State | None = None) -> Float[Tensor, "units"]:
        margin = self.reward(batch.w) - self.reward(batch.l)
        return (margin - self.target(batch).to(margin).detach()) ** 2

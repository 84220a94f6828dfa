"""A wrapper: an objective made of a pairwise one, which it asks for the loss of a pair either way round.
What has no such loss is refused here, once for all wrappers."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from penchant.errors import Refusal
from penchant.objectives.base import Objective, Paired
from penchant.objectives.scored import Pairs, Scored


@dataclass(frozen=True, repr=False)
class Wrapper(Objective):
    """An objective made from a pairwise one. It may ask for the base's loss both ways round; it refuses anything else."""

    base: Paired
    """The pairwise objective inside."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.base.remembers or self.base.couples or self.base.needs.columns:
            raise Refusal(
                f"{type(self).__name__}(base={self.base!r}): the loss of a pair must be its own, either way round; this one "
                "reads more than the two responses."
            )
        object.__setattr__(self, "needs", type(self).needs | self.base.needs)

    data = Pairs
    unit = "pair"

    def reward(self, y: Scored) -> Float[Tensor, "n"]:
        return self.base.reward(y)

    def both_ways(self, batch: Pairs) -> tuple[Float[Tensor, "pairs"], Float[Tensor, "pairs"]]:
        """The base's loss of each pair as it was labelled, and with the label turned."""
        return self.base(batch.w, batch.l), self.base(batch.l, batch.w)

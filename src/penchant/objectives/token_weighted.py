"""Any objective with the steps of a response weighed by the data: a sentence that was marked counts more, or less, or not at
all. Where the weights come from is not its business; they arrive with the scored responses."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor

from penchant.errors import Refusal
from penchant.objectives.base import WEIGHT, Objective, State, Sum
from penchant.objectives.scored import NOTHING, Batch, Labelled, Lists, Pairs, Scored


@dataclass(frozen=True, repr=False)
class TokenWeighted(Objective):
    """the base's loss with log π(y) := Σ_t weight_t log π(y_t)        plain weights, of no one paper

    Every sum over a response's steps becomes a weighted one (log-ratios and divergences alike), every mean a weighted mean;
    with all weights 1 it is the base. Weights are the data's: `chosen_weights`, `rejected_weights` and their kin, as spans of
    characters; a step without a weight counts 1."""

    base: Objective
    """The objective inside; of a sum, wrap the terms that are to be weighed."""

    data = (Pairs, Labelled, Lists)
    unit = "unit of its base"
    needs = WEIGHT

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.base, Sum):
            raise Refusal(f"TokenWeighted(base={self.base!r}): wrap the terms of a sum, TokenWeighted(…) + …, not the sum.")
        if self.base.needs.head != "lm":
            raise Refusal(
                f"TokenWeighted(base={self.base!r}): a reward model gives one number, no token's weight is in it."
            )
        for name in ("data", "unit", "couples"):
            object.__setattr__(self, name, getattr(self.base, name))
        object.__setattr__(self, "needs", type(self).needs | self.base.needs)

    def __call__(self, batch: Batch, state: State | None = None) -> Float[Tensor, "units"]:
        if batch.responses.weight is None:
            raise Refusal(f"{self!r} needs the value 'weight' of every step, but the batch was scored without weights.")
        return self.base(batch, state=state)

    def reward(self, y: Scored) -> Float[Tensor, "n"]:
        return self.base.reward(y)

    def count(self, batch: Batch) -> int:
        return self.base.count(batch)

    @property
    def rewarding(self) -> bool:
        return self.base.rewarding

    @property
    def remembers(self) -> bool:
        return self.base.remembers

    def init(self, levels: Mapping[str, int] = NOTHING) -> dict[str, Tensor]:
        return self.base.init(levels)

    def statistics(self, batch: Any, state: State) -> dict[str, tuple[Tensor, Tensor]]:
        return self.base.statistics(batch, state)

    def update(self, state: State, totals: Mapping[str, tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
        return self.base.update(state, totals)

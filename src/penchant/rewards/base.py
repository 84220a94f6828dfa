"""Who says what is good. A Judge gives each response a number, a Comparer says which of two is better."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from penchant.feedback.records import Prompt


@dataclass(frozen=True)
class Context:
    """What was asked, and who asked it where that is known."""

    prompt: Prompt
    annotator: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Judgement:
    """What a judge said of n responses."""

    reward: Float[Tensor, "n dims"]
    valid: Bool[Tensor, "n"]
    """False where judging failed; such a response's whole group is left out and counted, never scored 0."""
    names: tuple[str, ...] = ("reward",)
    """What each dimension is called."""
    steps: Float[Tensor, "n steps"] | None = None
    """Rewards per reasoning step, for process rewards."""

    def __post_init__(self) -> None:
        if len(self.names) != self.reward.shape[1]:
            raise ValueError(f"{self.reward.shape[1]} reward dimensions but {len(self.names)} names.")

    @property
    def total(self) -> Float[Tensor, "n"]:
        """The dimensions added up, NaN where judging failed."""
        return torch.where(self.valid, self.reward.sum(-1), torch.nan)


@runtime_checkable
class Judge(Protocol):
    """Says how good each response is. A response comes as it is looked at: a text, a picture, a trajectory."""

    @property
    def name(self) -> str: ...

    def __call__(self, contexts: Sequence[Context], responses: Sequence[Any]) -> Judgement: ...


@runtime_checkable
class Comparer(Protocol):
    """Says how probably a is better than b: P(a ≻ b), one value in [0, 1] per context, NaN where it cannot say."""

    @property
    def name(self) -> str: ...

    @property
    def symmetric(self) -> bool:
        """Whether P(a ≻ b) = 1 − P(b ≻ a) whatever is asked. Where it is not so, penchant asks in both orders."""
        ...

    def __call__(self, contexts: Sequence[Context], a: Sequence[Any], b: Sequence[Any]) -> Float[Tensor, "n"]: ...

"""Your own Python function as a judge. A call that fails or gives no finite number is a failed judgement, counted and
never a score; whatever else the function does is its own affair."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch

from penchant.errors import Refusal
from penchant.feedback.records import Prompt
from penchant.rewards.base import Context, Judgement
from penchant.rewards.combine import Weighable
from penchant.rewards.failures import Failing
from penchant.words import brief

Single = Callable[[Prompt, Any], float]
"""(prompt, response) → score; the larger the better. A response is a text, a PIL image or a Trajectory, as the model makes."""
Batched = Callable[[Sequence[Prompt], Sequence[Any]], Iterable[float]]
"""(prompts, responses) → one score per response."""


LARGEST = torch.finfo(torch.float32).max
"""Judgements are kept in float32."""


class Guarded(Weighable, Failing):
    """What the two kinds share: the name, the count of failures, and the making of a Judgement."""

    def __init__(self, fn: Callable[..., object], name: str | None) -> None:
        self.name = name or getattr(fn, "__name__", type(fn).__name__)
        super().__init__()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name})"

    def __call__(self, contexts: Sequence[Context], responses: Sequence[Any]) -> Judgement:
        scores = torch.tensor(self.scores(contexts, responses), dtype=torch.float32).reshape(len(responses), 1)
        return Judgement(scores, torch.isfinite(scores[:, 0]), (self.name,))

    def scores(self, contexts: Sequence[Context], responses: Sequence[Any]) -> list[float]:
        """One score per response, NaN where the judgement failed."""
        raise NotImplementedError

    def raised(self, error: Exception, count: int = 1) -> None:
        self.failures.add(f"{self.name} raised {type(error).__name__}: {brief(str(error), 200)}.", count)

    def checked(self, value: Any) -> float:
        """The value as a number; NaN, and counted, where it is none or not finite in float32."""
        try:
            number = float(value)
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        if abs(number) <= LARGEST:
            return number
        self.failures.add(f"{self.name} returned {brief(value)}, which is not a finite number.")
        return math.nan


class FunctionJudge(Guarded):
    """Judges each response with `fn(prompt, response)`. The prompt is a string or the chat turns before the response."""

    def __init__(self, fn: Single, name: str | None = None) -> None:
        super().__init__(fn, name)
        self.fn = fn

    def scores(self, contexts: Sequence[Context], responses: Sequence[Any]) -> list[float]:
        return [self.score(context.prompt, text) for context, text in zip(contexts, responses, strict=True)]

    def score(self, prompt: Prompt, response: Any) -> float:
        try:
            value = self.fn(prompt, response)
        except Exception as error:  # whatever it is, it is counted and said
            self.raised(error)
            return math.nan
        return self.checked(value)


class BatchedFunctionJudge(Guarded):
    """Judges all responses in one call, `fn(prompts, responses)`, for functions that are fast on many at once. Where the
    call fails, all its judgements fail."""

    def __init__(self, fn: Batched, name: str | None = None) -> None:
        super().__init__(fn, name)
        self.fn = fn

    def scores(self, contexts: Sequence[Context], responses: Sequence[Any]) -> list[float]:
        try:
            said = list(self.fn([context.prompt for context in contexts], list(responses)))
        except Exception as error:  # whatever it is, it is counted and said
            self.raised(error, len(responses))
            return [math.nan] * len(responses)
        if len(said) != len(responses):
            raise Refusal(
                f"the judge {self.name!r} gave {len(said)} scores for {len(responses)} responses; "
                "it must give one for each, and NaN where it cannot say."
            )
        return [self.checked(value) for value in said]

"""Judges added up: `0.7 * Vader() + 0.3 * LengthRepetition()`. Every part keeps its own dimension and name, so that a
trade-off stays visible; nothing here learns weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from penchant.errors import Refusal
from penchant.rewards.base import Context, Judge, Judgement


class Weighable:
    """What a judge inherits so that it can be multiplied by a number and added to another judge."""

    @property
    def terms(self) -> tuple[tuple[float, Judge], ...]:
        """The weighted judges this one is the sum of: itself once, unless it is a Weighted."""
        return ((1.0, judge_of(self)),)

    def __add__(self, other: Any) -> Weighted:
        return Weighted(self.terms + other.terms) if isinstance(other, Weighable) else NotImplemented

    def __mul__(self, factor: Any) -> Weighted:
        if isinstance(factor, bool) or not isinstance(factor, int | float):
            return NotImplemented
        return Weighted(tuple((float(factor) * weight, judge) for weight, judge in self.terms))

    __rmul__ = __mul__


class Weighted(Weighable):
    """The weighted sum of judges. Its dimensions are the parts' dimensions times their weights, so `Judgement.total` is
    the sum. Where one part fails, the judgement fails."""

    def __init__(self, terms: tuple[tuple[float, Judge], ...]) -> None:
        names = [judge.name for _, judge in terms]
        for weight, judge in terms:
            if not math.isfinite(weight):
                raise Refusal(f"the weight of the judge {judge.name!r} is {weight}; it must be a finite number.")
            if names.count(judge.name) > 1:
                raise Refusal(
                    f"the judge {judge.name!r} stands twice in {' + '.join(names)}; give it one weight, "
                    "or give the two different names."
                )
        self._terms = terms

    @property
    def terms(self) -> tuple[tuple[float, Judge], ...]:
        return self._terms

    @property
    def name(self) -> str:
        return " + ".join(judge.name if weight == 1 else f"{weight:g} * {judge.name}" for weight, judge in self.terms)

    def __repr__(self) -> str:
        return " + ".join(repr(judge) if weight == 1 else f"{weight!r} * {judge!r}" for weight, judge in self.terms)

    def __call__(self, contexts: Sequence[Context], responses: Sequence[str]) -> Judgement:
        said = [judge(contexts, responses) for _, judge in self.terms]
        names: list[str] = []
        for (_, judge), part in zip(self.terms, said, strict=True):
            if part.steps is not None:
                raise Refusal(
                    f"the judge {judge.name!r} gives rewards per step, which a sum of judges would lose; use it alone."
                )
            names += [judge.name] if len(part.names) == 1 else [f"{judge.name}/{dim}" for dim in part.names]
        rewards = [weight * part.reward for (weight, _), part in zip(self.terms, said, strict=True)]
        valid = torch.stack([part.valid for part in said]).all(0)
        return Judgement(torch.cat(rewards, dim=1), valid, tuple(names))


def judge_of(part: Weighable) -> Judge:
    """The part as the judge it must be."""
    if not isinstance(part, Judge):
        raise TypeError(f"{type(part).__name__} cannot be called as a judge.")
    return part

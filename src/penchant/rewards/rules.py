"""A judge of form: is the response about as long as wanted, and does it repeat itself? It reads no meaning, and is meant
as the counterweight of a judge that does."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch

from penchant.objectives.base import NonNegative, Positive, check_fields
from penchant.rewards.base import Context, Judgement
from penchant.rewards.combine import Weighable


def ngrams(text: str, n: int) -> list[tuple[str, ...]]:
    """Every run of n words (split at white space, lower case), in order, repeats included."""
    words = text.lower().split()
    return list(zip(*(words[i:] for i in range(n)), strict=False))


def repeated(text: str, n: int = 3) -> float:
    """The share of n-grams that have occurred before, in [0, 1): 1 − distinct / all; 0 where there is none."""
    every = ngrams(text, n)
    return 1 - len(set(every)) / len(every) if every else 0.0


def distinct(texts: Iterable[str], n: int = 2) -> float | None:
    """Distinct-n: distinct n-grams / all n-grams, pooled over the texts and never across two of them. None where no text
    has n words. It falls as texts are added or grow longer: compare it at equal numbers and lengths only."""
    every = [gram for text in texts for gram in ngrams(text, n)]
    return len(set(every)) / len(every) if every else None


@dataclass(frozen=True)
class LengthRepetition(Weighable):
    """−length · min(1, max(0, |words − target| / target − slack)) − repetition · (1 − distinct 3-grams / 3-grams)

    The two terms are the dimensions "length" and "repetition"; their sum lies in [−length − repetition, 0], where 0 is a
    response of about the wanted length that never repeats three words."""

    target: Positive = 40
    """The wanted length, in words."""
    slack: NonNegative = 0.5
    """How far the length may be off, as a share of the target, before it costs anything."""
    length: NonNegative = 1.0
    """Weight of the length term; its worst value."""
    repetition: NonNegative = 1.0
    """Weight of the repetition term; its worst value."""

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def name(self) -> str:
        return "rules"

    def __call__(self, contexts: Sequence[Context], responses: Sequence[str]) -> Judgement:
        rows = [[-self.length * self.off(text), -self.repetition * repeated(text)] for text in responses]
        reward = torch.tensor(rows, dtype=torch.float32).reshape(len(responses), 2)
        return Judgement(reward, torch.ones(len(responses), dtype=torch.bool), ("length", "repetition"))

    def off(self, text: str) -> float:
        """How far the length is off beyond the slack, in targets, at most 1."""
        distance = abs(len(text.split()) - self.target) / self.target
        return min(1.0, max(0.0, distance - self.slack))

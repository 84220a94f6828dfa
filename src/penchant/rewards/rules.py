"""A judge of form: is the response about as long as wanted, and does it repeat itself? It reads no meaning, and is meant
as the counterweight of a judge that does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch

from penchant.objectives.base import NonNegative, Positive, check_fields
from penchant.rewards.base import Context, Judgement
from penchant.rewards.combine import Weighable
from penchant.rewards.ngrams import repetition


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
        """rules, with what is not as usual: a run that is judged otherwise is another run."""
        changed = [f"{f.name}={getattr(self, f.name):g}" for f in fields(self) if getattr(self, f.name) != f.default]
        return f"rules({', '.join(changed)})" if changed else "rules"

    def __call__(self, contexts: Sequence[Context], responses: Sequence[str]) -> Judgement:
        rows = [[-self.length * self.off(text), -self.repetition * repetition(text)] for text in responses]
        reward = torch.tensor(rows, dtype=torch.float32).reshape(len(responses), 2)
        return Judgement(reward, torch.ones(len(responses), dtype=torch.bool), ("length", "repetition"))

    def off(self, text: str) -> float:
        """How far the length is off beyond the slack, in targets, at most 1."""
        distance = abs(len(text.split()) - self.target) / self.target
        return min(1.0, max(0.0, distance - self.slack))

"""Judgements that failed: counted, with the first few said, never scored. It judges nothing."""

from __future__ import annotations

from dataclasses import dataclass, field

SHOWN = 3
"""Failures that are shown; all are counted."""


@dataclass
class Failures:
    """What went wrong so far."""

    count: int = 0
    shown: list[str] = field(default_factory=list)
    """The first different failures, a sentence each."""

    @property
    def first(self) -> str:
        """The first failure, in a sentence; nothing where there is none."""
        return self.shown[0] if self.shown else ""

    def add(self, said: str, count: int = 1) -> None:
        if len(self.shown) < SHOWN and said not in self.shown:
            self.shown.append(said)
        self.count += count

    def __str__(self) -> str:
        if not self.count:
            return "no judgement failed"
        first = "the first" if len(self.shown) == 1 else f"the first {len(self.shown)}"
        return f"{self.count:,} judgements failed; {first}: {' '.join(self.shown)}"


class Failing:
    """What keeps count of its own failures."""

    def __init__(self) -> None:
        self.failures = Failures()

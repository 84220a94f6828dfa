"""Everything wrong with a source, gathered in one pass and said at once. It does not decide what is wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from penchant.errors import Refusal
from penchant.feedback.records import Problem
from penchant.words import brief, plain

SHOWN = 20
"""Problems shown; all are counted."""
MEND = 'Mend these rows, or have them left out and counted with bad_rows="drop" (--bad-rows drop).'

_WORDS: dict[type, str] = {
    type(None): "null",
    bool: "true/false",
    int: "a number",
    float: "a number",
    str: "text",
    list: "a list",
    tuple: "a list",
    dict: "an object",
}


def type_words(value: object) -> str:
    """The type of a value in the words of a data file."""
    return _WORDS.get(type(value), f"a {type(value).__name__}")


class DataRefusal(Refusal):
    """A source whose rows cannot be used as they are. All problems were counted, the first are shown."""

    def __init__(self, source: str, problems: Sequence[Problem], count: int, bad: int, read: int, mend: str = MEND) -> None:
        self.source = source
        self.problems = tuple(problems[:SHOWN])
        """The first of them."""
        self.count = count
        """All of them."""
        many = f"; the first {len(self.problems)}" if count > len(self.problems) else ""
        rows = f"{bad:,} of {read:,} rows" if read != 1 else "its only row"
        head = f"{plain(source)} has {count:,} problem{'s' if count != 1 else ''} in {rows}{many}:"
        super().__init__("\n".join([head, *(f"  {problem}" for problem in self.problems), mend]))


OF_COLUMNS = ("misspelt column", "missing field", "unclear kind", "no known column")
"""Reasons that lie in the names of columns, which whole files share."""


class BadRow(Exception):
    """Raised while one row is read; carries everything wrong with it."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__(f"{len(problems)} problems")
        self.problems = tuple(problems)


class Faults:
    """What is wrong with the row being read."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.found: list[Problem] = []

    def add(self, field: str, value: Any, reason: str, said: str) -> None:
        """`value` is what stood there; leave it `...` where showing it says nothing."""
        shown = "" if value is ... else brief(value)
        self.found.append(Problem(self.number, plain(field, 40), shown, plain(said, 400), reason))


class Gathered:
    """The problems of a whole source."""

    def __init__(self) -> None:
        self.first: list[Problem] = []
        """The first of all; what is wrong with a column's name is there once."""
        self.columns: Counter[tuple[str, str]] = Counter()
        """Rows by (field, what is wrong with the names of their columns)."""
        self.examples: dict[str, list[Problem]] = {}
        """The first few of each reason."""
        self.reasons: Counter[str] = Counter()
        """Rows by the first thing wrong with each."""
        self.count = 0
        self.rows = 0

    def add(self, problems: Sequence[Problem]) -> None:
        """The problems of one row."""
        for problem in problems:
            same = (problem.field, problem.said)
            if problem.reason in OF_COLUMNS:
                self.columns[same] += 1
            if len(self.first) < SHOWN and self.columns[same] <= 1:
                self.first.append(problem)
        self.count += len(problems)
        self.rows += 1
        self.reasons[problems[0].reason] += 1
        few = self.examples.setdefault(problems[0].reason, [])
        if len(few) < 5:
            few.append(problems[0])

    def shown(self) -> list[Problem]:
        """The first problems; one that many rows share says how many."""
        rows = [self.columns[problem.field, problem.said] for problem in self.first]
        return [
            replace(problem, said=f"{problem.said} (So in {n:,} rows.)") if n > 1 else problem
            for problem, n in zip(self.first, rows, strict=True)
        ]

"""The comparisons a source holds, as texts in memory: what everything in this folder looks at. It decides nothing about them,
and takes at most a given number, drawn by prompt."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from penchant.feedback.reading import Source
from penchant.feedback.records import Prompt, Row, as_text

MOST = 20_000
"""Rows that are looked at; of more, as many whole prompts are drawn."""
SHOWN_FIRST = "shown_first"
"""The column of pairs that says which answer was shown first: chosen or rejected. `penchant judge` writes it for a person's
votes."""
PER_LIST = 6
"""Comparisons taken from one list, or one prompt of labelled completions: more tell the same again."""


@dataclass(frozen=True)
class Comparison:
    """One response preferred to another under one prompt, by somebody."""

    number: int
    """The row it is from."""
    key: int
    """The prompt's hash: comparisons of one prompt are not independent."""
    asked: Prompt
    """The prompt as the row has it, a text or chat turns."""
    chosen: str
    rejected: str
    annotator: str | None = None
    places: tuple[int, int] | None = None
    """Where the chosen and the rejected stood, in their list or when they were shown; None where nothing is recorded of it."""

    @property
    def prompt(self) -> str:
        return as_text(self.asked)


@dataclass(frozen=True)
class Material:
    """All comparisons that are looked at."""

    comparisons: list[Comparison]
    rows: int
    """Rows looked at …"""
    of: int
    """… of so many."""
    whole_rows: tuple[tuple[int, str], ...]
    """(row, prompt) of every row looked at, also of those that compare nothing."""
    unsure: int
    """Rows with a strength that is neither certain nor a tie."""
    in_lists: bool = False
    """Whether places are those of lists."""

    def __len__(self) -> int:
        return len(self.comparisons)

    @property
    def groups(self) -> list[int]:
        return [one.key for one in self.comparisons]

    @property
    def annotators(self) -> list[str]:
        """In the order of their names; none where no row names one."""
        return sorted({one.annotator for one in self.comparisons if one.annotator is not None})


def gather(source: Source, seed: int, most: int = MOST) -> Material:
    """The comparisons of a source: its pairs; of lists and labelled completions the responses under one prompt of which one
    is preferred, at most `PER_LIST` for each."""
    picked = _drawn(source, seed, most)
    draw = np.random.default_rng(seed)
    out: list[Comparison] = []
    whole: list[tuple[int, str]] = []
    unsure = 0
    good: dict[int, tuple[Prompt, list[tuple[int, str]], list[tuple[int, str]]]] = {}
    for i, row in zip(picked, source.rows(picked), strict=True):
        key, prompt = source.prompt_keys[i], row.prompt
        whole.append((row.number, as_text(prompt)))
        unsure += row.strength is not None and row.strength not in (0.0, 0.5, 1.0)
        if row.kind == "pairs":
            out += _pair(row, key, prompt)
        elif row.kind == "lists":
            out += _few(list(_list(row, key, prompt)), draw)
        elif row.kind == "labelled":
            _, right, wrong = good.setdefault(key, (prompt, [], []))
            (right if row.label else wrong).append((row.number, row.responses[0]))
    for key, (prompt, right, wrong) in good.items():
        sides = itertools.product(right[:PER_LIST], wrong[:PER_LIST])
        both = [Comparison(n, key, prompt, w, l) for (n, w), (_, l) in sides if w != l]
        out += _few(both, draw)
    return Material(out, len(picked), len(source), tuple(whole), unsure, source.kind == "lists")


def _drawn(source: Source, seed: int, most: int) -> list[int]:
    """Indices of all rows, or of whole prompts drawn at random until there are `most` rows."""
    if len(source) <= most:
        return list(range(len(source)))
    _, which, counts = np.unique(np.asarray(source.prompt_keys, dtype=np.uint64), return_inverse=True, return_counts=True)
    order = np.random.default_rng(seed).permutation(len(counts))
    taken = order[: max(1, int(np.searchsorted(np.cumsum(counts[order]), most, side="right")))]
    return np.flatnonzero(np.isin(which, taken)).tolist()


def _pair(row: Row, key: int, prompt: Prompt) -> list[Comparison]:
    chosen, rejected = row.responses
    first = row.extra.get(SHOWN_FIRST)
    places = {"chosen": (0, 1), "rejected": (1, 0)}.get(first) if isinstance(first, str) else None
    if row.strength is not None and row.strength < 0.5:
        chosen, rejected = rejected, chosen
        places = None if places is None else (places[1], places[0])
    tie = row.strength == 0.5 or chosen == rejected
    return [] if tie else [Comparison(row.number, key, prompt, chosen, rejected, row.annotator, places)]


def _list(row: Row, key: int, prompt: Prompt) -> Iterable[Comparison]:
    scores = row.scores or ()
    for i, j in itertools.permutations(range(len(scores)), 2):
        if scores[i] > scores[j] and row.responses[i] != row.responses[j]:
            yield Comparison(row.number, key, prompt, row.responses[i], row.responses[j], row.annotator, (i, j))


def _few(some: list[Comparison], draw: np.random.Generator) -> list[Comparison]:
    if len(some) <= PER_LIST:
        return some
    return [some[i] for i in sorted(draw.choice(len(some), PER_LIST, replace=False).tolist())]

"""Texts that are nearly the same: prompts that stand on both sides of a split or twice in a file, and the two sides of a pair.
Exact copies are found by their normalised text, near ones by MinHash and then counted word by word."""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from penchant.evaluation.diagnosis.features import words_of

NEAR = 0.8
"""Jaccard similarity of three-word runs from which two prompts count as nearly the same."""
BANDS, ROWS = 32, 4
"""Two prompts of similarity 0.8 share a band of their signatures with probability 1 − (1 − 0.8⁴)³² > 0.9999."""
_PRIME = np.uint64((1 << 61) - 1)
CROWD = 200
"""Prompts of one band compared with each other at most: an empty form of a prompt would make pairs without end."""


def shingles(text: str) -> NDArray[np.uint64]:
    """Hashes of the runs of three words; of a shorter text, of the whole."""
    words = words_of(text)
    runs = {" ".join(words[i : i + 3]) for i in range(max(1, len(words) - 2))}
    return np.array(sorted({zlib.crc32(run.encode()) for run in runs}), dtype=np.uint64)


def normal(text: str) -> str:
    """Words alone, in lower case."""
    return " ".join(words_of(text))


@dataclass(frozen=True)
class Leak:
    """A prompt that stands among others: in the other file, or twice in one."""

    row: int
    other: int
    similarity: float
    """1 where the words are the same."""


def _signatures(sets: Sequence[NDArray[np.uint64]]) -> NDArray[np.uint64]:
    """[texts, BANDS · ROWS] the least of each of many hashes over a text's runs (Broder 1997); the hashes are a·x + b mod 2³²,
    a odd, with the upper bits mixed in."""
    draw = np.random.default_rng(0)
    a = draw.integers(1, 1 << 31, BANDS * ROWS, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    b = draw.integers(0, 1 << 32, BANDS * ROWS, dtype=np.uint64)
    out = np.empty((len(sets), BANDS * ROWS), dtype=np.uint64)
    low = np.uint64((1 << 32) - 1)
    for i, runs in enumerate(sets):
        x = runs[:, None] * a + b
        out[i] = ((x ^ (x >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9) >> np.uint64(32) & low).min(0)
    return out


def alike(prompts: Sequence[tuple[int, str]], others: Sequence[tuple[int, str]] | None = None) -> list[Leak]:
    """For each distinct prompt its most similar one among `others`, or among the other prompts where none are given, where
    that is at least `NEAR`. Prompts are (row, text). Texts without a word are left out."""
    own = others is None
    left = _distinct(prompts)
    right = left if own else _distinct(others or ())
    sets = [shingles(text) for text in (left if own else [*left, *right])]
    signs = _signatures(sets) if sets else np.zeros((0, BANDS * ROWS), dtype=np.uint64)
    shift = 0 if own else len(left)
    rows_left, rows_right = list(left.values()), list(right.values())
    best: dict[int, tuple[float, int]] = {}
    compared: set[tuple[int, int]] = set()
    for band in range(BANDS):
        buckets: dict[bytes, list[int]] = defaultdict(list)
        keys = np.ascontiguousarray(signs[:, band * ROWS : (band + 1) * ROWS])
        for j in range(shift, len(sets)):
            buckets[keys[j].tobytes()].append(j)
        for i in range(len(left)):
            for j in buckets.get(keys[i].tobytes(), ())[:CROWD]:
                if (own and j >= i) or (i, j) in compared:
                    continue
                compared.add((i, j))
                same = len(np.intersect1d(sets[i], sets[j], assume_unique=True))
                similar = same / (len(sets[i]) + len(sets[j]) - same)
                if similar >= NEAR and similar > best.get(i, (0.0, 0))[0]:
                    best[i] = (similar, j - shift)
    return [Leak(rows_left[i], rows_right[j], similar) for i, (similar, j) in sorted(best.items())]


def _distinct(prompts: Sequence[tuple[int, str]]) -> dict[str, int]:
    """Normalised text → the first row that has it."""
    out: dict[str, int] = {}
    for row, text in prompts:
        words = normal(text)
        if words:
            out.setdefault(words, row)
    return out


def edits(a: str, b: str) -> float:
    """The least number of words inserted, removed or exchanged to make b of a, over the longer's length: 0 for equal texts,
    1 where nothing is shared. Bit-parallel (Myers 1999, in the form of Hyyrö 2003)."""
    x, y = words_of(a), words_of(b)
    if not x or not y:
        return 0.0 if x == y else 1.0
    where: dict[str, int] = defaultdict(int)
    for i, word in enumerate(x):
        where[word] |= 1 << i
    mask, last = (1 << len(x)) - 1, 1 << (len(x) - 1)
    plus, minus, distance = mask, 0, len(x)
    for word in y:
        equal = where.get(word, 0)
        diagonal = (((equal & plus) + plus) ^ plus) | equal | minus
        up, down = minus | (mask & ~(diagonal | plus)), plus & diagonal
        distance += bool(up & last) - bool(down & last)
        up, down = ((up << 1) | 1) & mask, (down << 1) & mask
        plus, minus = down | (mask & ~(diagonal | up)), up & diagonal
    return distance / max(len(x), len(y))

"""Words and runs of words, counted one way everywhere: by the rule judge, in each round, and in the verdict.
It reads surfaces only and knows no language."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W\u3040-\u30ff\u3400-\u9fff]+|[^\w\s]")


def words(text: str) -> list[str]:
    """Words, single marks, and single characters of scripts without spaces; case does not matter."""
    return _WORD.findall(text.casefold())


def grams(tokens: Sequence[str], n: int) -> list[tuple[str, ...]]:
    """Every run of n tokens, repeats included."""
    return [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]


def distinct(texts: Iterable[str], n: int) -> float:
    """Distinct-n: different n-grams over all n-grams of all texts together (Li et al. 2016). It falls with the amount
    of text, so compare only equal amounts. 0 where no text has n words."""
    found = Counter(gram for text in texts for gram in grams(words(text), n))
    return len(found) / found.total() if found else 0.0


def repetition(text: str, n: int = 3) -> float:
    """Share of a text's n-grams that it has said before: 0 for none, near 1 for a loop."""
    found = grams(words(text), n)
    return 1 - len(set(found)) / len(found) if found else 0.0

"""Words and runs of words, counted one way everywhere: by the rule judge, in each round, and in the verdict.
It reads surfaces only and knows no language."""

from __future__ import annotations

import math
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


VOCABULARY = 50_257
"""V of the adjusted measure across prompts: that of GPT-2, for every order, as in the published code (Kirk et al. 2023, arXiv
2310.06452). A fixed V makes numbers of different models comparable."""
ORDERS = (1, 2, 3, 4, 5)


def adjusted(different: int, every: int, vocabulary: int) -> float:
    """N / (V [1 − ((V − 1) / V)^C])        Liu et al. 2022, arXiv 2202.13587, eq. 3: N different ones of C, over what C draws
    from V equally likely ones would show. 0 where there are none."""
    if not every:
        return 0.0
    expected = vocabulary * -math.expm1(every * math.log1p(-1 / vocabulary)) if vocabulary > 1 else 1.0
    return different / expected


def across(texts: Sequence[Sequence[str]]) -> dict[str, float]:
    """How different the answers to different prompts are: "distinct/1" to "distinct/5", their mean "distinct", and "ead", the
    same mean of the form that does not fall with the amount of text. texts: [prompts][answers]. The k-th answers to all prompts
    are one set; the numbers are means over these sets. Across prompts as in Shi et al. 2024, arXiv 2410.11677."""
    sets = [[words(answers[k]) for answers in texts if k < len(answers)] for k in range(max(map(len, texts), default=0))]
    found = {f"distinct/{n}": 0.0 for n in ORDERS} | {"distinct": 0.0, "ead": 0.0}
    for one in sets:
        for n in ORDERS:
            counted = Counter(gram for text in one for gram in grams(text, n))
            share = len(counted) / counted.total() if counted else 0.0
            found[f"distinct/{n}"] += share / len(sets)
            found["distinct"] += share / len(sets) / len(ORDERS)
            found["ead"] += adjusted(len(counted), counted.total(), VOCABULARY) / len(sets) / len(ORDERS)
    return found


def repetition(text: str, n: int = 3) -> float:
    """Share of a text's n-grams that it has said before: 0 for none, near 1 for a loop."""
    found = grams(words(text), n)
    return 1 - len(set(found)) / len(found) if found else 0.0

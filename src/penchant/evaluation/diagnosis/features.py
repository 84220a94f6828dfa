"""What a text looks like: a few named measures anybody can check, and its words and word pairs as a hashed, weighted vector.
No model reads the text, and nothing here knows which response was preferred."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

Floats = NDArray[np.float64]

WORD = re.compile(r"\w+")
_BULLET = re.compile(r"^\s*(?:[-*•]|\d+[.)])\s+", re.MULTILINE)
_MARK = re.compile(r"\*\*|__|`|^#{1,6}\s|\|", re.MULTILINE)
_POLITE = re.compile(
    r"\b(?:please|thanks?|thank you|sorry|apologi[sz]e|glad|happy to|of course|certainly|appreciate|welcome)\b", re.I
)
_HEDGE = re.compile(
    r"\b(?:maybe|perhaps|might|could|seems?|probably|possibly|likely|i think|i believe|i'm not sure)\b", re.I
)
_REFUSAL = re.compile(
    r"\b(?:i (?:can(?:no|')t|am (?:not able|unable)|won't|will not)|i'm (?:sorry|not able|unable|afraid)|as an ai|"
    r"i (?:do not|don't) (?:feel comfortable|think i (?:can|should))|not (?:appropriate|comfortable))\b",
    re.I,
)
HASHED = 2**17
"""Columns of the hashed words; two that meet in one are seen as the same."""


def _rate(pattern: re.Pattern[str]) -> Callable[[str, list[str], set[str]], float]:
    return lambda text, words, prompt: len(pattern.findall(text))


def _distinct(text: str, words: list[str], prompt: set[str]) -> float:
    two = Counter(pairwise(words))
    return len(two) / max(1, sum(two.values())) if two else 1.0


MEASURES: dict[str, Callable[[str, list[str], set[str]], float]] = {
    "longer": lambda text, words, prompt: len(text),
    "more lists": _rate(_BULLET),
    "more markdown": _rate(_MARK),
    "more lines": lambda text, words, prompt: text.count("\n"),
    "more digits": lambda text, words, prompt: sum(map(str.isdigit, text)),
    "more questions": lambda text, words, prompt: text.count("?"),
    "more exclamations": lambda text, words, prompt: text.count("!"),
    "more polite": _rate(_POLITE),
    "more hedged": _rate(_HEDGE),
    "refuses": lambda text, words, prompt: float(bool(_REFUSAL.search(text))),
    "speaks of itself": lambda text, words, prompt: sum(word in ("i", "me", "my") for word in words),
    "less repetition": _distinct,
    "longer words": lambda text, words, prompt: sum(map(len, words)) / max(1, len(words)),
    "more of the prompt's words": lambda text, words, prompt: (
        sum(word in prompt for word in set(words)) / max(1, len(prompt))
    ),
    "more capitals": lambda text, words, prompt: sum(map(str.isupper, text)),
}
"""Measures of one response (text, its words, the prompt's words): the one with more of it is a trivial predictor's choice."""


def words_of(text: str) -> list[str]:
    return WORD.findall(text.lower())


def measures(texts: Sequence[str], prompts: Sequence[str]) -> Floats:
    """[texts, measures]"""
    out = np.empty((len(texts), len(MEASURES)))
    known: dict[str, set[str]] = {}
    for i, (text, prompt) in enumerate(zip(texts, prompts, strict=True)):
        asked = known.setdefault(prompt, set(words_of(prompt)))
        words = words_of(text)
        out[i] = [measure(text, words, asked) for measure in MEASURES.values()]
    return out


def differences(chosen: Floats, rejected: Floats) -> Floats:
    """Differences of measures for a learner: counts on a log scale, so that no single long text decides, each column of
    typical size 1 and none beyond 3. Exactly antisymmetric: nothing is centred."""
    gap = np.sign(chosen) * np.log1p(np.abs(chosen)) - np.sign(rejected) * np.log1p(np.abs(rejected))
    size = np.sqrt((gap**2).mean(0))
    return np.clip(gap / np.where(size > 0, size, 1.0), -3.0, 3.0)


def hashed(chosen: Sequence[str], rejected: Sequence[str]) -> Any:
    """[pairs, HASHED] differences of the two texts' words and word pairs: 1 + log of the count, weighted by how rare the
    word is (idf), of Euclidean length 1 for each text."""
    from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer

    vectors = HashingVectorizer(
        n_features=HASHED,
        ngram_range=(1, 2),
        alternate_sign=False,
        norm=None,  # pyright: ignore[reportArgumentType]  (its stub forgets None)
        token_pattern=r"\w+|[^\w\s]",
        dtype=np.float64,
    )
    both = vectors.transform([*chosen, *rejected])
    weighted = sparse.csr_matrix(TfidfTransformer(sublinear_tf=True).fit_transform(both))
    n = len(chosen)
    return sparse.csr_matrix(weighted[:n] - weighted[n:])

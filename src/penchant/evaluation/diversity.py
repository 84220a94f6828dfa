"""How different texts are: distinct-n, its correction for the amount of text, self-BLEU, entropies and the Vendi score; and how
that changed across prompts. All but the Vendi score read surfaces; that takes whatever likenesses it is handed."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
from scipy.stats import t as student

from penchant.errors import Refusal
from penchant.evaluation.logistic import Floats
from penchant.evaluation.statistics import Estimate
from penchant.rewards.ngrams import across, adjusted, grams, words

Tokens = Sequence[str]


def distinct_tokens(texts: Sequence[Tokens], n: int) -> float:
    """Different n-grams over all n-grams of all texts together (Li et al. 2016), of texts already cut into tokens;
    `rewards.ngrams.distinct` cuts them itself. 0 where no text has n tokens."""
    found = Counter(gram for text in texts for gram in grams(text, n))
    return len(found) / found.total() if found else 0.0


def expectation_adjusted_distinct(texts: Sequence[Tokens], vocabulary: int) -> float:
    """N / (V [1 − ((V − 1) / V)^C])        Liu et al. 2022, arXiv 2202.13587, eq. 3
    N different tokens of C in all, over what C draws from V equally likely ones would show. Unlike distinct-n it does not
    fall with the amount of text; it may pass 1."""
    if vocabulary < 1:
        raise Refusal(f"the vocabulary has {vocabulary} words; it must have at least one.")
    found = Counter(token for text in texts for token in text)
    return adjusted(len(found), found.total(), vocabulary)


BLOCKS = 20
"""Groups of prompts that the jackknife leaves out in turn, at most."""


def across_prompts(
    before: Sequence[Sequence[str]], after: Sequence[Sequence[str]]
) -> dict[str, tuple[Estimate, Estimate, Estimate]]:
    """What `rewards.ngrams.across` counts before and after, and the change, of answers [prompts][answers] to the same prompts in
    the same order. Drawing a text twice would lower these numbers, so the intervals are a jackknife's over prompts; unknown of
    one prompt."""
    if len(before) != len(after) or not before:
        raise Refusal(
            f"answers to {len(before)} prompts before and {len(after)} after: they must be to the same, at least one."
        )
    both = sorted(zip(before, after, strict=True), key=repr)  # so that the blocks do not depend on the order of the prompts
    count = min(BLOCKS, len(both))

    def told(some: Sequence[tuple[Sequence[str], Sequence[str]]]) -> dict[str, tuple[float, float, float]]:
        old, new = across([a for a, _ in some]), across([b for _, b in some])
        return {name: (old[name], new[name], new[name] - old[name]) for name in old}

    value = told(both)
    left = [told([one for i, one in enumerate(both) if i % count != k]) for k in range(count)] if count > 1 else []

    def sure(name: str, column: int) -> Estimate:
        x, spread = value[name][column], math.inf
        if left:
            without = np.array([one[name][column] for one in left])
            spread = math.sqrt((count - 1) / count * float(((without - without.mean()) ** 2).sum()))
            spread *= float(student.ppf(0.975, count - 1))
        low, high = x - spread, x + spread
        if (
            column < 2
        ):  # none is below 0, and of so many n-grams no more than all are different; the adjusted form may pass 1
            low, high = max(low, 0.0), high if name == "ead" else min(high, 1.0)
        return Estimate(x, low, high, len(both))

    return {name: (sure(name, 0), sure(name, 1), sure(name, 2)) for name in value}


def bleu(candidate: Tokens, references: Sequence[Tokens], n: int = 4) -> float:
    """BLEU of one text against several, unsmoothed, orders 1 to n alike (Papineni et al. 2002): the geometric mean of the
    clipped precisions times exp(1 − r / c) where the text is shorter than the reference of nearest length (the shorter
    one of two as near). 0 where an order has no match."""
    if not candidate or not references:
        return 0.0
    logs = 0.0
    for order in range(1, n + 1):
        mine = Counter(grams(candidate, order))
        most: Counter[tuple[str, ...]] = Counter()
        for reference in references:
            most |= Counter(grams(reference, order))
        matched = (mine & most).total()
        if not matched:
            return 0.0
        logs += math.log(matched / mine.total()) / n
    nearest = min((len(r) for r in references), key=lambda r: (abs(r - len(candidate)), r))
    return math.exp(min(0.0, 1 - nearest / len(candidate)) + logs)


def self_bleu(texts: Sequence[Tokens], n: int = 4) -> float:
    """The mean BLEU-n of each text against all others (Zhu et al. 2018): 1 where all say the same. It grows with the
    number of texts, so compare only as many with as many."""
    if len(texts) < 2:
        raise Refusal(f"self-BLEU holds each text against the others, and there is {len(texts)}.")
    return math.fsum(bleu(t, [*texts[:i], *texts[i + 1 :]], n) for i, t in enumerate(texts)) / len(texts)


def self_bleu_of_texts(texts: Sequence[str], n: int = 4) -> float:
    """The same of raw texts, cut as everywhere else."""
    return self_bleu([words(t) for t in texts], n)


def token_entropy(probabilities: Sequence[float]) -> float:
    """−Σ p ln p of one distribution, nats; 0 ln 0 is 0."""
    p = np.asarray(probabilities, dtype=np.float64)
    if not len(p) or not np.isfinite(p).all() or (p < 0).any() or abs(p.sum() - 1) > 1e-6:
        raise Refusal(f"these {len(p)} numbers are no distribution: they must be at least 0 and add up to 1.")
    return -math.fsum(float(x) * math.log(x) for x in p if x > 0)


def vendi(likeness: Floats) -> float:
    """exp(−Σ λ ln λ) over the eigenvalues of K / n        Friedman & Dieng 2022, arXiv 2210.02410, eq. 2
    The effective number of different things: 1 where all are alike, n where none are. `likeness`: K, [n, n], symmetric,
    positive semidefinite, 1 on the diagonal."""
    k = np.asarray(likeness, dtype=np.float64)
    if k.ndim != 2 or k.shape[0] != k.shape[1] or not len(k):
        raise Refusal(f"likenesses are a square table, not one of shape {k.shape}.")
    if not np.isfinite(k).all() or np.abs(k - k.T).max() > 1e-6 or np.abs(np.diag(k) - 1).max() > 1e-6:
        raise Refusal("likenesses must be finite and symmetric, with 1 on the diagonal.")
    values = np.linalg.eigvalsh(k / len(k))
    if values[0] < -1e-6:
        raise Refusal(f"likenesses have an eigenvalue of {values[0] * len(k):.2g}; the score needs none below 0.")
    return math.exp(-math.fsum(float(x) * math.log(x) for x in values if x > 0))

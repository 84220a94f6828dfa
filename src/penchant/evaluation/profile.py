"""Which factors drive a preference, and whether two agents prefer for the same reasons: factor scores τ, what each explains beside
the others, and agreement of profiles. An agent is whoever prefers: people, a judge, a reward, a model that generates."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from penchant.errors import Refusal
from penchant.evaluation.comparisons import Comparison
from penchant.evaluation.evidence import SampleEvidence
from penchant.evaluation.factors import Factor, differences
from penchant.evaluation.significance import holm
from penchant.evaluation.statistics import RESAMPLES, Difference, Estimate, resampled
from penchant.feedback.records import Row, as_text

Ties = Literal["wmt14", "tau_b", "drop"]
Floats = NDArray[np.float64]

REFITS = 200
"""Draws of the logistic fit, each of which is fitted anew."""


def counts(pref: Sequence[float], fac: Sequence[float]) -> tuple[int, int, int]:
    """C, D and T: pairs in which the preferred response has more of the factor, less of it, as much of it. Pairs without a
    preference (pref = 0) are left out. Only signs count, so a monotone transform of the factor changes nothing."""
    p, f = np.sign(np.asarray(pref, dtype=np.float64)), np.sign(np.asarray(fac, dtype=np.float64))
    if p.shape != f.shape:
        raise Refusal(f"{p.size} preferences and {f.size} differences of a factor: each pair needs both.")
    if not (np.isfinite(p).all() and np.isfinite(f).all()):
        raise Refusal("a preference or a difference is not a number; leave that pair out, and count it.")
    both = p * f
    return int((both > 0).sum()), int((both < 0).sum()), int(((f == 0) & (p != 0)).sum())


def tau(pref: Sequence[float], fac: Sequence[float], ties: Ties = "wmt14") -> float:
    """How much a factor drives a preference, in [−1, 1]        PROFILE, Oh et al. 2024, arXiv 2410.06965

    wmt14: (C − D) / (C + D + T), where a tie of the factor counts against it (the WMT 2014 metrics task). tau_b:
    (C − D) / √((C + D)(C + D + T)). drop: (C − D) / (C + D). NaN where nothing is left to divide by. The paper's text was not
    at hand; the definition is that of the WMT task it names."""
    return float(_score(np.array(counts(pref, fac), dtype=np.float64), ties))


def _score(sums: Floats, ties: Ties) -> Floats:
    c, d, t = sums[..., 0], sums[..., 1], sums[..., 2]
    under = {"wmt14": c + d + t, "tau_b": np.sqrt((c + d) * (c + d + t)), "drop": c + d}[ties]
    return np.divide(c - d, under, out=np.full_like(under, np.nan), where=under > 0)


@dataclass(frozen=True)
class FactorScore:
    """What one factor has to do with a preference."""

    name: str
    tau: Difference | None
    """With a bootstrap over prompts, and its own p of τ = 0; None where no pair differs in the factor and ties leave nothing."""
    p: float
    """The same p held against all factors of the profile (Holm 1979)."""
    concordant: int
    discordant: int
    tied: int
    partial: Estimate | None
    """Log-odds of being preferred for one standard deviation more of the factor, all others held; None where it never
    differs. Factors that go together share credit in τ, and not here."""

    @property
    def sure(self) -> bool:
        """Whether τ is not 0, beyond the chance of looking at many factors."""
        return self.p < 0.05


@dataclass(frozen=True)
class Profile:
    """The factor scores of one agent."""

    agent: str
    n: int
    """Pairs with a preference."""
    undecided: int
    """Pairs without one, left out."""
    scores: dict[str, FactorScore]

    @property
    def vector(self) -> dict[str, float]:
        """τ by factor, NaN where there is none."""
        return {name: math.nan if one.tau is None else one.tau.value for name, one in self.scores.items()}


def profile(
    comparisons: Sequence[Comparison],
    agent: str = "",
    factors: Sequence[Factor] | None = None,
    ties: Ties = "wmt14",
    *,
    resamples: int = RESAMPLES,
    refits: int = REFITS,
) -> Profile:
    """The profile of who made these comparisons: `p` above ½ prefers a. Factors are ours where none are given; a factor that a
    judge scores is a Factor like any other. Intervals draw prompts."""
    pref = [c.p - 0.5 for c in comparisons]
    prompts = [c.prompt for c in comparisons]
    return profile_of(pref, differences(comparisons, factors), prompts, agent, ties, resamples=resamples, refits=refits)


def profile_of(
    pref: Sequence[float],
    factors: Mapping[str, Sequence[float]],
    groups: Sequence[Hashable] | None = None,
    agent: str = "",
    ties: Ties = "wmt14",
    *,
    resamples: int = RESAMPLES,
    refits: int = REFITS,
) -> Profile:
    """The same from numbers: the sign of `pref` says who is preferred, `factors` how much more of each a has than b. Without
    refits no partial effects are looked for."""
    kept = [i for i, p in enumerate(pref) if p != 0]
    p = np.sign(np.array([pref[i] for i in kept], dtype=np.float64))
    by = [i if groups is None else groups[i] for i in kept]
    table = {name: np.array([values[i] for i in kept], dtype=np.float64) for name, values in factors.items()}
    partial = partial_effects(p, table, by, refits=refits) if refits else dict.fromkeys(table)
    found, told = {}, {name: counts(p.tolist(), x.tolist()) for name, x in table.items()}
    for name, x in table.items():
        both = p * np.sign(x)
        sums = [(both > 0).astype(float), (both < 0).astype(float), (both == 0).astype(float)]
        defined = len(kept) and math.isfinite(float(_score(np.array(told[name], dtype=np.float64), ties)))
        statistic: Any = lambda s: np.nan_to_num(_score(s, ties))  # noqa: E731  a draw in which nothing is left says nothing
        found[name] = resampled(sums, statistic, by, resamples=resamples) if defined else None
    adjusted = dict(zip(found, holm([1.0 if one is None else one.p for one in found.values()]), strict=True))
    scores = {name: FactorScore(name, one, adjusted[name], *told[name], partial[name]) for name, one in found.items()}
    return Profile(agent, len(kept), len(pref) - len(kept), scores)


def partial_effects(
    pref: Floats, factors: Mapping[str, Floats], groups: Sequence[Hashable], *, refits: int = REFITS
) -> dict[str, Estimate | None]:
    """What each factor explains beside the others: a logistic regression of the preference on the differences, each divided
    by its root mean square, without a constant (so that the order of a and b does not matter), with an L2 penalty of ½ |β|².
    Intervals draw prompts and fit anew."""
    from sklearn.linear_model import LogisticRegression

    names = [name for name, x in factors.items() if len(x) and np.any(x)]
    out: dict[str, Estimate | None] = dict.fromkeys(factors)
    if not names or len(set(groups)) < 2:
        return out
    x = np.stack([factors[name] / np.sqrt(np.mean(factors[name] ** 2)) for name in names], axis=1)
    # Each pair stands there once as it is and once mirrored, at half its weight: both classes are there in every draw.
    both, labels = np.concatenate([x, -x]), np.concatenate([pref > 0, pref < 0])

    def fit(weight: Floats) -> Floats:
        model = LogisticRegression(fit_intercept=False, max_iter=200)
        return model.fit(both, labels, np.concatenate([weight, weight]) / 2).coef_[0]

    seen: dict[Hashable, int] = {}
    group = np.array([seen.setdefault(g, len(seen)) for g in groups])
    generator = np.random.default_rng(0)
    draws = []
    for _ in range(refits):
        times = np.bincount(generator.integers(len(seen), size=len(seen)), minlength=len(seen))
        draws.append(fit(times[group].astype(float)))
    low, high = np.quantile(np.stack(draws), [0.025, 0.975], axis=0)
    for name, value, a, b in zip(names, fit(np.ones(len(x))), low, high, strict=True):
        out[name] = Estimate(float(value), min(float(a), float(value)), max(float(b), float(value)), len(x))
    return out


@dataclass(frozen=True)
class Agreement:
    """How alike two profiles are, over the factors both have. NaN where fewer than two are left, or one is constant."""

    spearman: float
    kendall: float
    """τ_b."""
    pearson: float
    factors: int


def agreement(one: Mapping[str, float], other: Mapping[str, float]) -> Agreement:
    """Of two vectors of τ by factor."""
    names = [n for n in one if n in other and math.isfinite(one[n]) and math.isfinite(other[n])]
    a, b = (np.array([v[n] for n in names]) for v in (one, other))
    if len(names) < 2 or not np.ptp(a) or not np.ptp(b):
        return Agreement(math.nan, math.nan, math.nan, len(names))
    found: list[Any] = [stats.spearmanr(a, b), stats.kendalltau(a, b), stats.pearsonr(a, b)]
    spearman, kendall, pearson = (float(one.statistic) for one in found)
    return Agreement(spearman, kendall, pearson, len(names))


# Agents --------------------------------------------------------------------------------------------


def by_labels(rows: Sequence[Row]) -> list[Comparison]:
    """Who gave the preferences of a data set of pairs: chosen over rejected, by `strength` where a row has one."""
    return [
        Comparison(as_text(r.prompt), "chosen", "rejected", 1.0 if r.strength is None else r.strength, *r.responses)
        for r in rows
        if r.kind == "pairs"
    ]


def by_generation(before: SampleEvidence, after: SampleEvidence) -> list[Comparison]:
    """A model that was trained, as it writes: its answers after, preferred over its answers before to the same prompt with the
    same seed. What differs is what it writes more of."""
    return [
        Comparison(prompt, "after", "before", 1.0, new, old)
        for prompt, now, then in zip(after.prompts, after.texts, before.texts, strict=True)
        for new, old in zip(now, then, strict=False)
        if new or old
    ]


def by_score(samples: SampleEvidence, what: Literal["judge", "logp", "logp per token"] = "judge") -> list[Comparison]:
    """A judge, or the model itself by the probability it gives its answers: of every two answers to a prompt the one of the
    higher score is preferred. Answers that could not be judged are left out."""
    found = []
    for i, (prompt, texts) in enumerate(zip(samples.prompts, samples.texts, strict=True)):
        if what == "judge":
            scores: Sequence[float | None] = samples.scores[i] if samples.scores is not None else [None] * len(texts)
        else:
            tokens = samples.lengths[i] if what == "logp per token" else [1] * len(texts)
            scores = [p / max(n, 1) for p, n in zip(samples.logp[i], tokens, strict=True)]
        for (a, x), (b, y) in combinations(zip(texts, scores, strict=True), 2):
            if x is not None and y is not None:
                found.append(Comparison(prompt, "one", "other", 0.5 + 0.5 * ((x > y) - (x < y)), a, b))
    return found

"""How far raters agree: raw, beyond chance (Cohen, Fleiss, Krippendorff), and in order (Kendall, Spearman).
Most are a kept library's; here stand the interval, what is left out, and the refusals."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import krippendorff
import numpy as np
from scipy import stats

from penchant.errors import Refusal
from penchant.evaluation.logistic import Floats
from penchant.evaluation.statistics import Estimate, percentiles, resampled, share

RESAMPLES = 1000


def raw(a: Sequence[Hashable], b: Sequence[Hashable], groups: Sequence[Hashable] | None = None) -> Estimate:
    """Share of items that both raters say the same of, with Wilson's interval."""
    _paired(a, b)
    return share([float(x == y) for x, y in zip(a, b, strict=True)], groups)


def cohen_kappa(
    a: Sequence[Hashable], b: Sequence[Hashable], weights: Literal["linear", "quadratic"] | None = None
) -> Estimate:
    """(observed − chance) / (1 − chance), chance from both raters' own shares (Cohen 1960); weighted for graded labels.
    Raises Refusal where both always say the same one thing: then it is 0 / 0."""
    from sklearn.metrics import cohen_kappa_score

    _paired(a, b)
    labels = sorted({*a, *b}, key=lambda x: (str(type(x)), x))
    code = {label: i for i, label in enumerate(labels)}
    left, right = np.array([code[x] for x in a]), np.array([code[x] for x in b])
    if len(labels) < 2:
        raise Refusal("both raters give every item the same label, so agreement beyond chance is 0 / 0.")
    of = lambda i: (  # noqa: E731
        cohen_kappa_score(left[i], right[i], labels=range(len(labels)), weights=weights)
        if len({*left[i], *right[i]}) > 1
        else np.nan
    )
    return _drawn(of, len(left))


@dataclass(frozen=True)
class Verdicts:
    """How far two judges of pairs agree beyond chance; None where all verdicts are ties, so that it is 0 / 0."""

    kappa: Estimate | None
    """Cohen's, with each judge's own share of ties."""
    alpha: Estimate | None
    """Krippendorff's, nominal, with the share of ties of both together."""

    def to_json(self) -> dict[str, Any]:
        return {
            name: one and one.to_json() for name, one in (("cohen_kappa", self.kappa), ("krippendorff_alpha", self.alpha))
        }


def verdicts(a: Sequence[float], b: Sequence[float], groups: Sequence[Hashable] | None = None) -> Verdicts:
    """Agreement beyond chance of verdicts 1, 0 or ½ (a tie). Which of two answers is called the first is nobody's choice, so
    every pair counts both ways round: κ of (v, w) and (1 − v, 1 − w) together. Without ties that is 2 × raw − 1. Groups, the
    prompts, are drawn for the interval."""
    _paired(a, b)
    if wrong := [x for x in (*a, *b) if x not in (0.0, 0.5, 1.0)]:
        raise Refusal(f"a verdict is {wrong[0]}; it must be 1, 0, or ½ for a tie.")
    same = [float(x == y) for x, y in zip(a, b, strict=True)]
    columns = [same, [float(x == 0.5) for x in a], [float(y == 0.5) for y in b], [1.0] * len(a)]
    if not any(x != 0.5 for x in (*a, *b)):
        return Verdicts(None, None)

    def kappa(s: Floats) -> Floats:
        observed, t, u = (s[..., k] / s[..., 3] for k in range(3))
        by_chance = (1 - t) * (1 - u) / 2 + t * u
        return np.where(by_chance < 1, (observed - by_chance) / np.where(by_chance < 1, 1 - by_chance, 1.0), 1.0)

    def alpha(s: Floats) -> Floats:
        observed, ties, values = s[..., 0] / s[..., 3], 2 * (s[..., 1] + s[..., 2]), 4 * s[..., 3]
        side = (values - ties) / 2
        expected = 1 - (ties * (ties - 1) + 2 * side * (side - 1)) / (values * (values - 1))
        return np.where(expected > 0, 1 - (1 - observed) / np.where(expected > 0, expected, 1.0), 1.0)

    return Verdicts(*(resampled(columns, of, groups, resamples=RESAMPLES) for of in (kappa, alpha)))


def fleiss_kappa(counts: Sequence[Sequence[int]]) -> Estimate:
    """(observed − chance) / (1 − chance) for as many raters of every item, not necessarily the same people; `counts`
    [items][categories], how many raters gave each (Fleiss 1971). Items are drawn for the interval."""
    table = np.array(counts, dtype=np.float64)
    raters = table.sum(1) if table.ndim == 2 and table.size else np.zeros(1)
    if (table < 0).any() or len(set(raters.tolist())) != 1 or raters[0] < 2:
        raise Refusal(
            "Fleiss's kappa needs as many raters for every item, at least two; where some are missing take Krippendorff's alpha."
        )
    if (table.sum(0) > 0).sum() < 2:
        raise Refusal("all raters give every item the same label, so agreement beyond chance is 0 / 0.")
    m = raters[0]

    def of(i: np.ndarray) -> float:
        some = table[i]
        observed = float(((some**2).sum(1) - m).mean() / (m * (m - 1)))
        by_chance = float(((some.sum(0) / some.sum()) ** 2).sum())
        return (observed - by_chance) / (1 - by_chance) if by_chance < 1 else math.nan

    return _drawn(of, len(table))


def krippendorff_alpha(
    ratings: Sequence[Sequence[float | None]], level: Literal["nominal", "ordinal", "interval", "ratio"] = "nominal"
) -> Estimate:
    """1 − observed / expected disagreement (Krippendorff 2011), `ratings` [raters][items], None where a rater said nothing.
    Items are drawn for the interval. Raises Refusal where no item has two ratings, or all ratings are one value."""
    table = np.array([[np.nan if x is None else float(x) for x in row] for row in ratings], dtype=np.float64)
    twice = (~np.isnan(table)).sum(0) > 1 if table.ndim == 2 and table.size else np.zeros(0, dtype=bool)
    if not twice.any():
        raise Refusal("no item was rated by two raters, so their agreement is not known.")
    table = table[:, twice]
    if len(np.unique(table[~np.isnan(table)])) < 2:
        raise Refusal("all ratings are the same one, so agreement beyond chance is 0 / 0.")

    def of(i: np.ndarray) -> float:
        some = table[:, i]
        if len(np.unique(some[~np.isnan(some)])) < 2:
            return np.nan
        return float(krippendorff.alpha(reliability_data=some, level_of_measurement=level))

    return _drawn(of, table.shape[1])


def kendall(a: Sequence[float], b: Sequence[float], variant: Literal["b", "c"] = "b") -> tuple[Estimate, float]:
    """Kendall's tau with its p: b allows for ties, c for tables that are not square."""
    x, y = _numbers(a, b)
    of = lambda i: _tau(x[i], y[i], variant)[0]  # noqa: E731
    return _drawn(of, len(x)), _tau(x, y, variant)[1]


def goodman_kruskal_gamma(a: Sequence[float], b: Sequence[float]) -> float:
    """(concordant − discordant) / (concordant + discordant): the tau that leaves out ties."""
    x, y = _numbers(a, b)
    order = np.sign(x[:, None] - x) * np.sign(y[:, None] - y)
    if not order.any():
        raise Refusal("every two items are tied for one of the two, so their order cannot be compared.")
    return float(order.sum() / np.abs(order).sum())


def spearman(a: Sequence[float], b: Sequence[float]) -> tuple[Estimate, float]:
    """Spearman's rank correlation with its p."""
    x, y = _numbers(a, b)
    of = lambda i: _rho(x[i], y[i])[0] if np.ptp(x[i]) and np.ptp(y[i]) else np.nan  # noqa: E731
    return _drawn(of, len(x)), _rho(x, y)[1]


def _tau(x: Floats, y: Floats, variant: str) -> tuple[float, float]:
    found: Any = stats.kendalltau(x, y, variant=variant)
    return float(found.statistic), float(found.pvalue)


def _rho(x: Floats, y: Floats) -> tuple[float, float]:
    found: Any = stats.spearmanr(x, y)
    return float(found.statistic), float(found.pvalue)


def _paired(a: Sequence[Hashable], b: Sequence[Hashable]) -> None:
    if len(a) != len(b) or not a:
        raise Refusal(f"{len(a)} labels of one rater and {len(b)} of the other; there must be as many, and at least one.")


def _numbers(a: Sequence[float], b: Sequence[float]) -> tuple[Floats, Floats]:
    _paired(a, b)
    x, y = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise Refusal("a value is not a finite number; leave out what was not rated, and count it.")
    if not (np.ptp(x) and np.ptp(y)):
        raise Refusal("one of the two gives every item the same value, so there is no order to compare.")
    return x, y


def _drawn(of: Callable[[np.ndarray], float], n: int) -> Estimate:
    """The statistic of all items, and of draws of as many; unknown where more than 1 in 40 draws has none."""
    generator = np.random.default_rng(0)
    value = float(of(np.arange(n)))
    draws = np.array([of(generator.integers(n, size=n)) for _ in range(RESAMPLES)]) if n > 1 else np.zeros(0)
    known = draws[np.isfinite(draws)]
    if len(known) < 0.975 * RESAMPLES:
        return Estimate(value, -np.inf, np.inf, n)
    return Estimate(value, *percentiles(value, known, n), n)

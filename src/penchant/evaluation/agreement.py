"""How far raters agree: raw, beyond chance (Cohen, Krippendorff), and in order (Kendall, Spearman).
Everything but the raw share is a kept library's; here stand the interval, what is left out, and the refusals."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any, Literal

import krippendorff
import numpy as np
from scipy import stats

from penchant.errors import Refusal
from penchant.evaluation.logistic import Floats
from penchant.evaluation.statistics import Estimate, percentiles, share

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

"""Numbers with intervals: means, ratios and differences resampled by prompt, and exact tests for shares.
Nothing here knows what the numbers mean, and nothing is random from call to call: the seed is fixed."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from penchant.words import figure

RESAMPLES = 10_000
LEVEL = 0.95
_AT_ONCE = 2_000_000  # draws held in memory together

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A number and the interval it is known to, at 95 % unless asked otherwise."""

    value: float
    low: float
    """−∞ where nothing is known about the spread (a single unit)."""
    high: float
    n: int
    """How many values it was made from."""

    def __str__(self) -> str:
        return self.number()

    def number(self, signed: bool = False) -> str:
        """`0.24 [0.17, 0.31]`, with a plus sign where `signed`."""
        return f"{short(self.value, signed)} {self._between(1.0, signed)}"

    def percent(self, signed: bool = False) -> str:
        """`64.4 % [58.2, 70.1]`."""
        form = "+.1f" if signed else ".1f"
        return f"{figure(100 * self.value, form)} % {self._between(100.0, signed)}"

    def _between(self, scale: float, signed: bool) -> str:
        if not (math.isfinite(self.low) and math.isfinite(self.high)):
            return "[spread unknown]"
        if scale == 1.0:
            return f"[{short(self.low, signed)}, {short(self.high, signed)}]"
        form = "+.1f" if signed else ".1f"
        return f"[{figure(scale * self.low, form)}, {figure(scale * self.high, form)}]"

    def to_json(self) -> dict[str, Any]:
        """Strict JSON: an unknown end is null."""
        end = lambda x: x if math.isfinite(x) else None  # noqa: E731
        return {"value": self.value, "low": end(self.low), "high": end(self.high), "n": self.n}


@dataclass(frozen=True)
class Difference(Estimate):
    """An estimate of after − before, with the two-sided p of "no difference"."""

    p: float = 1.0

    def to_json(self) -> dict[str, Any]:
        return {**super().to_json(), "p": self.p}


def short(x: float, signed: bool = False) -> str:
    """A number as a person would say it: two decimals, fewer where it is large, two figures where it is small."""
    size = abs(x)
    plus = "+" if signed else ""
    if size >= 1000:
        return figure(x, f"{plus},.0f")
    if size >= 10:
        return figure(x, f"{plus}.1f")
    if size >= 0.01 or size < 1e-9:
        return figure(x, f"{plus}.2f")
    return figure(x, f"{plus}.2g")


def mean(
    values: Sequence[float],
    groups: Sequence[Hashable] | None = None,
    *,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
) -> Estimate:
    """The mean of `values` with a bootstrap interval. Values of one group (one prompt) are drawn together, since they
    are not independent; where all are of one group the interval speaks of that group alone."""
    return ratio(values, [1.0] * len(values), groups, level=level, resamples=resamples)


def ratio(
    top: Sequence[float],
    bottom: Sequence[float],
    groups: Sequence[Hashable] | None = None,
    *,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
) -> Estimate:
    """Σ top / Σ bottom (nats per token, tokens after per token before), resampled like `mean`."""
    sums = _by_group([top, bottom], groups)
    value, draws = _bootstrap(sums, lambda s: s[..., 0] / s[..., 1], resamples)
    return Estimate(value, *percentiles(value, draws, len(sums), level), len(top))


def difference(
    before: Sequence[float],
    after: Sequence[float],
    groups: Sequence[Hashable] | None = None,
    *,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
) -> Difference:
    """mean(after) − mean(before) of values measured on the same things in the same order: the pairing is kept."""
    ones = [1.0] * len(before)
    return ratio_difference((before, ones), (after, ones), groups, level=level, resamples=resamples)


def ratio_difference(
    before: tuple[Sequence[float], Sequence[float]],
    after: tuple[Sequence[float], Sequence[float]],
    groups: Sequence[Hashable] | None = None,
    *,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
) -> Difference:
    """Σ top / Σ bottom after, less the same before, on the same things in the same order."""
    sums = _by_group([*before, *after], groups)
    value, draws = _bootstrap(sums, lambda s: s[..., 2] / s[..., 3] - s[..., 0] / s[..., 1], resamples)
    low, high = percentiles(value, draws, len(sums), level)
    return Difference(value, low, high, len(before[0]), chance(value, draws, len(sums)))


def correlation(
    x: Sequence[float],
    y: Sequence[float],
    groups: Sequence[Hashable] | None = None,
    *,
    centred: bool = True,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
) -> Estimate | None:
    """Pearson's r of two columns, resampled like `mean`; about 0 instead of about the means where not `centred`. None where a
    column does not vary, so that there is none; draws without variation count as 0."""
    means = [math.fsum(column) / len(column) for column in (x, y)] if centred else [0.0, 0.0]
    a, b = ([v - m for v in column] for column, m in zip((x, y), means, strict=True))  # so that squares do not cancel
    if not any(a) or not any(b) or (centred and (len(set(x)) == 1 or len(set(y)) == 1)):
        return None
    products = [[u * v for u, v in zip(p, q, strict=True)] for p, q in ((a, b), (a, a), (b, b))]
    sums = _by_group([[1.0] * len(a), a, b, *products], groups)

    def r(s: Floats) -> Floats:
        n, sx, sy, xy, xx, yy = (s[..., k] for k in range(6))
        mx, my = (sx / n, sy / n) if centred else (0.0, 0.0)
        spread = np.maximum(xx - n * mx**2, 0) * np.maximum(yy - n * my**2, 0)
        return np.clip(np.where(spread > 0, (xy - n * mx * my) / np.sqrt(np.where(spread > 0, spread, 1.0)), 0.0), -1, 1)

    value, draws = _bootstrap(sums, r, resamples)
    return Estimate(value, *percentiles(value, draws, len(sums), level), len(x))


def resampled(
    columns: Sequence[Sequence[float]],
    statistic: Callable[[Floats], Floats],
    groups: Sequence[Hashable] | None = None,
    *,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
) -> Difference:
    """Any number that is made of column sums: `statistic` takes sums [..., columns] and gives [...]. p is of its being 0."""
    sums = _by_group(columns, groups)
    value, draws = _bootstrap(sums, statistic, resamples)
    low, high = percentiles(value, draws, len(sums), level)
    return Difference(value, low, high, len(columns[0]), chance(value, draws, len(sums)))


def wilson(k: float, n: float, level: float = LEVEL) -> tuple[float, float]:
    """The score interval of a share k / n (Wilson 1927); it stays inside [0, 1] and is not empty at 0 or 100 %."""
    if not 0 <= k <= n or n <= 0:
        raise ValueError(f"{k} of {n} is no share.")
    z2 = stats.norm.ppf((1 + level) / 2) ** 2
    p = k / n
    middle, half = p + z2 / (2 * n), math.sqrt(z2 * (p * (1 - p) / n + z2 / (4 * n * n)))
    return max(0.0, float((middle - half) / (1 + z2 / n))), min(1.0, float((middle + half) / (1 + z2 / n)))


def share(hits: Sequence[float], groups: Sequence[Hashable] | None = None, level: float = LEVEL) -> Estimate:
    """The share of hits (1, 0, or 0.5 for a tie) with Wilson's interval. The bootstrap is not used for shares: at 0 or
    100 % it has nothing to draw but the same value. Where hits of one group go together, n is replaced by the effective
    number p(1 − p) / variance of the clustered mean, at least the number of groups (Korn and Graubard 1998)."""
    sums = _by_group([hits, [1.0] * len(hits)], groups)
    n, count = len(hits), len(sums)
    p = math.fsum(hits) / n
    effective = float(n)
    if count < n:
        residual = sums[:, 0] - p * sums[:, 1]
        variance = count / (count - 1) * float((residual**2).sum()) / n**2
        effective = min(float(n), max(p * (1 - p) / variance, 1.0)) if variance > 0 else float(count)
    return Estimate(p, *wilson(p * effective, effective, level), n)


def apart(a: Estimate, b: Estimate) -> Estimate:
    """a − b for two independent estimates, from their own intervals (Newcombe 1998, method 10; Zou and Donner 2008)."""
    value = a.value - b.value
    low = value - math.hypot(a.value - a.low, b.high - b.value)
    return Estimate(value, low, value + math.hypot(a.high - a.value, b.value - b.low), min(a.n, b.n))


def mcnemar(b: int, c: int) -> float:
    """Exact two-sided p that b and c discordant pairs are a fair coin's."""
    return 1.0 if b + c == 0 else float(stats.binomtest(b, b + c, 0.5).pvalue)


def sign_test(differences: Sequence[float]) -> float:
    """Exact two-sided p that as many differences are above 0 as below; zeros are left out."""
    return mcnemar(sum(d > 0 for d in differences), sum(d < 0 for d in differences))


def _by_group(columns: Sequence[Sequence[float]], groups: Sequence[Hashable] | None) -> Floats:
    """Sums per group, [groups, columns], in an order that depends on the values alone: so no estimate depends on the
    order of the rows. One group alone is taken apart again, since nothing can be resampled from one."""
    lengths = {len(c) for c in columns} | ({len(groups)} if groups is not None else set())
    if len(lengths) != 1 or lengths == {0}:
        raise ValueError(f"columns of {sorted(lengths)} values; they must be of one length, and not empty.")
    table = np.stack([np.asarray(c, dtype=np.float64) for c in columns], axis=1)
    if not np.isfinite(table).all():
        raise ValueError("a value is not a finite number, so nothing can be estimated from it.")
    table = table[np.lexsort(table.T)] if groups is None else table
    if groups is not None:
        names: dict[Hashable, int] = {}
        index = np.array([names.setdefault(g, len(names)) for g in groups])
        if len(names) == 1:
            return _by_group(columns, None)
        order = np.lexsort((*table.T, index))  # the same order of adding within a group, whatever the order of rows
        sums = np.zeros((len(names), table.shape[1]))
        np.add.at(sums, index[order], table[order])
        table = sums[np.lexsort(sums.T)]
    return table


def _bootstrap(sums: Floats, statistic: Any, resamples: int) -> tuple[float, Floats]:
    """The statistic of the summed columns, and of `resamples` draws of as many groups with replacement. Written out
    rather than taken from scipy.stats.bootstrap: draws of groups, two-column ratios and the p of the same draws need
    more wrapping than these lines, and its seed argument has changed its name between versions."""
    generator = np.random.default_rng(0)
    groups = len(sums)
    draws = []
    for start in range(0, resamples, at_once := max(1, _AT_ONCE // groups)):
        picks = generator.integers(groups, size=(min(at_once, resamples - start), groups), dtype=np.int32)
        draws.append(statistic(np.stack([column[picks].sum(1) for column in sums.T], axis=1)))
    return float(statistic(sums.sum(0))), np.concatenate(draws)


def percentiles(value: float, draws: Floats, units: int, level: float = LEVEL) -> tuple[float, float]:
    """The expanded percentile interval: the plain percentile interval is too short for few units, by √((n−1)/n) and by
    z for t, so the tails are taken as thin as makes up for both (Hesterberg 2015, section 4.6). Of normal values it covers
    92 % with 6 units, 93 % with 8, 94 to 95 % from 10 on, where the plain one covers 84, 88 and 90 %."""
    if units < 2:
        return -math.inf, math.inf
    t = stats.t.ppf((1 + level) / 2, units - 1)
    tail = float(stats.norm.cdf(-t * math.sqrt(units / (units - 1))))
    low, high = np.quantile(draws, [tail, 1 - tail])
    return min(float(low), value), max(float(high), value)


def chance(value: float, draws: Floats, units: int) -> float:
    """Twice the smaller share of draws on either side of 0, thickened as `percentiles` thins its tails, so that p < 5 %
    and a 95 % interval without 0 are the same statement."""
    if units < 2:
        return 1.0
    if value == 0 and not draws.any():
        return 1.0
    tail = (min((draws <= 0).sum(), (draws >= 0).sum()) + 1) / (len(draws) + 1)
    z = float(stats.norm.ppf(min(tail, 0.5)))
    return min(1.0, float(2 * stats.t.cdf(z * math.sqrt((units - 1) / units), units - 1)))

"""The statistics of a comparison: two things measured on the same prompts with the same seeds, and which of several is best.
It works on tables of plain numbers and knows neither models nor runs.

Prompts and seeds are two levels of chance. What a method does on other prompts is one question, what it does when it is
trained again with another seed is another, and three seeds say little of the second however many prompts there are. So
intervals over the two are kept apart, and a difference is sure only where it is sure over both."""

from __future__ import annotations

import math
import statistics
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from penchant.evaluation.statistics import LEVEL, Estimate, Floats, mean, share

ALPHA = 1 - LEVEL


@dataclass(frozen=True, eq=False)
class Readings:
    """What one method scored by one measure."""

    values: Floats
    """[seeds, units]: a unit is a held-out pair or prompt, the same for all seeds and methods. NaN: not measured."""
    seeds: tuple[int, ...]
    groups: tuple[Hashable, ...]
    """The prompt of each unit; units of one prompt are not independent."""

    def __post_init__(self) -> None:
        if self.values.shape != (len(self.seeds), len(self.groups)):
            raise ValueError(f"{self.values.shape} values for {len(self.seeds)} seeds and {len(self.groups)} units.")

    @property
    def measured(self) -> Readings:
        """The units that every seed has a value for."""
        return self.only(np.isfinite(self.values).all(0))

    def only(self, units: Any) -> Readings:
        """Some of the units, by a mask."""
        kept = tuple(g for g, keep in zip(self.groups, units, strict=True) if keep)
        return Readings(self.values[:, np.asarray(units, dtype=bool)], self.seeds, kept)

    def at(self, seeds: Sequence[int]) -> Readings:
        """Some of the seeds, in that order."""
        rows = [self.seeds.index(seed) for seed in seeds]
        return Readings(self.values[rows], tuple(seeds), self.groups)

    @property
    def value(self) -> float:
        """The mean over all units and seeds."""
        return float(self.measured.values.mean())


def over_prompts(readings: Readings, *, a_share: bool = False) -> Estimate:
    """The mean with its interval over prompts, each unit being its mean over these seeds: what other prompts would show of
    these very models. a_share: values in [0, 1], whose interval stays there."""
    told = readings.measured
    return (share if a_share else mean)(told.values.mean(0).tolist(), told.groups)


def over_seeds(readings: Readings) -> Estimate:
    """The same mean with Student's interval over the seeds' own means: what training again would show on these prompts."""
    return student(readings.measured.values.mean(1).tolist())


def student(values: Sequence[float], level: float = LEVEL) -> Estimate:
    """The mean of a few alike values with Student's interval; nothing is known of the spread of one."""
    n, middle = len(values), math.fsum(values) / len(values)
    if n < 2:
        return Estimate(middle, -math.inf, math.inf, n)
    half = float(stats.t.ppf((1 + level) / 2, n - 1)) * statistics.stdev(values) / math.sqrt(n)
    return Estimate(middle, middle - half, middle + half, n)


@dataclass(frozen=True)
class Contrast:
    """a − b on the same prompts with the same seeds."""

    prompts: Estimate
    """With the interval over prompts."""
    seeds: Estimate
    """With the interval over seeds."""
    p: float
    """Two-sided p of no difference over other prompts and other seeds at once."""

    @property
    def value(self) -> float:
        return self.prompts.value

    def to_json(self) -> dict[str, Any]:
        return {"prompts": self.prompts.to_json(), "seeds": self.seeds.to_json(), "p": self.p}


def contrast(a: Readings, b: Readings) -> Contrast | None:
    """a − b over the seeds and units that both have; None where there are none.

    Let d[s, g] be the difference with seed s on prompt g, MS_P, MS_S the mean squares of prompts and of seeds. The p is the
    largest of three: of prompts, t² = d̄² / (MS_P / GS) with G − 1 degrees of freedom; of seeds, t² = d̄² / (MS_S / GS) with
    S − 1; and of both, min F′ = d̄² / ((MS_P + MS_S) / GS) with Satterthwaite's degrees (Clark 1973, Journal of Verbal
    Learning and Verbal Behavior 12, 335). None of the three alone keeps its level: the first is blind to seeds, the second to
    prompts, and the third counts on S − 1 = 2 degrees of freedom as if they were known. Together they do, whichever of the
    two levels varies more; a test holds them to it.
    """
    seeds = [seed for seed in a.seeds if seed in b.seeds]
    if a.groups != b.groups:
        raise ValueError("the two were not measured on the same units.")
    if not seeds:
        return None
    a, b = a.at(seeds), b.at(seeds)
    gap = Readings(a.values - b.values, a.seeds, a.groups).measured
    if not gap.groups:
        return None
    d = _by_prompt(gap)
    count, prompts = d.shape
    middle, rows, columns = float(d.mean()), d.mean(1), d.mean(0)
    ms_prompts = count * float(((columns - middle) ** 2).sum()) / (prompts - 1) if prompts > 1 else math.inf
    ms_seeds = prompts * float(((rows - middle) ** 2).sum()) / (count - 1) if count > 1 else math.inf
    both = ms_prompts + ms_seeds
    free = both**2 / (ms_prompts**2 / (prompts - 1) + ms_seeds**2 / (count - 1)) if 0 < both < math.inf else 1.0
    tests = [(ms_prompts, prompts - 1), (ms_seeds, count - 1), (both, free)]
    p = max(_student_p(middle, ms / d.size, degrees) for ms, degrees in tests)
    return Contrast(
        _student_interval(middle, ms_prompts / d.size, prompts - 1, len(gap.groups)),
        _student_interval(middle, ms_seeds / d.size, count - 1, count),
        p,
    )


def _by_prompt(gap: Readings) -> Floats:
    """[seeds, prompts]: numbers whose mean over prompts is the mean over units, and whose spread over prompts is that of a
    mean of clusters of unequal size (the linearised ratio Σ_g Σ_i d / Σ_g n_g; Cochran 1977, section 6.5)."""
    names: dict[Hashable, int] = {}
    index = np.array([names.setdefault(group, len(names)) for group in gap.groups])
    sums, sizes = np.zeros((len(gap.seeds), len(names))), np.bincount(index).astype(float)
    for k, values in enumerate(gap.values):
        np.add.at(sums[k], index, values)
    middle = gap.values.mean(1, keepdims=True)
    return middle + (sums - middle * sizes) * len(names) / len(gap.groups)


def _student_p(middle: float, variance: float, degrees: float) -> float:
    if middle == 0 or not math.isfinite(variance):
        return 1.0
    return float(2 * stats.t.sf(abs(middle) / math.sqrt(variance), degrees)) if variance > 0 else 0.0


def _student_interval(middle: float, variance: float, degrees: int, n: int) -> Estimate:
    if not math.isfinite(variance):
        return Estimate(middle, -math.inf, math.inf, n)
    half = float(stats.t.ppf((1 + LEVEL) / 2, degrees)) * math.sqrt(variance)
    return Estimate(middle, middle - half, middle + half, n)


def best_of(contenders: Mapping[str, Readings], better: int = 1) -> tuple[str | None, list[str]]:
    """The one that is surely better than each of the others, or None; and all names, the best first. better: −1 where less
    is more. All its differences must hold at 5 %, and since every one of them must, none is adjusted: where two or more are
    equally best, one of them is named in at most 5 % of cases, as it has to beat the other (Berger 1982; Hsu 1984)."""
    order = sorted(contenders, key=lambda name: -better * contenders[name].value)
    if len(order) < 2:
        return None, order
    first = order[0]
    for other in order[1:]:
        gap = contrast(contenders[first], contenders[other])
        if gap is None or better * gap.value <= 0 or gap.p >= ALPHA:
            return None, order
    return first, order


def tuned(points: Sequence[Readings], better: int = 1) -> tuple[Readings, list[int]]:
    """A method with its hyper-parameters chosen and judged on different prompts: the prompts are halved, and each half is
    answered for by the point that was best on the other. So a method with many points gains nothing from having many tries.
    The points that were chosen come second."""
    if len(points) == 1:
        return points[0], [0]
    names: dict[Hashable, int] = {}
    half = np.array([names.setdefault(group, len(names)) % 2 for group in points[0].groups])
    values = np.full_like(points[0].values, math.nan)
    chosen = []
    for side in (0, 1):
        elsewhere = [point.only(half != side) for point in points]
        pick = int(np.argmax([better * told.value if told.measured.groups else 0.0 for told in elsewhere]))
        values[:, half == side] = points[pick].values[:, half == side]
        chosen.append(pick)
    return Readings(values, points[0].seeds, points[0].groups), chosen


@dataclass(frozen=True)
class Robustness:
    """A measure over a method's grid: described, not tested. The best of many is the best by luck too."""

    best: float
    worst: float
    median: float
    quartiles: tuple[float, float]
    slope: float | None
    """What is lost for each step of the grid away from the best point, by least squares through it; None for one point."""

    @property
    def spread(self) -> float:
        """The interquartile range."""
        return self.quartiles[1] - self.quartiles[0]

    def to_json(self) -> dict[str, Any]:
        return {
            "best": self.best,
            "median": self.median,
            "worst": self.worst,
            "quartiles": list(self.quartiles),
            "slope": self.slope,
        }


def robustness(values: Mapping[tuple[int, ...], float], better: int = 1) -> Robustness:
    """values: the measure at each point of the grid, by its places along the axes."""
    top = max(values, key=lambda place: better * values[place])
    steps = [sum(abs(i - j) for i, j in zip(place, top, strict=True)) for place in values]
    lost = [better * (values[top] - value) for value in values.values()]
    far = sum(step * step for step in steps)
    found = np.array(list(values.values()))
    low, middle, high = np.quantile(found, [0.25, 0.5, 0.75]).tolist()
    slope = sum(s * x for s, x in zip(steps, lost, strict=True)) / far if far else None
    return Robustness(values[top], float((better * found).min() * better), middle, (low, high), slope)

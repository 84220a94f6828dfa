"""Whether a difference is more than chance: tests on pairs, effect sizes, Holm for families, and the table they end in.
The bootstrap itself stands in statistics.py, once."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy import stats

from penchant.errors import Refusal
from penchant.evaluation.statistics import RESAMPLES, Difference, Estimate, difference, mcnemar, short
from penchant.words import figure


def holm(p: Sequence[float]) -> list[float]:
    """Adjusted p: the i-th smallest of m times m − i + 1, never falling, at most 1 (Holm 1979). The chance of any false
    alarm in the family stays below the level, whatever hangs together."""
    if any(not 0 <= x <= 1 for x in p):
        raise Refusal(f"p-values lie in [0, 1]; given were {', '.join(f'{x:g}' for x in p[:8])}.")
    out, largest = [0.0] * len(p), 0.0
    for rank, i in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        largest = max(largest, min(1.0, (len(p) - rank) * p[i]))
        out[i] = largest
    return out


def wilcoxon(differences: Sequence[float]) -> float:
    """Two-sided p of the signed-rank test that paired differences are symmetric about 0 (Wilcoxon 1945). Differences of 0
    are ranked and their ranks left out (Pratt 1959): leaving them out first overstates what is sure. Exact for up to 50
    without ties or zeros."""
    d = np.asarray(differences, dtype=np.float64)
    if not np.isfinite(d).all():
        raise Refusal("a difference is not a finite number; leave out what was not measured, and count it.")
    if not d.any():
        return 1.0
    found: Any = stats.wilcoxon(d, zero_method="pratt")
    return float(found.pvalue)


def mcnemar_of(before: Sequence[float], after: Sequence[float]) -> tuple[int, int, float]:
    """(right only before, right only after, exact p) of the same items judged twice, 1 right and 0 wrong."""
    pairs = list(zip(before, after, strict=True))
    b, c = sum(x > y for x, y in pairs), sum(y > x for x, y in pairs)
    return b, c, mcnemar(b, c)


def cohen_dz(differences: Sequence[float]) -> float:
    """mean / sd of paired differences, n − 1 below: the effect in units of its own spread (Cohen 1988). Not a number for
    fewer than two; infinite where all are the same and not 0."""
    d = np.asarray(differences, dtype=np.float64)
    if len(d) < 2:
        return math.nan
    middle, spread = float(d.mean()), float(d.std(ddof=1))
    return middle / spread if spread else 0.0 if middle == 0 else math.copysign(math.inf, middle)


def cliffs_delta(a: Sequence[float], b: Sequence[float]) -> float:
    """P(a > b) − P(a < b) of two independent groups (Cliff 1993), in [−1, 1]."""
    if not a or not b:
        raise Refusal(f"{len(a)} values against {len(b)}; both groups need one at least.")
    return float(np.sign(np.subtract.outer(np.asarray(a), np.asarray(b))).mean())


@dataclass(frozen=True)
class Result:
    """One number of a table, with everything needed to read it."""

    name: str
    estimate: Estimate
    """Value, interval and n."""
    p: float | None = None
    """Of no difference; None where nothing was tested."""
    p_holm: float | None = None
    """p after Holm over all tested rows of the table."""
    effect: float | None = None
    """The effect size; None where it was not computed."""
    note: str = ""
    percent: bool = False

    @property
    def sure(self) -> bool | None:
        """Whether it holds at 5 % after Holm; None where nothing was tested."""
        return None if self.p_holm is None else self.p_holm < 0.05

    @property
    def cells(self) -> tuple[str, str, str, str, str]:
        """Name, estimate with interval, n, p, p after Holm, as text; "–" for what was not measured."""
        said = self.estimate.percent() if self.percent else self.estimate.number()
        return self.name, said, figure(self.estimate.n, ",d"), _p(self.p), _p(self.p_holm)

    def to_json(self) -> dict[str, Any]:
        beside = {"p": self.p, "p_holm": self.p_holm, "effect": self.effect, "note": self.note}
        return {"name": self.name, **self.estimate.to_json(), **beside}


HEAD = ("", "estimate [95 %]", "n", "p", "p (Holm)")


@dataclass(frozen=True)
class Table:
    """Results that are read together, and so corrected together."""

    rows: tuple[Result, ...]

    @classmethod
    def of(cls, rows: Sequence[Result]) -> Table:
        """The rows with p after Holm over those that have a p."""
        tested = [i for i, row in enumerate(rows) if row.p is not None]
        corrected = dict(zip(tested, holm([rows[i].p or 0.0 for i in tested]), strict=True))
        return cls(tuple(replace(row, p_holm=corrected.get(i)) for i, row in enumerate(rows)))

    def to_json(self) -> list[dict[str, Any]]:
        return [row.to_json() for row in self.rows]

    def lines(self) -> list[str]:
        """As text, in columns."""
        cells = [HEAD, *(row.cells for row in self.rows)]
        widths = [max(len(row[i]) for row in cells) for i in range(len(HEAD))]
        return ["  ".join(x.ljust(w) for x, w in zip(row, widths, strict=True)).rstrip() for row in cells]


def family(
    baseline: Sequence[float],
    others: Mapping[str, Sequence[float]],
    groups: Sequence[Hashable] | None = None,
    *,
    resamples: int = RESAMPLES,
) -> Table:
    """Every one of `others` less the baseline, on the same items in the same order: the paired bootstrap by group, p
    after Holm over the family, and Cohen's dz."""
    rows = []
    for name, values in others.items():
        if len(values) != len(baseline):
            raise Refusal(
                f"{name} has {len(values)} values and the baseline {len(baseline)}; they must be of the same items."
            )
        found: Difference = difference(baseline, values, groups, resamples=resamples)
        gaps = [b - a for a, b in zip(baseline, values, strict=True)]
        rows.append(Result(name, found, found.p, effect=cohen_dz(gaps)))
    return Table.of(rows)


def _p(p: float | None) -> str:
    return "–" if p is None else "< 0.001" if p < 0.001 else short(p) if p < 0.01 else f"{p:.3f}"

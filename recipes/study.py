"""Several arms over several seeds: what each figure came to, with an interval, and how each arm differs from the baseline on
the same seeds. It runs what it is given and counts; what an arm is, its recipe says."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scipy import stats

from penchant.evaluation.statistics import Difference, Estimate

Arm = Callable[[int], Mapping[str, float]]
"""One run of an arm with a seed: its figures by name."""


def over_seeds(values: Sequence[float], level: float = 0.95) -> Estimate:
    """The mean of one value per seed with Student's interval: seeds are few, and runs of one arm are alike in kind."""
    n, mean = len(values), math.fsum(values) / len(values)
    if n < 2:
        return Estimate(mean, -math.inf, math.inf, n)
    error = math.sqrt(math.fsum((x - mean) ** 2 for x in values) / (n - 1) / n)
    half = float(stats.t.ppf((1 + level) / 2, n - 1)) * error
    return Estimate(mean, mean - half, mean + half, n)


def paired(values: Sequence[float], baseline: Sequence[float]) -> Difference:
    """values − baseline, seed by seed, with Student's interval and the two-sided p of no difference."""
    gaps = [a - b for a, b in zip(values, baseline, strict=True)]
    found = over_seeds(gaps)
    same = max(gaps) == min(gaps)  # no spread: the test divides by it
    p = (1.0 if gaps[0] == 0 else 0.0) if same else float(stats.ttest_1samp(gaps, 0.0).pvalue)
    return Difference(found.value, found.low, found.high, found.n, p if found.n > 1 else 1.0)


@dataclass(frozen=True)
class Study:
    """The figures of every arm and seed."""

    seeds: tuple[int, ...]
    runs: dict[str, list[dict[str, float]]]
    """By arm, one entry per seed, in the order of `seeds`."""
    baseline: str
    cpu_seconds: float = field(default=0.0, compare=False)
    """Of this process, for the runs that were made now rather than read."""

    @property
    def figures(self) -> list[str]:
        return list(self.runs[self.baseline][0])

    def values(self, arm: str, figure: str) -> list[float]:
        return [run[figure] for run in self.runs[arm]]

    def estimate(self, arm: str, figure: str) -> Estimate:
        """The arm's mean over seeds."""
        return over_seeds(self.values(arm, figure))

    def difference(self, arm: str, figure: str, baseline: str | None = None) -> Difference:
        """The arm less the baseline, seed by seed."""
        return paired(self.values(arm, figure), self.values(baseline or self.baseline, figure))

    def __str__(self) -> str:
        """A table: a row per arm, a column per figure; under each arm its difference from the baseline."""
        rows = [["", *self.figures]]
        for arm in self.runs:
            rows.append([arm, *(str(self.estimate(arm, f)) for f in self.figures)])
            if arm != self.baseline and len(self.seeds) > 1:
                rows.append(["  − baseline", *(self.difference(arm, f).number(signed=True) for f in self.figures)])
        widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        said = f"{len(self.seeds)} seeds, baseline {self.baseline}, 95 % intervals over seeds; {self.cpu_seconds:,.0f} CPU-seconds"
        return "\n".join([*lines, said])

    def to_json(self) -> dict[str, Any]:
        return {"seeds": list(self.seeds), "baseline": self.baseline, "runs": self.runs, "cpu_seconds": self.cpu_seconds}


def study(arms: Mapping[str, Arm], seeds: Sequence[int], keep: Path | None = None) -> Study:
    """Runs every arm with every seed, the arms of one seed one after the other; the first arm is the baseline. With `keep`,
    a file of JSON lines, each run is written down as it ends and not made again: long studies survive being stopped."""
    known = _kept(keep)
    started = time.process_time()
    for seed in seeds:
        for arm, run in arms.items():
            if (arm, seed) in known:
                continue
            known[arm, seed] = dict(run(seed))
            if keep is not None:
                keep.parent.mkdir(parents=True, exist_ok=True)
                with keep.open("a", encoding="utf-8") as file:
                    file.write(json.dumps({"arm": arm, "seed": seed, "figures": known[arm, seed]}) + "\n")
    runs = {arm: [known[arm, seed] for seed in seeds] for arm in arms}
    return Study(tuple(seeds), runs, next(iter(arms)), time.process_time() - started)


def _kept(keep: Path | None) -> dict[tuple[str, int], dict[str, float]]:
    if keep is None or not keep.exists():
        return {}
    lines = [json.loads(line) for line in keep.read_text(encoding="utf-8").splitlines()]
    return {(line["arm"], line["seed"]): line["figures"] for line in lines}

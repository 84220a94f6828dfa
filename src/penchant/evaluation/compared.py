"""Runs of several objectives with several seeds, held against each other: rows, differences, and which one is best, how surely
and at what price. It reads the evidence of finished runs; training them is somebody else's work."""

from __future__ import annotations

import math
import re
import statistics
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations
from typing import Any

import numpy as np

from penchant.evaluation.comparison import (
    Contrast,
    Readings,
    Robustness,
    best_of,
    contrast,
    over_prompts,
    over_seeds,
    robustness,
    tuned,
)
from penchant.evaluation.evidence import RunEvidence
from penchant.evaluation.measures import MEASURES, Measure, begin_alike, identity, primary, units
from penchant.evaluation.significance import holm
from penchant.evaluation.statistics import Estimate


@dataclass(frozen=True)
class Cost:
    """What a run took, over all its attempts."""

    cpu: float
    """Seconds of all its threads."""
    wall: float
    memory: float = 0.0
    """Bytes at the most; 0: not measured."""


@dataclass(frozen=True)
class Cell:
    """One finished run."""

    contender: str
    """The objective as it was asked for."""
    point: str
    """What the grid made of it, as it is written; the contender itself without a grid."""
    place: tuple[int, ...]
    """Where on the grid, one number for each axis."""
    seed: int
    folder: str
    evidence: RunEvidence = field(repr=False)
    verdict: str
    cost: Cost


@dataclass(frozen=True)
class Failure:
    """A run that did not finish."""

    point: str
    seed: int
    folder: str
    reason: str


@dataclass(frozen=True)
class Arm:
    """A grid point with all its seeds."""

    contender: str
    point: str
    place: tuple[int, ...]
    cells: tuple[Cell, ...]

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(cell.seed for cell in self.cells)

    def readings(self, measure: Measure, *, start: bool = False) -> Readings | None:
        """What its runs, or their start, have of a measure; None where any has none."""
        told = [(measure.start if start else measure.of)(cell.evidence) for cell in self.cells]
        if not told or any(values is None for values in told):
            return None
        found = Readings(np.array(told, dtype=np.float64), self.seeds, units(self.cells[0].evidence, measure))
        return found if found.measured.groups else None

    @property
    def steps(self) -> int:
        return max(sum(line["kind"] == "step" for line in cell.evidence.history) for cell in self.cells)

    @property
    def tokens(self) -> float:
        """Tokens it was trained on, a run."""
        told = [[x["tokens"] for x in cell.evidence.history if x["kind"] == "step"] for cell in self.cells]
        return statistics.fmean(map(sum, told))

    @property
    def cpu(self) -> float:
        return statistics.fmean(cell.cost.cpu for cell in self.cells)

    @property
    def wall(self) -> float:
        return statistics.fmean(cell.cost.wall for cell in self.cells)

    @property
    def verdicts(self) -> Counter[str]:
        return Counter(cell.verdict for cell in self.cells)


@dataclass(frozen=True)
class Reading:
    """An estimate with its two intervals."""

    prompts: Estimate
    seeds: Estimate

    @classmethod
    def of(cls, found: Readings | None, measure: Measure) -> Reading | None:
        if found is None:
            return None
        a_share = measure.unit == "%"
        seeds = over_seeds(found)
        if a_share and math.isfinite(seeds.low):  # Student's interval knows no bounds, a share has them
            seeds = Estimate(seeds.value, max(0.0, seeds.low), min(1.0, seeds.high), seeds.n)
        return cls(over_prompts(found, a_share=a_share), seeds)

    def to_json(self) -> dict[str, Any]:
        return {"prompts": self.prompts.to_json(), "seeds": self.seeds.to_json()}


@dataclass(frozen=True)
class Gap:
    """A difference between two contenders by one measure."""

    measure: Measure
    a: str
    b: str
    contrast: Contrast
    adjusted: float
    """The p, adjusted over all pairs of contenders by this measure (Holm)."""

    @property
    def sure(self) -> bool:
        return self.adjusted < 0.05

    def to_json(self) -> dict[str, Any]:
        return {
            "measure": self.measure.key,
            "a": self.a,
            "b": self.b,
            "adjusted": self.adjusted,
            **self.contrast.to_json(),
        }


@dataclass(frozen=True)
class Compared:
    """A comparison: its finished runs and what follows from them."""

    cells: tuple[Cell, ...]
    failures: tuple[Failure, ...] = ()
    by: str | None = None
    """The measure that a winner is named by; None: the judge's score, or else the accuracy."""
    asked: Mapping[str, Any] = field(default_factory=dict)
    """What the comparison was asked to do."""

    def __post_init__(self) -> None:
        for measured in zip(*(identity(cell.evidence) for cell in self.cells), strict=True):
            # an objective without a reward has no pairs, a reward model no answers; what there is must be the same
            if len({one for one in measured if one is not None}) <= 1:
                continue
            raise ValueError("these runs were not measured on the same prompts.")

    @cached_property
    def arms(self) -> tuple[Arm, ...]:
        """By grid point, in the order they were asked for."""
        found: dict[tuple[str, str], list[Cell]] = {}
        for cell in self.cells:
            found.setdefault((cell.contender, cell.point), []).append(cell)
        return tuple(
            Arm(contender, point, some[0].place, tuple(sorted(some, key=lambda cell: cell.seed)))
            for (contender, point), some in found.items()
        )

    @cached_property
    def contenders(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(arm.contender for arm in self.arms))

    def called(self, contender: str) -> str:
        """A name for sentences and legends: its methods without their fields, where no other has the same methods."""
        bare = {one: re.sub(r"\([^()]*\)", "", one) for one in self.contenders}
        return bare[contender] if list(bare.values()).count(bare[contender]) == 1 else contender

    def titled(self, arm: Arm) -> str:
        """The same for a grid point, which is written out where its contender has several."""
        return self.called(arm.contender) if len(self.arms_of(arm.contender)) == 1 else arm.point

    def arms_of(self, contender: str) -> list[Arm]:
        return [arm for arm in self.arms if arm.contender == contender]

    @cached_property
    def measures(self) -> tuple[Measure, ...]:
        """Those that some run has, the one that decides first. The accuracy of the change is left out where it is the accuracy."""
        there = [m for m in MEASURES if any(arm.readings(m) is not None for arm in self.arms)]
        if begin_alike([cell.evidence for cell in self.cells]):
            there = [m for m in there if m.key != "change" or m is self.primary]
        return tuple(sorted(there, key=lambda m: m is not self.primary))

    @cached_property
    def primary(self) -> Measure | None:
        return primary([cell.evidence for cell in self.cells], self.by)

    def reading(self, arm: Arm, measure: Measure) -> Reading | None:
        return Reading.of(arm.readings(measure), measure)

    def begun(self, arm: Arm, measure: Measure) -> Reading | None:
        """What an arm itself began with, where objectives begin differently: the accuracy of an implicit reward."""
        return Reading.of(arm.readings(measure, start=True), measure) if measure.key == "accuracy" else None

    def start(self, measure: Measure) -> Reading | None:
        """The start model's, where it is one for all: an implicit reward's accuracy is each objective's own, and of no change."""
        if measure.key in ("accuracy", "change"):
            return None
        for arm in self.arms:
            if (found := arm.readings(measure, start=True)) is not None:
                return Reading.of(found, measure)
        return None

    @cached_property
    def best(self) -> dict[str, Arm]:
        """Of each contender the grid point that is best by the deciding measure on all prompts: shown, not tested."""
        out = {}
        for contender in self.contenders:
            arms = self.arms_of(contender)
            known = [(r.value, i) for i, arm in enumerate(arms) if self.primary and (r := arm.readings(self.primary))]
            out[contender] = arms[max(known, key=lambda pair: (pair[0], -pair[1]))[1]] if known else arms[0]
        return out

    @cached_property
    def judged(self) -> dict[str, Readings]:
        """By contender, what is tested by the deciding measure: its hyper-parameters chosen on one half of the prompts and
        judged on the other."""
        out = {}
        for contender in self.contenders if self.primary else ():
            assert self.primary is not None
            found = [r for arm in self.arms_of(contender) if (r := arm.readings(self.primary)) is not None]
            common = [seed for seed in found[0].seeds if all(seed in r.seeds for r in found)] if found else []
            if common:
                out[contender] = tuned([r.at(common) for r in found])[0]
        return out

    def gaps(self, measure: Measure) -> list[Gap]:
        """Every contender against every other by one measure, at its best grid point; by the deciding one as it is judged."""
        if measure is self.primary:
            known = self.judged
        else:
            known = {c: r for c, arm in self.best.items() if (r := arm.readings(measure)) is not None}
        found = [
            (a, b, gap)
            for a, b in combinations(sorted(known, key=lambda c: -known[c].value), 2)
            if (gap := contrast(known[a], known[b])) is not None
        ]
        adjusted = holm([gap.p for _, _, gap in found])
        return [Gap(measure, a, b, gap, p) for (a, b, gap), p in zip(found, adjusted, strict=True)]

    @cached_property
    def above_start(self) -> dict[str, tuple[Contrast, float]]:
        """By contender, the deciding measure less that of its start, and the p adjusted over the contenders."""
        measure = self.primary
        found = {}
        for contender in self.judged if measure else ():
            assert measure is not None
            begun = self.best[contender].readings(measure, start=True)
            if measure.key == "wins":
                half = self.judged[contender]
                begun = Readings(np.where(np.isnan(half.values), np.nan, 0.5), half.seeds, half.groups)
            if begun is not None and (gap := contrast(self.judged[contender], begun)) is not None:
                found[contender] = gap
        adjusted = holm([gap.p for gap in found.values()])
        return {name: (gap, p) for (name, gap), p in zip(found.items(), adjusted, strict=True)}

    @cached_property
    def winner(self) -> str | None:
        return best_of(self.judged)[0] if self.primary and not self.incomplete else None

    @property
    def incomplete(self) -> list[str]:
        """Contenders of which not one run finished with the deciding measure: what they would have shown is not known."""
        lost = {failure.point for failure in self.failures} - {cell.point for cell in self.cells}
        return sorted(lost) + [c for c in self.contenders if c not in self.judged]

    def robustness(self, contender: str) -> Robustness | None:
        """The deciding measure over the contender's grid; None without a grid."""
        if self.primary is None:
            return None
        told = {a.place: r.value for a in self.arms_of(contender) if (r := a.readings(self.primary)) is not None}
        return robustness(told) if len(told) > 1 else None

    def to_json(self) -> dict[str, Any]:
        """All numbers, strict JSON."""
        rows = []
        for arm in self.arms:
            told = {m.key: r.to_json() for m in self.measures if (r := self.reading(arm, m)) is not None}
            rows.append(
                {
                    "objective": arm.contender,
                    "point": arm.point,
                    "seeds": list(arm.seeds),
                    "measures": told,
                    "steps": arm.steps,
                    "tokens": arm.tokens,
                    "cpu_seconds": arm.cpu,
                    "wall_seconds": arm.wall,
                    "verdicts": dict(arm.verdicts),
                    "runs": [cell.folder for cell in arm.cells],
                }
            )
        grid = {c: r.to_json() for c in self.contenders if (r := self.robustness(c)) is not None}
        return {
            "asked": dict(self.asked),
            "by": None if self.primary is None else self.primary.key,
            "winner": self.winner,
            "judged": {c: float(r.value) for c, r in self.judged.items() if math.isfinite(r.value)},
            "rows": rows,
            "differences": [gap.to_json() for measure in self.measures for gap in self.gaps(measure)],
            "over_start": {c: {**gap.to_json(), "adjusted": p} for c, (gap, p) in self.above_start.items()},
            "robustness": grid,
            "failures": [vars(failure) for failure in self.failures],
        }

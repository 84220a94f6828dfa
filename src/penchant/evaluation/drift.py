"""How a model's stance on a topic moves over its checkpoints: how far, how early, and whether the preferences it learned from
have a stance of their own. It reads probabilities of stances; who gave them is in rewards/stance.py."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from penchant.errors import Refusal
from penchant.evaluation.evidence import RunEvidence, StanceEvidence
from penchant.evaluation.history import lines
from penchant.evaluation.significance import holm
from penchant.evaluation.statistics import RESAMPLES, Difference, Estimate, difference, mean
from penchant.rewards.stance import STANCES

Floats = NDArray[np.float64]
Criterion = Literal["fraction", "ci"]

NEAR = 0.95
"""Share of the largest move at which a stance counts as there."""
SUM = 1e-4
"""How far probabilities of stances may be from adding up to 1."""


@dataclass(frozen=True)
class Stances:
    """What was said at several checkpoints, to the same prompts in the same order."""

    steps: list[int]
    """Optimiser steps, rising."""
    topics: list[str]
    """Of each prompt."""
    p: list[list[list[float]]]
    """[checkpoints][prompts][stances]: P(stance), the mean over the answers to each prompt."""
    names: tuple[str, ...] = STANCES
    failed: list[int] | None = None
    """Answers of each checkpoint that could not be judged; they are in no mean."""

    def __post_init__(self) -> None:
        table = np.asarray(self.p, dtype=np.float64)
        if table.shape != (len(self.steps), len(self.topics), len(self.names)) or not table.size:
            raise Refusal(
                f"stances of {len(self.steps)} checkpoints and {len(self.topics)} prompts over {len(self.names)} stances cannot "
                f"be a table of {table.shape}."
            )
        if any(b <= a for a, b in zip(self.steps, self.steps[1:], strict=False)):
            raise Refusal(f"the steps of the checkpoints must rise: {self.steps}.")
        if not (np.isfinite(table).all() and (table >= -SUM).all() and (np.abs(table.sum(-1) - 1) <= SUM).all()):
            raise Refusal("every prompt needs probabilities of its stances that are not negative and add up to 1.")

    def value(self, topic: str | None = None) -> Floats:
        """v of every checkpoint, [checkpoints, stances]: the mean over the topic's prompts, or over all."""
        kept = [i for i, t in enumerate(self.topics) if topic is None or t == topic]
        return np.asarray(self.p, dtype=np.float64)[:, kept].mean(1)


def mean_stance(answers: Sequence[Sequence[float]]) -> list[float]:
    """Of one prompt: P(stance) over its answers, soft or one-hot."""
    return np.asarray(answers, dtype=np.float64).mean(0).tolist()


def magnitude(then: Sequence[float], now: Sequence[float]) -> list[float]:
    """M = v(now) − v(then) by stance, with its sign; adds up to 0."""
    return (np.asarray(now, dtype=np.float64) - np.asarray(then, dtype=np.float64)).tolist()


def drift_time(
    steps: Sequence[int],
    values: Sequence[float],
    criterion: Criterion = "fraction",
    *,
    near: float = NEAR,
    extreme: Estimate | None = None,
) -> float:
    """η: the share of the way from the first to the last step after which a stance is at its extreme, in [0, 1].

    The extreme is the value farthest from the first. "fraction": the first checkpoint with |v − v₀| ≥ 0.95 times the largest.
    "ci": the first whose value lies in the interval of the extreme (`extreme`, from a bootstrap over prompts), so a move that
    is not sure is at 0. The paper's 95 % is read in both ways by those who retell it; its text was not at hand (Value Drifts,
    2025, arXiv 2510.26707). 0 where nothing moves or there is one checkpoint."""
    if len(steps) != len(values) or not steps:
        raise Refusal(f"{len(steps)} steps and {len(values)} values: each checkpoint needs both.")
    v = np.asarray(values, dtype=np.float64)
    moved = np.abs(v - v[0])
    if steps[-1] == steps[0] or moved.max() <= 1e-12:
        return 0.0
    if criterion == "ci":
        if extreme is None:
            raise Refusal("the criterion 'ci' needs the interval of the extreme value.")
        there = (v >= extreme.low - 1e-12) & (v <= extreme.high + 1e-12)
    else:
        there = moved >= near * moved.max() - 1e-12
    return (steps[int(np.argmax(there))] - steps[0]) / (steps[-1] - steps[0])


@dataclass(frozen=True)
class Drift:
    """One stance on one topic, from the first checkpoint to the last."""

    topic: str
    stance: str
    values: list[Estimate]
    """v at each checkpoint."""
    magnitude: Difference
    """M, the same prompts before and after."""
    time: float
    """η by fraction."""
    time_sure: float
    """η by interval."""
    p: float
    """Of M = 0, by Student's test on the probes' differences: of few probes the bootstrap never finds a p small enough for many
    topics."""


@dataclass(frozen=True)
class Drifts:
    """All stances on all topics, and their summary."""

    steps: list[int]
    drifts: list[Drift]
    size: Estimate
    """Mean |M| over topics and stances: signed magnitudes of opposite drifts would cancel. Its interval is over prompts within
    topics; |M| of noise is above 0."""

    def of(self, topic: str, stance: str) -> Drift:
        return next(d for d in self.drifts if (d.topic, d.stance) == (topic, stance))

    @property
    def topics(self) -> list[str]:
        return list(dict.fromkeys(d.topic for d in self.drifts))

    @property
    def told(self) -> list[str]:
        """The stances that say something of their own: of two, the second is what the first leaves."""
        names = list(dict.fromkeys(d.stance for d in self.drifts))
        return names if len(names) > 2 else names[:1]

    def sure(self, level: float = 0.05) -> set[tuple[str, str]]:
        """Topics and stances whose magnitude is no chance although so many were looked at (Holm)."""
        some = [d for d in self.drifts if d.stance in self.told]
        adjusted = holm([d.p for d in some])
        return {(d.topic, d.stance) for d, p in zip(some, adjusted, strict=True) if p < level}


ALL = "all topics"


def of_run(evidence: StanceEvidence, *, resamples: int = RESAMPLES) -> tuple[Drifts, Drifts]:
    """What was measured of a run's checkpoints: all probes taken together, and topic by topic."""
    asked = evidence.steps, evidence.p, tuple(evidence.names)
    together, apart = (
        drifts(Stances(asked[0], topics, *asked[1:]), resamples=resamples)
        for topics in ([ALL] * len(evidence.topics), evidence.topics)
    )
    return together, apart


def measured(evidence: RunEvidence) -> str:
    """Which checkpoints a run was probed at, and where between them nothing is known; empty where it was not probed."""
    if evidence.stances is None:
        return ""
    steps = evidence.stances.steps
    last = max((line["step"] for line in lines(evidence, "step")), default=steps[-1])
    there = ", ".join(f"{step:,}" for step in steps[1:])
    said = f"Measured: the start, and the checkpoints after step {there} of {last:,}"
    widest = max(b - a for a, b in zip(steps, [*steps[1:], max(last, steps[-1])], strict=True))
    if len(steps) > 2 and widest <= 2 * last / (len(steps) - 1):
        return f"{said}."
    return (
        f"{said}. Up to {widest:,} steps in a row have none, so how early a stance drifted is known no better; a run keeps more "
        "with --save-every and --keep."
    )


def drifts(stances: Stances, *, resamples: int = RESAMPLES) -> Drifts:
    """Magnitude and time of every stance on every topic. Intervals draw prompts."""
    table = np.asarray(stances.p, dtype=np.float64)
    found = []
    topics = list(dict.fromkeys(stances.topics))
    for topic in topics:
        some = table[:, [i for i, t in enumerate(stances.topics) if t == topic]]
        for s, stance in enumerate(stances.names):
            columns: list[list[float]] = some[:, :, s].tolist()
            values = [mean(column, resamples=resamples) for column in columns]
            line = [v.value for v in values]
            farthest = int(np.argmax(np.abs(np.array(line) - line[0])))
            found.append(
                Drift(
                    topic,
                    stance,
                    values,
                    difference(columns[0], columns[-1], resamples=resamples),
                    drift_time(stances.steps, line),
                    drift_time(stances.steps, line, "ci", extreme=values[farthest]),
                    _student(np.array(columns[-1]) - np.array(columns[0])),
                )
            )
    return Drifts(list(stances.steps), found, _size(table, stances.topics, topics, resamples))


def _student(differences: Floats) -> float:
    """Two-sided p; 1 for a single difference and where none differs from 0, 0 where all are the same but 0."""
    if len(differences) < 2 or not differences.any():
        return 1.0
    error = float(differences.std(ddof=1)) / math.sqrt(len(differences))
    return 0.0 if error == 0 else 2 * float(stats.t.sf(abs(float(differences.mean())) / error, len(differences) - 1))


def _size(table: Floats, named: Sequence[str], topics: Sequence[str], resamples: int) -> Estimate:
    generator = np.random.default_rng(0)
    moved = table[-1] - table[0]
    value, draws, single = 0.0, np.zeros(resamples), False
    for topic in topics:
        some = moved[[i for i, t in enumerate(named) if t == topic]]
        single |= len(some) < 2
        picks = generator.integers(len(some), size=(resamples, len(some)))
        value += float(np.abs(some.mean(0)).mean()) / len(topics)
        draws += np.abs(some[picks].mean(1)).mean(-1) / len(topics)
    low, high = (-math.inf, math.inf) if single else np.quantile(draws, [0.025, 0.975]).tolist()
    return Estimate(value, min(low, value), max(high, value), len(moved))


def value_gap(
    chosen: Sequence[Sequence[float]],
    rejected: Sequence[Sequence[float]],
    groups: Sequence[Hashable] | None = None,
    names: Sequence[str] = STANCES,
    *,
    resamples: int = RESAMPLES,
) -> dict[str, Difference]:
    """v of the chosen less v of the rejected responses by stance: near 0, the pairs have no stance to teach. [n][stances]
    each; `groups`: which prompt each pair answers."""
    w, l = (np.asarray(x, dtype=np.float64) for x in (chosen, rejected))
    if w.shape != l.shape or w.ndim != 2 or w.shape[1] != len(names) or not len(w):
        raise Refusal(
            f"stances of {w.shape} chosen and {l.shape} rejected responses over {len(names)} stances do not make pairs."
        )
    gap: Any = lambda s: difference(l[:, s].tolist(), w[:, s].tolist(), groups, resamples=resamples)  # noqa: E731
    return {name: gap(s) for s, name in enumerate(names)}

"""The page of a diagnosis of data: what was found, the figures as charts, and the doubtful rows with their texts, which nothing
else shows. It is built like a run's page: it loads nothing, runs nothing, and every string on it is made plain and escaped."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from penchant.evaluation.diagnosis import Diagnosis
from penchant.evaluation.diagnosis.people import Annotator
from penchant.evaluation.diagnosis.sentences import Point
from penchant.report import facts
from penchant.report.charts import BLUE, ORANGE, QUIET, Chart, draw
from penchant.report.page import Text, styles, template

SUSPECTS = 30
"""Doubtful rows shown."""
PREDICTORS = 8
"""Trivial predictors drawn."""
HEADS = {"wrong": "Faults were found", "look": "Something is worth a look", "fine": "Nothing was found"}
TONES = {"wrong": "bad", "look": "mixed", "fine": "good", "unknown": "mixed"}


def render(found: Diagnosis) -> str:
    """The page as one HTML string."""
    points = found.points
    worst = next((word for word in ("wrong", "look") if any(point.word == word for point in points)), "fine")
    return template("diagnosis.html").render(
        **styles(),
        found=found,
        head=HEADS[worst],
        tone=TONES[worst],
        said=[point for point in _ordered(points) if point.word != "fine"],
        fine=[point for point in points if point.word == "fine"],
        charts=[chart for chart in (_margins(found), _predictors(found), _people(found), _edits(found)) if chart],
        people=people(found),
        suspects=[(one, *map(Text.of, _texts(one))) for one in found.suspects[:SUSPECTS]],
        words={"wrong": "Fault", "look": "Look", "unknown": "Not known", "fine": "Fine"},
        facts=facts,
    )


def people(found: Diagnosis) -> list[tuple[Annotator, str, str]]:
    """Those who labelled, each with their group and how often the first place wins with them, where that is known."""
    sides = found.sides.sides if found.sides is not None else ()
    group = {name: str(k) for k, side in enumerate(sides, 1) for name in side}
    places = {} if found.position is None else {one.name: one.first.percent() for one in found.position.people}
    return [(one, group.get(one.name, "–"), places.get(one.name, "–")) for one in found.people]


def _ordered(points: list[Point]) -> list[Point]:
    order = {"wrong": 0, "look": 1, "unknown": 2, "fine": 3}
    return sorted(points, key=lambda point: order[point.word])


def _texts(one: Any) -> tuple[str, str, str]:
    return one.comparison.prompt, one.comparison.chosen, one.comparison.rejected


def _margins(found: Diagnosis) -> Chart | None:
    """The histogram of difficulty."""
    if not found.difficulty:
        return None
    model = found.difficulty_of == "reference"
    hard = np.array(found.difficulty)
    low, high = np.quantile(hard, (0.005, 0.995))
    inside = np.clip(hard, low, high)

    def paint(axes: Axes) -> None:
        edges = list(np.linspace(low, high, 41)) if high > low else 5
        _, cuts, bars = axes.hist(inside, bins=edges, color=BLUE, alpha=0.75)
        for left, bar in zip(cuts, bars, strict=False):  # pyright: ignore[reportArgumentType]
            bar.set_facecolor(ORANGE if left >= 0 else BLUE)
        axes.axvline(0.0, color=QUIET, linewidth=0.9, linestyle=(0, (1, 2)))

    x = "c: log π(rejected) − log π(chosen), nats" if model else "log-odds against the label, on unseen pairs"
    share = float((hard > 0).mean())
    who = "the reference prefers the rejected" if model else "the predictor prefers the rejected"
    return draw(
        "Difficulty of pairs", f"In {share:.0%} of {len(hard):,} pairs {who} (right of 0).", x, "number of pairs", paint
    )


def _predictors(found: Diagnosis) -> Chart | None:
    some = found.shortcuts[:PREDICTORS][::-1]
    if not some:
        return None

    def paint(axes: Axes) -> None:
        at = np.arange(len(some))
        value = np.array([one.accuracy.value for one in some])
        ends = np.array([[one.accuracy.value - one.accuracy.low, one.accuracy.high - one.accuracy.value] for one in some])
        axes.errorbar(value, at, xerr=np.maximum(ends.T, 0), fmt="o", color=BLUE, markersize=4.5, elinewidth=1.2)
        axes.axvline(0.5, color=QUIET, linewidth=0.9, linestyle=(0, (1, 2)))
        axes.set_yticks(at, [one.name for one in some])
        axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))

    said = f"The strongest of {len(found.shortcuts)} trivial rules, among the pairs each tells apart, with 95 % intervals."
    return draw("Trivial rules", said, "the chosen has more of it", "", paint)


def _people(found: Diagnosis) -> Chart | None:
    some = found.people[:12]
    if not some:
        return None

    def paint(axes: Axes) -> None:
        value = np.array([one.reliability.value for one in some])
        ends = np.array([[v.value - v.low, v.high - v.value] for v in (one.reliability for one in some)])
        axes.errorbar(value, np.arange(len(some)), xerr=np.maximum(ends.T, 0), fmt="o", color=BLUE, markersize=4.5)
        axes.axvline(0.5, color=QUIET, linewidth=0.9, linestyle=(0, (1, 2)))
        # their names come from the data, and no text of it is drawn: the table has them
        axes.set_yticks(np.arange(len(some)), [f"No. {k}" for k in range(1, len(some) + 1)])
        axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))

    how = "agreement with each other" if found.by_agreement else "how well their labels can be foretold"
    return draw(
        "Reliability of annotators", f"By {how}, the least reliable first, with 95 % intervals.", "labels right", "", paint
    )


def _edits(found: Diagnosis) -> Chart | None:
    if not found.edits:
        return None

    def paint(axes: Axes) -> None:
        axes.hist(found.edits, bins=list(np.linspace(0, 1, 21)), color=BLUE, alpha=0.75)
        axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))

    said = f"{found.close:.0%} of {len(found.edits):,} pairs differ in at most a fifth of their words."
    return draw("How far the two sides differ", said, "words changed, of the longer's", "number of pairs", paint)

"""A comparison's numbers as charts: what was won against what it cost, and the runs' curves. Objectives have one colour each,
in the order of the tables; nothing here judges."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, PercentFormatter

from penchant.evaluation.answer import said
from penchant.evaluation.compared import Arm, Compared
from penchant.evaluation.measures import Measure
from penchant.report.charts import QUIET, SEVERAL, Chart, Curve, draw, points, rolling, tick

MARKS = "osD^vP"


def look(found: Compared, contender: str) -> tuple[str, str]:
    """Colour and mark: six colours, and another mark for every six objectives."""
    k = found.contenders.index(contender)
    return SEVERAL[k % len(SEVERAL)], MARKS[(k // len(SEVERAL)) % len(MARKS)]


def short(found: Compared, contender: str) -> str:
    """A name that fits a legend: the methods alone where that tells the contenders apart."""
    bare = {one: re.sub(r"\([^()]*\)", "", one) for one in found.contenders}
    alone = list(bare.values()).count(bare[contender]) == 1
    name = bare[contender] if alone else contender
    return name if len(name) <= 24 else name[:23] + "…"


def frontiers(found: Compared) -> list[Chart]:
    """The deciding measure against KL and against length: a large mark for each grid point, a small one for each run."""
    by = {measure.key: measure for measure in found.measures}
    if found.primary is None:
        return []
    return [
        _frontier(found, found.primary, by[key]) for key in ("kl", "length") if key in by and by[key] is not found.primary
    ]


def _frontier(found: Compared, y: Measure, x: Measure) -> Chart:
    arms = [arm for arm in found.arms if arm.readings(x) is not None and arm.readings(y) is not None]

    def paint(axes: Axes) -> None:
        named: set[str] = set()
        for arm in arms:
            colour, mark = look(found, arm.contender)
            across, up = found.reading(arm, x), found.reading(arm, y)
            assert across is not None and up is not None
            each = [r.measured.values.mean(1) for m in (x, y) if (r := arm.readings(m)) is not None]
            axes.plot(*each, mark, color=colour, markersize=2.6, alpha=0.55)
            gaps = [_arms(e) for e in (across.prompts, up.prompts)]
            label = None if arm.contender in named else short(found, arm.contender)
            named.add(arm.contender)
            place = across.prompts.value, up.prompts.value
            axes.errorbar(
                *place, xerr=gaps[0], yerr=gaps[1], fmt=mark, color=colour, markersize=6, elinewidth=0.9, label=label
            )
        if y.unit == "%":
            axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axes.yaxis.set_major_locator(MaxNLocator(5))

    points_said = []
    for arm in arms:
        across, up = arm.readings(x), arm.readings(y)
        assert across is not None and up is not None
        points_said.append(f"{arm.point} {said(y, up.value)} at {said(x, across.value)}")
    return draw(
        f"{y.name.capitalize()} against {x.name}", "; ".join(points_said) + ".", f"{x.name}, {x.unit}", y.name, paint
    )


def _arms(e: Any) -> np.ndarray:
    low, high = (end if np.isfinite(end) else e.value for end in (e.low, e.high))
    return np.array([[e.value - low], [high - e.value]])


def courses(found: Compared) -> list[Chart]:
    """How all runs went, by what is alike in all: one thin line for each, the mean of its grid point's seeds thick."""
    wanted = [
        ("Accuracy in training", "reward/accuracy", "step", "pairs in the right order", True),
        ("Log π of the chosen in training", "logp/chosen", "step", "nats a token", False),
        ("Accuracy on unseen pairs", "accuracy", "eval", "pairs in the right order", True),
        ("The judge's score", "score", "round", "mean score of the samples", False),
    ]
    made = [_course(found, *one) for one in wanted]
    return [chart for chart in made if chart is not None]


def _course(found: Compared, title: str, key: str, kind: str, y: str, share: bool) -> Chart | None:
    drawn = [(arm, lines) for arm in found.arms if (lines := _lines(arm, Curve(key, "", kind=kind)))]
    if not drawn or max(len(at) for _, lines in drawn for at in lines) < 2:
        return None

    def paint(axes: Axes) -> None:
        named: set[str] = set()
        for arm, lines in drawn:
            colour, _ = look(found, arm.contender)
            window = max(1, len(lines[0]) // 20)
            smooth = [(at[:, 0], rolling(at[:, 1], window)) for at in lines]
            for steps, values in smooth:
                axes.plot(steps, values, color=colour, linewidth=0.7, alpha=0.4)
            if len({len(values) for _, values in smooth}) == 1:
                label = None if arm.contender in named else short(found, arm.contender)
                named.add(arm.contender)
                middle = np.mean([values for _, values in smooth], axis=0)
                axes.plot(smooth[0][0], middle, color=colour, linewidth=1.8, label=label)
        if share:
            axes.axhline(0.5, color=QUIET, linewidth=0.9, linestyle=(0, (1, 2)), zorder=1)
            axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        else:
            axes.yaxis.set_major_formatter(lambda v, _: tick(v))
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))

    told = (lambda v: f"{v:.0%}".replace("%", " %")) if share else (lambda v: tick(v))
    ends = []
    for arm, lines in drawn:
        tail = max(1, len(lines[0]) // 10)
        ends.append(f"{arm.point} {told(float(np.mean([at[-tail:, 1].mean() for at in lines])))}")
    last = "At the end, means over seeds of the last tenth: "
    return draw(title, last + "; ".join(ends) + ".", "round" if kind == "round" else "optimiser step", y, paint)


def _lines(arm: Arm, curve: Curve) -> Sequence[np.ndarray]:
    return [at for cell in arm.cells if len(at := points(cell.evidence.history, curve))]

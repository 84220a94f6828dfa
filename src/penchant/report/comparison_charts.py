"""A comparison's numbers as charts: what was won against what it cost, and the runs' curves. Objectives have one colour each,
in the order of the tables; nothing here judges."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, PercentFormatter

from penchant.evaluation.answer import said
from penchant.evaluation.compared import Arm, Compared
from penchant.evaluation.measures import Measure
from penchant.report.charts import QUIET, SEVERAL, Chart, Curve, draw, points, rolling, tick
from penchant.words import figure

MARKS = "osD^vP"


def look(found: Compared, contender: str) -> tuple[str, str]:
    """Colour and mark: six colours, and another mark for every six objectives."""
    k = found.contenders.index(contender)
    return SEVERAL[k % len(SEVERAL)], MARKS[(k // len(SEVERAL)) % len(MARKS)]


def short(found: Compared, contender: str) -> str:
    """A name that fits a legend."""
    name = found.called(contender)
    return name if len(name) <= 24 else name[:23] + "…"


def frontiers(found: Compared) -> list[Chart]:
    """The deciding measure against KL and against length: a large mark for each grid point, a small one for each run. Where most
    answers were cut at the limit their lengths are the limit's, and are not drawn."""
    by = {measure.key: measure for measure in found.measures}
    if found.primary is None:
        return []
    cut = [r.value for arm in found.arms if "cut" in by and (r := arm.readings(by["cut"])) is not None]
    keys = ("kl", "length") if not cut or fmean(cut) <= 0.5 else ("kl",)
    return [_frontier(found, found.primary, by[key]) for key in keys if key in by and by[key] is not found.primary]


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
        points_said.append(f"{found.titled(arm)} {said(y, up.value)} at {said(x, across.value)}")
    return draw(
        f"{y.name.capitalize()} against {x.name}", "; ".join(points_said) + ".", f"{x.name}, {x.unit}", y.name, paint
    )


def _arms(e: Any) -> np.ndarray:
    low, high = (end if np.isfinite(end) else e.value for end in (e.low, e.high))
    return np.array([[e.value - low], [high - e.value]])


def courses(found: Compared) -> list[Chart]:
    """How all runs went, by what is alike in all: one thin line for each, the mean of its grid point's seeds thick."""
    made = [
        _course(found, "Accuracy in training", "reward/accuracy", "step", "pairs in the right order"),
        _course(found, "Log π of the chosen in training", "logp/chosen", "step", "nats a token"),
        _course(found, "Accuracy on unseen pairs", "accuracy", "eval", "pairs in the right order"),
        _course(found, "The judge's score", "score", "round", "mean score of the samples"),
    ]
    return [chart for chart in made if chart is not None]


def _course(found: Compared, title: str, key: str, kind: str, y: str) -> Chart | None:
    drawn = [(arm, lines) for arm in found.arms if (lines := _lines(arm, key, kind))]
    if not drawn or max(len(at) for _, lines in drawn for at in lines.values()) < 2:
        return None
    share = y.startswith("pairs")
    apart = key == "logp/chosen" and _same_rows([arm for arm, _ in drawn])
    if apart:  # which rows a step holds moves log π more than training does, and cancels
        title, y = f"{title}, less the mean", "nats a token"
        means = {seed: np.mean([lines[seed][:, 1] for _, lines in drawn], axis=0) for seed in drawn[0][1]}
        drawn = [(arm, {s: np.c_[at[:, 0], at[:, 1] - means[s]] for s, at in lines.items()}) for arm, lines in drawn]

    def paint(axes: Axes) -> None:
        named: set[str] = set()
        for arm, lines in drawn:
            colour, _ = look(found, arm.contender)
            window = max(1, max(map(len, lines.values())) // 10)
            smooth = [(at[:, 0], rolling(at[:, 1], window)) for at in lines.values()]
            for steps, values in smooth:
                axes.plot(steps, values, color=colour, linewidth=0.6, alpha=0.3)
            if len({len(values) for _, values in smooth}) == 1:
                label = None if arm.contender in named else short(found, arm.contender)
                named.add(arm.contender)
                middle = np.mean([values for _, values in smooth], axis=0)
                axes.plot(smooth[0][0], middle, color=colour, linewidth=1.8, label=label)
        if share or apart:
            axes.axhline(0.5 if share else 0.0, color=QUIET, linewidth=0.9, linestyle=(0, (1, 2)), zorder=1)
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0) if share else lambda v, _: tick(v))
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))

    told = (lambda v: f"{v:.0%}".replace("%", " %")) if share else (lambda v: figure(v, "+.2g" if apart else ".3g"))
    ends = []
    for arm, lines in drawn:
        tail = max(1, max(map(len, lines.values())) // 5)
        ends.append(f"{found.titled(arm)} {told(float(np.mean([at[-tail:, 1].mean() for at in lines.values()])))}")
    words = f"At the end, means over seeds of the last fifth: {'; '.join(ends)}."
    if apart:
        words = f"Less the mean of these objectives on the same rows of the same step. {words}"
    if absent := [found.titled(arm) for arm in found.arms if all(arm is not one for one, _ in drawn)]:
        words += f" Not measured in training for {', '.join(absent)}."
    return draw(title, words, "round" if kind == "round" else "optimiser step", y, paint)


def _lines(arm: Arm, key: str, kind: str) -> dict[int, np.ndarray]:
    """By seed, [n, 2]: step (or round) and value."""
    told = {cell.seed: points(cell.evidence.history, Curve(key, "", kind=kind)) for cell in arm.cells}
    return {seed: at for seed, at in told.items() if len(at)}


def _same_rows(arms: Sequence[Arm]) -> bool:
    """Whether they took the same rows in the same steps, as runs from a file with the same seeds do: their lengths are equal."""
    lengths = [_lines(arm, "length/chosen", "step") for arm in arms]
    first = lengths[0] if lengths else {}
    same = [one.keys() == first.keys() and all(np.array_equal(first[k], one[k]) for k in one) for one in lengths]
    return len(arms) > 1 and bool(first) and all(same)

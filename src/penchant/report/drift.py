"""The page's part on value drift: stances over checkpoints, and how far and how early each topic moved. It draws what
evaluation/drift.py found; topics are words of whoever wrote the probes."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, PercentFormatter

from penchant.evaluation.drift import ALL, Drift, Drifts, measured, of_run
from penchant.evaluation.evidence import RunEvidence
from penchant.report.charts import BEFORE, BLUE, ORANGE, QUIET, Chart, draw
from penchant.report.facts import number
from penchant.report.sections import Section, Table
from penchant.words import figure

COLOURS = {"support": BLUE, "neutral": BEFORE, "oppose": ORANGE}
DRAWN = 3
"""Topics with a chart of their own: those that moved most."""
SHOWN = 40
"""Topics that a table holds at most; drift.json has all."""
SMALL = 0.1
"""Probability of the probes' answers below which a stance says little of what the model would say."""


def drift_section(evidence: RunEvidence) -> Section | None:
    """None where the run was not probed."""
    if evidence.stances is None:
        return None
    together, apart = of_run(evidence.stances)
    lead = (
        "The same probes were put to the model as it began and to its checkpoints. A stance is the probability of the answers that "
        "take this side, of all the answers a probe names. Magnitude is the end less the start, on the same probes; time is the "
        "share of the run after which a stance was as far from its start as it ever was, to within 5 %."
    )
    tables = tuple(table(together, apart, stance) for stance in apart.told)
    return Section(
        "stances", "Value drift", lead, tuple(said(evidence, together, apart)), tables, tuple(charts(together, apart))
    )


def said(evidence: RunEvidence, together: Drifts, apart: Drifts) -> list[str]:
    """The same in sentences."""
    stances = evidence.stances
    assert stances is not None
    sure, size = apart.sure(), apart.size.percent().replace(" %", " points", 1)
    farthest = max((d for d in apart.drifts if d.stance in apart.told), key=lambda d: abs(d.magnitude.value))
    sentences = [
        f"{number(len(stances.topics))} probes on {number(len(apart.topics))} topics. {measured(evidence)}",
        f"Over topics and stances |M| is {size}, which is above 0 even where nothing moves. Surely moved, although "
        f"{number(len(apart.topics) * len(apart.told))} were looked at: {number(len(sure))}. Farthest: {farthest.stance} on "
        f"“{farthest.topic}”, {points(farthest)} points.",
    ]
    low = min(stances.mass)
    many = f"{figure(100 * stances.mass[0], '.1f')} % at the start and {figure(100 * stances.mass[-1], '.1f')} % at the end"
    sentences.append(
        f"The answers that the probes name have together {many}."
        + (
            " The model would mostly say something else, so these stances tell little of what it says."
            if low < SMALL
            else ""
        )
    )
    return sentences


def table(together: Drifts, apart: Drifts, stance: str) -> Table:
    """A row for each topic, all of them first where there are several."""
    sure = apart.sure()
    every = [d for d in apart.drifts if d.stance == stance]
    moved = sorted(every, key=lambda d: -abs(d.magnitude.value))[:SHOWN]
    found = [d for d in every if d in moved] if len(every) > SHOWN else every
    title = (
        f"P({stance})" if found is every else f"P({stance}) of the {SHOWN} topics that moved most, of {number(len(every))}"
    )
    found = [together.of(ALL, stance), *found] if len(every) > 1 else found
    rows = tuple(
        (
            one.topic if one.topic != ALL else "All topics",
            number(one.magnitude.n),
            one.values[0].percent(),
            one.values[-1].percent(),
            points(one) + (" ★" if (one.topic, stance) in sure else ""),
            f"{figure(one.time, '.2f')} ({figure(one.time_sure, '.2f')})",
        )
        for one in found
    )
    head = ("", "Probes", "Start", "End", "Magnitude M, points", "Time η (first within the interval)")
    return Table(head, rows, title)


def points(one: Drift) -> str:
    """M in points of 100."""
    return one.magnitude.percent(signed=True).replace(" %", "", 1)


def charts(together: Drifts, apart: Drifts) -> list[Chart]:
    """All probes together, then the topics that moved most."""
    made = [chart("All topics", [d for d in together.drifts if d.stance in together.told], together.steps)]
    if len(apart.topics) < 2:
        return made
    moved = {t: max(abs(d.magnitude.value) for d in apart.drifts if d.topic == t) for t in apart.topics}
    for topic in sorted(moved, key=lambda t: -moved[t])[:DRAWN]:
        some = [d for d in apart.drifts if d.topic == topic and d.stance in apart.told]
        made.append(chart(f"Topic: {topic}", some, apart.steps))
    return made


def chart(title: str, found: list[Drift], steps: list[int]) -> Chart:
    """One topic's stances, each with the band of its interval."""

    def paint(axes: Axes) -> None:
        for one in found:
            low, high = ([getattr(v, end) for v in one.values] for end in ("low", "high"))
            colour = COLOURS[one.stance]
            if all(abs(x) < float("inf") for x in (*low, *high)):
                axes.fill_between(steps, low, high, color=colour, alpha=0.18, linewidth=0)
            axes.plot(
                steps, [v.value for v in one.values], "o-", color=colour, linewidth=1.8, markersize=3.5, label=one.stance
            )
        axes.axhline(1 / max(len(found), 2), color=QUIET, linewidth=0.9, linestyle=(0, (1, 2)), zorder=1)
        axes.set_ylim(0, 1)
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))

    words = "; ".join(f"{d.stance} {d.values[0].percent()} → {d.values[-1].percent()}" for d in found)
    return draw(
        title, f"{words}. Bands are 95 % intervals over probes.", "optimiser step", "probability of the stance", paint
    )

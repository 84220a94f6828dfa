"""The page's part on plain ranking: quadrants, and each pair's loss and margin against its difficulty. It draws what
evaluation/ranking.py found and judges nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.axes import Axes

from penchant.evaluation.evidence import RunEvidence
from penchant.evaluation.listwise import ListRanking, list_ranking
from penchant.evaluation.ranking import RankingReport, dpo_threshold, ranking_of
from penchant.evaluation.statistics import Estimate, short
from penchant.report.charts import BLUE, INK, ORANGE, Chart, draw
from penchant.report.facts import number
from penchant.report.sections import Section, Table

DRAWN = 400
"""Points of a scatter; of more, so many are drawn at equal steps."""


def ranking_section(evidence: RunEvidence) -> Section | None:
    """What the run's held-out pairs say; None where there are none."""
    found = ranking_of(evidence)
    if found is None:
        return None
    lead = (
        "Implicit accuracy asks what training moved; ranking accuracy asks where the model now stands: is the chosen response "
        "the more probable of the two? A pair that the reference ranks wrong by c nats is right only once its loss is below "
        "−log σ(βc)."
    )
    sentences, listed = said(found), list_ranking(evidence)
    if listed is not None:
        sentences = (in_lists(listed), *sentences)
    title = "Ranking of unseen pairs" if listed is None else "Ranking of unseen lists"
    return Section("ranking", title, lead, sentences, (quadrants(found),), tuple(charts(found)))


def in_lists(found: ListRanking) -> str:
    """The lists themselves, before their pairs."""
    change = lambda x: x.percent(signed=True).replace(" %", " points", 1)  # noqa: E731
    return (
        f"Of {number(found.exact.n)} lists {found.exact.percent()} stand wholly in the order of their grades by log π, "
        f"{found.exact_before.percent()} by the start's ({change(found.exact_change)}); of a list's pairs "
        f"{found.pairwise.percent()} are right, {found.pairwise_before.percent()} by the start's "
        f"({change(found.pairwise_change)}). Below, every two responses of a list with different grades are a pair."
    )


def said(found: RankingReport) -> tuple[str, ...]:
    """The numbers in sentences."""
    best = found.ideal
    sentences = [
        f"The model gives the chosen more probability in {found.accuracy.percent()} of {number(found.accuracy.n)} pairs, its "
        f"reference in {found.reference.percent()}; by means per token in {found.accuracy_per_token.percent()} and "
        f"{found.reference_per_token.percent()}.",
        f"A policy trained to the optimum would reach {percent(best.median)} (median over β from {number(min(best.by_beta))} to "
        f"{number(max(best.by_beta))}; {percent(best.low)} to {percent(best.high)}), three of four raters agreeing: "
        f"{found.gap.percent(signed=True).replace(' %', ' points', 1)} against this model.",
    ]
    if found.flippable is not None and found.flipped is not None:
        sentences.append(
            f"Of the pairs the reference ranks wrong, the optimum at β = {number(found.beta)} would turn "
            f"{found.flippable.percent()}; this run turned {found.flipped.percent()}."
        )
    return tuple(sentences)


def percent(x: float) -> str:
    return f"{100 * x:.1f} %"


def quadrants(found: RankingReport) -> Table:
    """The four kinds of pairs."""

    def cell(x: Estimate | None) -> str:
        return "–" if x is None else short(x.value) if x.n < 2 else x.number()

    rows = tuple(
        (q.name.capitalize(), number(q.n), q.share.percent(), cell(q.difficulty), cell(q.loss), cell(q.margin))
        for q in found.quadrants
    )
    return Table(("", "Pairs", "Share", "Difficulty c, nats", "Loss", "Margin"), rows)


def charts(found: RankingReport) -> list[Chart]:
    """Loss and margin of each pair against its difficulty, with the line between right and wrong."""
    c = np.array(found.difficulty)
    ends = np.linspace(float(c.min()), float(c.max()), 100)
    right = np.array([loss <= most for loss, most in zip(found.loss, found.dpo_threshold, strict=True)])
    count = f"{int(right.sum()):,} of {len(c):,} pairs"
    picked = np.linspace(0, len(c) - 1, min(len(c), DRAWN)).round().astype(int)
    shown = "" if len(picked) == len(c) else f" {len(picked):,} are drawn."

    def scatter(y: Sequence[float], line: Callable[[np.ndarray], np.ndarray], name: str) -> Callable[[Axes], None]:
        values = np.array(y)

        def paint(axes: Axes) -> None:
            for here, colour, word in ((right, BLUE, "ranked right"), (~right, ORANGE, "ranked wrong")):
                some = picked[here[picked]]
                if len(some):
                    axes.scatter(c[some], values[some], s=9, color=colour, alpha=0.6, linewidths=0, label=word)
            low, high = float(values.min()), float(values.max())
            room = 0.25 * max(high - low, 1e-3)
            axes.plot(ends, line(ends), color=INK, linewidth=1.3, label=name)
            axes.set_ylim(low - room, high + room)  # the line may leave the picture; no pair does

        return paint

    beta = found.beta
    loss = scatter(found.loss, lambda x: dpo_threshold(x, beta), "−log σ(βc)")
    margin = scatter(found.margin, lambda x: beta * x, "βc")
    x = "difficulty c = log π_ref(rejected) − log π_ref(chosen), nats"
    return [
        draw("Loss against difficulty", f"{count} lie on or under −log σ(βc): ranked right.{shown}", x, "DPO loss", loss),
        draw(
            "Margin against difficulty",
            f"The same {count} lie on or above βc; β = {number(beta)}.{shown}",
            *(x, "margin, β × log-ratio", margin),
        ),
    ]

"""The page's part on factors: what the labels of held-out pairs go with, what training moved, and what the model then writes more
of. It draws what evaluation/profile.py found."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.axes import Axes

from penchant.evaluation.evidence import RunEvidence
from penchant.evaluation.factors import explained
from penchant.evaluation.pairs import gains
from penchant.evaluation.profile import FactorScore, Profile, agreement, by_generation, profile, profile_of
from penchant.report.charts import BLUE, INK, QUIET, Chart, draw
from penchant.report.facts import number
from penchant.report.sections import Section, Table
from penchant.words import figure

LEAST = 20
"""Pairs below which nothing is said."""
NAMED = 4
"""Factors that the chart names: those of the largest scores."""
LABELS, TRAINING, WRITING = "the labels", "what training moved", "answers, after against before"


def profiles(evidence: RunEvidence) -> list[Profile]:
    """Of everybody this run's evidence knows: the labels, the implicit reward, the model as it writes."""
    found = []
    before, after = evidence.pairs_before, evidence.pairs_after
    if evidence.factors and before is not None and after is not None and len(after.numbers) >= LEAST:
        ones = [1.0] * len(after.numbers)
        found.append(profile_of(ones, evidence.factors, after.groups, LABELS, refits=100))
        found.append(profile_of(gains(before, after), evidence.factors, after.groups, TRAINING, refits=0))
    said = evidence.samples_before, evidence.samples_after
    if said[0] is not None and said[1] is not None and said[0].prompts == said[1].prompts:
        written = by_generation(said[0], said[1])
        if len(written) >= LEAST:
            found.append(profile(written, WRITING, refits=0))
    return [one for one in found if one.n >= LEAST]


def profile_section(evidence: RunEvidence) -> Section | None:
    """None where nobody preferred enough."""
    found = profiles(evidence)
    if not found:
        return None
    lead = (
        "τ says how often the preferred answer has more of something, from −1 (always less) to 1 (always more); answers that "
        "have equally much count against it. A star marks what is no chance although many factors were looked at. Factors "
        "that go together share credit: the last column holds the others fixed."
    )
    said = [f"{one.agent.capitalize()}: {number(one.n)} pairs." for one in found]
    by = {one.agent: one for one in found}
    if LABELS in by and TRAINING in by:
        alike = agreement(by[LABELS].vector, by[TRAINING].vector)
        if math.isfinite(alike.pearson):
            said.append(
                f"What training moved goes with the labels' factors at Spearman {figure(alike.spearman, '.2f')}, Kendall "
                f"{figure(alike.kendall, '.2f')}, Pearson {figure(alike.pearson, '.2f')} over {alike.factors} factors."
            )
    return Section(
        "factors", "What the preferences go with", lead, (" ".join(said),), (table(found),), tuple(charts(found))
    )


def table(found: list[Profile]) -> Table:
    """A row per factor, a column per agent, the labels' largest first."""
    names = sorted(found[0].scores, key=lambda name: -abs(found[0].vector[name]) if found[0].scores[name].tau else 1.0)
    partial = any(one.scores[name].partial is not None for one in found[:1] for name in names)
    rows = []
    for name in names:
        cells = [cell(one.scores.get(name)) for one in found]
        beside = found[0].scores[name].partial
        last = ([beside.number(signed=True) if beside is not None else "–"]) if partial else []
        rows.append((name.capitalize(), *cells, *last))
    heads = ("", *(one.agent.capitalize() for one in found), *(["Labels, log-odds, others held"] if partial else []))
    return Table(heads, tuple(rows), notes=tuple(explained(names)))


def cell(score: FactorScore | None) -> str:
    if score is None or score.tau is None:
        return "–"
    return score.tau.number(signed=True) + (" ★" if score.sure else "")


def charts(found: list[Profile]) -> list[Chart]:
    """What training moved against what the labels go with."""
    by = {one.agent: one for one in found}
    if LABELS not in by or TRAINING not in by:
        return []
    names = [n for n, one in by[LABELS].scores.items() if one.tau is not None and by[TRAINING].scores[n].tau is not None]
    x, y = (np.array([by[agent].vector[n] for n in names]) for agent in (LABELS, TRAINING))
    far = np.argsort(-np.maximum(np.abs(x), np.abs(y)))[:NAMED]
    edge = float(max(0.1, np.abs(x).max(), np.abs(y).max())) * 1.15

    def paint(axes: Axes) -> None:
        axes.plot([-edge, edge], [-edge, edge], color=QUIET, linewidth=0.9, linestyle=(0, (1, 2)))
        axes.axhline(0, color=QUIET, linewidth=0.6)
        axes.axvline(0, color=QUIET, linewidth=0.6)
        axes.scatter(x, y, s=18, color=BLUE, linewidths=0)
        for i in far:
            right = x[i] > edge * 0.4
            place = {"xytext": (-5 if right else 5, 4), "textcoords": "offset points", "ha": "right" if right else "left"}
            axes.annotate(names[i], (x[i], y[i]), color=INK, fontsize=8.5, **place)
        axes.set_xlim(-edge, edge)
        axes.set_ylim(-edge, edge)

    said = "; ".join(f"{names[i]} {figure(float(x[i]), '+.2f')} → {figure(float(y[i]), '+.2f')}" for i in far)
    caption = f"{said}. On the dotted line training prefers as the labels do."
    return [draw("Training against labels", caption, "τ of the labels", "τ of what training moved", paint)]

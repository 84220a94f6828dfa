"""A run's numbers as charts: one SVG picture each, drawn by matplotlib, that follows the reader's light or dark setting.
No text of models or data is drawn, and nothing here judges."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from penchant.evaluation.evidence import PairEvidence, RunEvidence, SampleEvidence
from penchant.report.facts import number, step
from penchant.words import figure

# Wong's colour-blind-safe palette (Nature Methods 8, 441, 2011), light and dark. matplotlib draws the light colours; each
# is replaced in the finished SVG by a variable that the dark scheme sets anew.
INK, QUIET, GRID, BEFORE, BLUE, ORANGE, PAPER = "#1b1f24", "#5b6470", "#e3e6ea", "#8d95a0", "#0072b2", "#c4550a", "#fefefe"
GREEN, PINK = "#007a5a", "#a8578a"
DARK = {
    INK: "#e8eaed",
    QUIET: "#a3abb5",
    GRID: "#333a42",
    BEFORE: "#8b939e",
    BLUE: "#56b4e9",
    ORANGE: "#f0953f",
    PAPER: "#1b1f24",
    GREEN: "#3cc49b",
    PINK: "#dd9cc2",
}
SEVERAL = (BLUE, ORANGE, GREEN, PINK, BEFORE, INK)
"""Colours of lines of one kind, as many as there can be."""
FONT = "system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica Neue','Liberation Sans',Arial,sans-serif"
POINTS = 250
"""Points drawn of a curve; more are gathered in groups, each shown by its mean and its range."""
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "penchant",
    "text.parse_math": False,
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": QUIET,
    "axes.labelcolor": QUIET,
    "axes.labelsize": 9,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": QUIET,
    "ytick.color": QUIET,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "axes.formatter.useoffset": False,
    "axes.unicode_minus": True,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.solid_capstyle": "round",
}


@dataclass(frozen=True)
class Chart:
    """One picture and the sentence that says the same."""

    title: str
    said: str
    """What the picture shows, in words and numbers: the caption, and the alternative text."""
    uri: Markup
    """data:image/svg+xml;base64,…"""


@dataclass(frozen=True)
class Curve:
    """One line of a chart: its key in the history, its name in the legend, its colour."""

    key: str
    name: str
    colour: str = BLUE
    kind: str = "step"
    """"step" and "round" are drawn as lines, "eval" as points, joined, with an interval where the history has one."""


def draw(title: str, said: str, x: str, y: str, paint: Callable[[Axes], None]) -> Chart:
    """A chart: `paint` puts the marks, the rest is the same for all."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4.4, 2.6), layout="constrained")
        axes = figure.add_subplot()
        axes.set_xlabel(x)
        axes.set_ylabel(y)
        axes.grid(visible=False, axis="x")
        axes.tick_params(length=0)
        paint(axes)
        if len(axes.get_legend_handles_labels()[1]) > 1:
            figure.legend(*axes.get_legend_handles_labels(), loc="outside upper left", ncols=3, handlelength=1.4)
        out = io.StringIO()
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = themed(out.getvalue())
    return Chart(title, said, Markup("data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()))


def themed(svg: str) -> str:
    """The SVG with our colours as variables that follow the light or dark scheme, and the reader's own font."""
    svg = svg[svg.index("<svg") :]
    names = {colour: f"var(--c{i})" for i, colour in enumerate(DARK)}
    for colour, name in names.items():
        svg = svg.replace(colour, name)
    svg = svg.replace("'DejaVu Sans'", FONT)
    light = "".join(f"--c{i}:{colour};" for i, colour in enumerate(DARK))
    dark = "".join(f"--c{i}:{colour};" for i, colour in enumerate(DARK.values()))
    style = f"<style>:root{{{light}}}@media (prefers-color-scheme:dark){{:root{{{dark}}}}}</style>"
    return re.sub(r"(<svg[^>]*>)", lambda m: m[1] + style, svg, count=1)


def curves(evidence: RunEvidence) -> list[Chart]:
    """How the run went: everything the history holds, step by step, then round by round."""
    lines = evidence.history
    terms = sorted({key for line in lines for key in line if key.startswith("loss/")})
    made = [
        lined(lines, "Loss", "loss per unit", [Curve("loss", "training")]),
        *[lined(lines, f"Loss: the term {term[5:]}", "loss per unit", [Curve(term, term[5:])]) for term in terms],
        lined(
            lines,
            "Reward margin",
            "chosen − rejected",
            [Curve("reward/margin", "training"), Curve("margin", "held out", ORANGE, "eval")],
            level=0.0,
        ),
        lined(
            lines,
            "Reward accuracy",
            "pairs in the right order",
            [Curve("reward/accuracy", "training"), Curve("accuracy", "held out, 95 % interval", ORANGE, "eval")],
            level=0.5,
            share=True,
        ),
        lined(
            lines,
            "Chosen and rejected",
            f"log π per {step(evidence)}, nats",
            [Curve("logp/chosen", "chosen"), Curve("logp/rejected", "rejected", ORANGE)],
        ),
        *states(lines),
        lined(lines, "Gradient norm", "before clipping, log scale", [Curve("grad_norm", "gradient norm")], log=True),
        lined(lines, "Learning rate", "learning rate", [Curve("lr", "learning rate")], exact=True),
        lined(lines, "The judge's score", "mean score of the samples", [Curve("score", "score", kind="round")]),
        *(
            [lined(lines, "Variety", "distinct word pairs, share", [Curve("distinct2", "distinct-2", kind="round")])]
            if evidence.speaks
            else []
        ),
        *(
            [lined(lines, "Length of the samples", f"{step(evidence)}s", [Curve("length", "length", kind="round")])]
            if evidence.makes != "pictures"
            else []
        ),
    ]
    return [chart for chart in made if chart is not None]


def states(history: Sequence[dict[str, Any]]) -> list[Chart | None]:
    """What the objective remembers: a chart for each number, or one with a line for each category of a column. Categories
    are the data's words, so their lines are numbered; the table of the report names them."""
    keys = dict.fromkeys(key for line in history for key in line if key.startswith("state/"))
    titles = list(dict.fromkeys(key.split("/")[1] for key in keys))
    made = []
    for title in titles:
        of = [key for key in keys if key.split("/")[1] == title]
        words = [key.split("/", 2)[2] if key.count("/") > 1 else title for key in of]
        ours = {title, "lowest", "median", "highest"}.issuperset(words)
        names = words if ours else [f"no. {k}" for k in range(1, len(of) + 1)]
        drawn = [Curve(key, name, colour) for key, name, colour in zip(of, names, SEVERAL, strict=False)]
        made.append(lined(history, f"Memory: {title}", title, drawn))
    return made


def lined(
    history: Sequence[dict[str, Any]],
    title: str,
    y: str,
    wanted: Iterable[Curve],
    *,
    level: float | None = None,
    share: bool = False,
    log: bool = False,
    exact: bool = False,
    marks: Mapping[int, str] | None = None,
) -> Chart | None:
    """A chart of one or more curves over the steps or rounds; None where the history has none of them.
    `exact` curves are no measurements: they are drawn as they are, without a running mean. `marks`: words at steps."""
    drawn = [(curve, points(history, curve)) for curve in wanted]
    drawn = [(curve, at) for curve, at in drawn if len(at)]
    if not drawn:
        return None
    by_round = drawn[0][0].kind == "round"
    tell = (lambda v: f"{v:.0%}") if share else number

    def paint(axes: Axes) -> None:
        for curve, at in drawn:
            trace(axes, curve, at, history, exact)
        if level is not None:
            axes.axhline(level, color=QUIET, linewidth=0.9, linestyle=(0, (1, 2)), zorder=1)
        for at_step, word in (marks or {}).items():
            axes.axvline(at_step, color=INK, linewidth=0.9, linestyle=(0, (4, 2)), zorder=1)
            axes.annotate(word, (at_step, 1.0), (3, -8), ("data", "axes fraction"), "offset points", color=INK, fontsize=8)
        if share:
            axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        if log:
            axes.set_yscale("log")
            axes.yaxis.set_minor_formatter(few)
        if not share:
            axes.yaxis.set_major_formatter(lambda v, _: tick(v))
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))

    said = "; ".join(f"{curve.name} {' → '.join(tell(v) for v in ends(at, exact))}" for curve, at in drawn)
    return draw(title, said + ".", "round" if by_round else "optimiser step", y, paint)


def points(history: Sequence[dict[str, Any]], curve: Curve) -> np.ndarray:
    """[n, 2]: step (or round) and value, finite ones only."""
    rows = [line for line in history if line.get("kind") == curve.kind and isinstance(line.get(curve.key), int | float)]
    place = (lambda line: line["round"]) if curve.kind == "round" else (lambda line: line["step"])
    at = np.array([(place(line), float(line[curve.key])) for line in rows], dtype=float).reshape(-1, 2)
    return at[np.isfinite(at).all(1)]


def ends(at: np.ndarray, exact: bool) -> list[float]:
    """What a caption gives of a curve: first and last value, where it is long the means of its first and last tenth."""
    if len(at) == 1:
        return [float(at[0, 1])]
    few = 1 if exact or len(at) <= 30 else len(at) // 10
    return [float(at[:few, 1].mean()), float(at[-few:, 1].mean())]


def few(value: float, _: float) -> str:
    """Labels for 2 and 5 between the powers of ten, so that a log axis of less than a decade can be read."""
    return tick(value) if f"{value:e}"[0] in "25" else ""


def tick(value: float) -> str:
    """A number at an axis: as short as it can be said."""
    return figure(value, ".3g")


def trace(axes: Axes, curve: Curve, at: np.ndarray, history: Sequence[dict[str, Any]], exact: bool) -> None:
    """One curve. A long one is drawn by the means of groups of steps, with their range behind, so that spikes stay seen."""
    if curve.kind == "eval":
        whole = {line["step"]: line for line in history if line.get("kind") == "eval"}
        low, high = (np.array([whole[int(s)].get(f"{curve.key}/{end}", v) for s, v in at]) for end in ("low", "high"))
        spread = np.abs(np.stack([at[:, 1] - low, high - at[:, 1]]))
        style: Any = {"color": curve.colour, "markersize": 4.5, "elinewidth": 1.2, "linewidth": 0.8, "label": curve.name}
        axes.errorbar(*at.T, yerr=spread, fmt="o-", **style)
        return
    if exact:
        axes.plot(*at.T, color=curve.colour, linewidth=1.8, label=curve.name)
        return
    if curve.kind == "round" or len(at) <= 30:
        axes.plot(*at.T, "o-", color=curve.colour, linewidth=1.8, markersize=3.5, label=curve.name)
        return
    size = max(1, -(-len(at) // POINTS))
    groups = [at[i : i + size] for i in range(0, len(at), size)]
    where = np.array([g[:, 0].mean() for g in groups])
    low, mean, high = (np.array([f(g[:, 1]) for g in groups]) for f in (np.min, np.mean, np.max))
    if size > 1:
        axes.fill_between(where, low, high, color=curve.colour, alpha=0.22, linewidth=0)
    else:
        axes.plot(where, mean, color=curve.colour, linewidth=0.8, alpha=0.35)
    window = max(1, len(mean) // 20)
    axes.plot(where, rolling(mean, window), color=curve.colour, linewidth=1.8, label=curve.name)


def rolling(values: np.ndarray, window: int) -> np.ndarray:
    """The mean over up to `window` values on either side; fewer at the ends."""
    return np.array([values[max(0, i - window) : i + window + 1].mean() for i in range(len(values))])


def distributions(evidence: RunEvidence) -> list[Chart]:
    """Where the numbers lie before and after: margins of held-out pairs; scores and lengths of samples."""
    pairs = [margins(evidence.pairs_before), margins(evidence.pairs_after)]
    samples = [evidence.samples_before, evidence.samples_after]
    made = [
        spread("Reward margin of held-out pairs", "chosen − rejected", "pairs", *pairs, level=0.0),
        spread("The judge's score of each sample", "score", "samples", *map(scores, samples)),
        spread(
            "Length of each sample",
            f"{step(evidence)}s",
            "samples",
            *map(lengths, [None if evidence.makes == "pictures" else x for x in samples]),
        ),
        spread("Distance of each sample", "KL to the reference, nats", "samples", *map(divergences, samples)),
    ]
    return [chart for chart in made if chart is not None]


def margins(pairs: PairEvidence | None) -> list[float]:
    """Reward of chosen minus reward of rejected, per pair."""
    return [] if pairs is None else [w - l for w, l in zip(pairs.reward_chosen, pairs.reward_rejected, strict=True)]


def scores(samples: SampleEvidence | None) -> list[float]:
    """Every score the judge gave."""
    return [] if samples is None else [s for row in samples.scores or [] for s in row if s is not None]


def lengths(samples: SampleEvidence | None) -> list[float]:
    """Tokens of every sample."""
    return [] if samples is None else [float(n) for row in samples.lengths for n in row]


def divergences(samples: SampleEvidence | None) -> list[float]:
    """The estimated KL of every sample."""
    return [] if samples is None else [k for row in samples.kl or [] for k in row]


def spread(
    title: str, x: str, y: str, before: list[float], after: list[float], *, level: float | None = None
) -> Chart | None:
    """Two histograms over the same bins, each with its median; one that has a single value is a line."""
    sets = [
        (name, np.array(values), colour) for name, values, colour in (("before", before, BEFORE), ("after", after, BLUE))
    ]
    sets = [(name, values[np.isfinite(values)], colour) for name, values, colour in sets]
    sets = [entry for entry in sets if len(entry[1])]
    if not sets:
        return None
    together = np.concatenate([values for _, values, _ in sets])
    edges = np.linspace(together.min(), together.max(), 31) if np.ptp(together) > 0 else None

    def paint(axes: Axes) -> None:
        for name, values, colour in sets:
            if edges is None or np.ptp(values) < 1e-9:
                axes.axvline(values[0], color=colour, linewidth=2.2, label=f"{name}: all {number(float(values[0]))}")
                continue
            axes.hist(values, bins=list(edges), color=colour, alpha=0.45, label=name, edgecolor="none")
            axes.hist(values, bins=list(edges), histtype="step", color=colour, linewidth=1.4)
            axes.axvline(float(np.median(values)), color=colour, linewidth=1.6, linestyle=(0, (4, 2)))
        if level is not None:
            axes.axvline(level, color=QUIET, linewidth=0.9, linestyle=(0, (1, 2)), zorder=1)
        axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))

    said = "; ".join(f"median {name} {number(float(np.median(values)))}" for name, values, _ in sets)
    return draw(title, f"{said}; {len(sets[-1][1]):,} {y}.", x, f"number of {y}", paint)

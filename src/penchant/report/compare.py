"""The page of a comparison and its table in the terminal: the same sentences, the same numbers. It shares sheet, template and
charts with the page of a run, and escapes as that does; nothing here judges."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from penchant.evaluation.answer import SHARED, UNITS, answer, between, equal_compute, headline, said, sure
from penchant.evaluation.areas import areas
from penchant.evaluation.compared import Arm, Compared, Reading
from penchant.evaluation.measures import Measure
from penchant.evaluation.statistics import short
from penchant.report import facts
from penchant.report.page import PROMPTS, Sample, Text, at, responses, styles, template
from penchant.report.terminal import STYLES, text

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True)
class Entry:
    """One figure of a table: the value, the interval over prompts, the interval over seeds."""

    value: str
    prompts: str = ""
    seeds: str = ""
    begun: str = ""
    """The value before training, where it is each objective's own."""


@dataclass(frozen=True)
class Line:
    """A row: an objective at a grid point, or the start."""

    name: str
    full: str
    """The objective with its fields; empty where the name says them."""
    best: bool
    entries: dict[str, Entry]
    """By measure."""
    seeds: str
    steps: str
    tokens: str
    cpu: str
    wall: str
    verdicts: str


@dataclass(frozen=True)
class Answers:
    """A held-out prompt and what each model said to it."""

    prompt: Text
    said: tuple[tuple[str, Sample | None], ...]


def render(found: Compared, *, samples: bool = True) -> str:
    """The page as one HTML string. `samples=False` leaves out every prompt and every response."""
    from penchant.report.comparison_charts import courses, frontiers

    tone = "good" if found.winner is not None else "mixed"
    return template("compare.html").render(
        **styles(),
        found=found,
        title=f"{len(found.contenders)} objectives compared on {_named(found, 'model')}",
        headline=headline(found),
        tone=tone,
        answer=answer(found),
        computed=equal_compute(found),
        notes=(UNITS, SHARED),
        measures=found.measures,
        goals=[measure for measure in found.measures if measure.better],
        prices=[measure for measure in found.measures if not measure.better],
        first=first,
        lines=lines(found),
        gaps=[(measure, gaps) for measure in found.measures if (gaps := found.gaps(measure))],
        made=made(found),
        between=between,
        said=said,
        sure=sure,
        short=short,
        grids=[(c, r) for c in found.contenders if (r := found.robustness(c)) is not None],
        frontiers=frontiers(found),
        areas=areas(found),
        courses=courses(found),
        shown=side_by_side(found) if samples else [],
        command=command(found),
        settings=facts.listed(found.asked),
        facts=facts,
    )


def first(words: str) -> str:
    """With a capital first letter, the others as they are."""
    return words[:1].upper() + words[1:]


def made(found: Compared) -> str:
    """How much was run and on what, on one line."""
    grid = "" if len(found.arms) == len(found.contenders) else f" at {len(found.arms)} grid points"
    seeds = sorted({cell.seed for cell in found.cells})
    lost = f"; {len(found.failures)} more did not finish" if found.failures else ""
    evidence = found.cells[0].evidence
    held = [f"{len(evidence.pairs_after.numbers):,} held-out pairs"] if evidence.pairs_after is not None else []
    held += (
        [f"answers to {len(evidence.samples_after.prompts):,} held-out prompts"]
        if evidence.samples_after is not None
        else []
    )
    on = f", judged on {' and '.join(held)}" if held else ""
    return (
        f"{len(found.contenders)} objectives{grid} × {len(seeds)} {'seed' if len(seeds) == 1 else 'seeds'}: "
        f"{len(found.cells)} finished runs{lost}{on}"
    )


def _named(found: Compared, name: str) -> str:
    return str(found.asked.get(name, facts.UNKNOWN)).rstrip("/").split("/")[-1]


def lines(found: Compared) -> list[Line]:
    """The start, then every grid point in the order of the request."""
    start = {measure.key: _begin(measure, found.start(measure)) for measure in found.measures}
    out = [Line("start model", "", False, start, *("",) * 6)] if any(entry.value != "–" for entry in start.values()) else []
    return out + [_line(found, arm) for arm in found.arms]


def _line(found: Compared, arm: Arm) -> Line:
    several = len(found.arms_of(arm.contender)) > 1
    verdicts = ", ".join(f"{word}{f' × {n}' if n > 1 else ''}" for word, n in arm.verdicts.most_common())
    name = found.titled(arm)
    return Line(
        name,
        "" if name == arm.point else arm.point,
        several and found.best[arm.contender] is arm,
        {
            measure.key: _entry(measure, found.reading(arm, measure), found.begun(arm, measure))
            for measure in found.measures
        },
        str(len(arm.seeds)),
        facts.number(arm.steps),
        f"{arm.tokens:,.0f}",
        f"{arm.cpu:,.0f} s",
        f"{arm.wall:,.0f} s",
        verdicts,
    )


def _entry(measure: Measure, found: Reading | None, begun: Reading | None = None) -> Entry:
    if found is None:
        return Entry("–")
    over = lambda e: (s := between(measure, e))[s.index("[") :]  # noqa: E731
    before = "" if begun is None else said(measure, begun.prompts.value)
    seeds = over(found.seeds) if found.seeds.n > 1 else ""
    return Entry(said(measure, found.prompts.value), over(found.prompts), seeds, before)


def _begin(measure: Measure, found: Reading | None) -> Entry:
    """The start's. It is one model for all seeds, which differ in what they sample of it and in nothing on pairs."""
    entry = _entry(measure, found)
    return replace(entry, seeds="") if found is not None and found.seeds.low == found.seeds.high else entry


def side_by_side(found: Compared) -> list[Answers]:
    """The first prompts with what the start said and what each objective's best point said, one sample of the first seed."""
    arms = [found.best[contender] for contender in found.contenders]
    known = next((cell.evidence for arm in arms for cell in arm.cells if cell.evidence.samples_after is not None), None)
    if known is None or known.samples_after is None:
        return []
    out = []
    for i, prompt in enumerate(known.samples_after.prompts[: PROMPTS // 2]):
        told = [("start model", at(responses(known.samples_before, i), 0))]
        told += [(found.titled(arm), at(responses(arm.cells[0].evidence.samples_after, i), 0)) for arm in arms]
        out.append(Answers(Text.of(prompt), tuple(told)))
    return out


def command(found: Compared) -> str:
    """The command that does the same again."""
    from penchant.engine.settings import Settings

    asked, defaults = dict(found.asked), Settings().model_dump(mode="json")
    words = ["penchant compare"]
    words += [facts.flag(name, asked[name]) for name in ("model", "data", "unseen") if asked.get(name) is not None]
    words += [facts.flag("objective", objective) for objective in asked.get("objectives", [])]
    words += [facts.flag("grid", f"{axis}={','.join(map(str, values))}") for axis, values in asked.get("grid", {}).items()]
    for name in ("seeds", "judge", "by", "at_once"):
        if asked.get(name) is not None:
            words.append(facts.flag(name, asked[name]))
    if asked.get("models") is False:
        words.append("--no-models")
    if "output" in asked:
        words.append(facts.flag("output", asked["output"]))
    words += [facts.flag(name, value) for name, value in asked.items() if name in defaults and value != defaults[name]]
    return " \\\n  ".join(words)


def print_compared(console: Console, found: Compared, paths: Mapping[str, Path]) -> None:
    """The table and the answer; intervals over prompts here, those over seeds on the page."""
    from rich.padding import Padding
    from rich.table import Table

    primary = "accuracy" if found.primary is None else found.primary.key
    keys = {primary, "score", "wins", "kl", "length"} | (
        {"accuracy"} if primary != "change" else set()
    )  # as a line has room
    shown = [m for m in found.measures if m.key in keys]
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), title=text("on held-out prompts, 95 % over prompts"))
    table.title_justify = "left"
    rows = lines(found)
    table.add_column("", overflow="fold", min_width=min(16, max(len(line.name) for line in rows)))
    for measure in shown:
        table.add_column(text(measure.name), justify="right")
    table.add_column("a run", justify="right", no_wrap=True, min_width=5)
    for line in rows:
        entries = [line.entries[measure.key] for measure in shown]
        table.add_row(text(line.name), *(text(f"{e.value}\n{e.prompts}".strip()) for e in entries), text(line.cpu))
    console.print()
    console.print(table)
    console.print()
    tone = "good" if found.winner is not None else "mixed"
    console.print(text(headline(found), STYLES[tone]))
    for sentence in answer(found):
        console.print(Padding(text(sentence), (0, 0, 0, 2)))
    for failure in found.failures:
        console.print(Padding(text(f"not finished: {failure.point}, seed {failure.seed}: {failure.reason}"), (0, 0, 0, 2)))
    console.print()
    for name, path in paths.items():
        console.print(text(f"{name:<8}  {path}"), soft_wrap=True)

"""The end of a run in the terminal: verdict, before/after table, where things are; and the bars while it works.
No text of data or models is read as markup or reaches the terminal with control characters."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from penchant.evaluation.evidence import RunEvidence
from penchant.evaluation.verdict import Verdict, before_after
from penchant.report import facts
from penchant.words import plain

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress
    from rich.text import Text

SIGN = {"good": "✓", "mixed": "!", "bad": "✗"}
STYLES = {"good": "bold green", "mixed": "bold yellow", "bad": "bold red"}
READING = {"better": ("▲ better", "green"), "worse": ("▼ worse", "red"), "neutral": ("", "dim")}


def print_summary(console: Console, evidence: RunEvidence, verdict: Verdict, paths: Mapping[str, Path | str]) -> None:
    """The before/after table, the verdict's word and every finding that holds, and the paths by name."""
    from rich.padding import Padding
    from rich.table import Table

    rows = before_after(evidence)
    if rows:
        table = Table(
            box=None,
            pad_edge=False,
            padding=(0, 2, 0, 0),
            title=text(f"before and after: {facts.where(evidence)[:-1].lower()}"),
        )
        table.title_justify = "left"
        table.add_column("", overflow="fold")
        for name in ("before", "after", "change"):
            table.add_column(name, justify="right", overflow="fold")
        table.add_column("", no_wrap=True)
        for row in rows:
            said, style = READING[row.word]
            table.add_row(text(row.name), *map(text, row.cells), text(said, style))
        console.print()
        console.print(table)
    for one in facts.remembered(evidence):
        told = [f"{plain(name)} {facts.number(value)}" for _, name, _, value in one.rows]
        if one.hidden:
            told.insert(facts.SHOWN, f"… {one.hidden} between …")
        console.print()
        console.print(text(f"{one.title}, the lowest first: {', '.join(told)}"))
    if evidence.makes == "scores":
        from penchant.report.reward import in_words  # which loads matplotlib, as the page of this run has

        for line in in_words(evidence):
            console.print()
            console.print(text(line))
    for name, said in facts.judging(evidence):
        console.print()
        console.print(text(f"judge {name}: {said}"))
    style = facts.tone(verdict)
    console.print()
    console.print(text(f"{SIGN[style]} {verdict.word}", STYLES[style]))
    for finding in verdict.findings:
        if finding.holds:
            line = text("" if finding.word == verdict.word else f"{finding.word}: ", "bold")
            console.print(Padding(line.append_text(text(finding.sentence, "not bold")), (0, 0, 0, 2)))
    if paths:
        console.print()
    width = max((len(plain(name)) for name in paths), default=0)
    for name, path in paths.items():  # a path is never broken by us, so that it can be copied
        console.print(text(f"{plain(name):<{width}}  {path}"), soft_wrap=True)


def text(said: object, style: str = "") -> Text:
    """A piece of text that is printed as it stands: no markup, no control characters."""
    from rich.text import Text

    return Text(plain(said, 2000), style=style)


def progress(console: Console | None = None) -> Progress:
    """Bars for long work: what, how far, how many, how long it has taken and still will. Without a terminal it is silent.
    Descriptions are taken as they stand, not as markup."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    console = console or Console(highlight=False)
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
        transient=True,
    )

"""`penchant evaluate MODEL --tasks TASKS`: a model on standard benchmarks, beside its reference where one is given. Measuring is
running/benchmarks.py's; here it is asked for and printed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from penchant.errors import Refusal
from penchant.words import json_text, plain

if TYPE_CHECKING:
    from penchant.engine.settings import Settings
    from penchant.running.benchmarks import Figure

SETTINGS = ("allow_bin", "seed", "precision", "threads")
"""The settings of a run that benchmarks read."""


def show(
    model: str, tasks: str, reference: str | None, settings: Settings, shots: int | None, rows: int | None, as_json: bool
) -> int:
    """Prints every metric of every task; always 0, for a benchmark is no verdict."""
    names = [name.strip() for name in tasks.split(",") if name.strip()]
    if not names:
        raise Refusal("--tasks names no task; name one or more of lm-eval's, with commas between, or a task file.")
    for flag, value, least in (("--shots", shots, 0), ("--task-rows", rows, 1)):
        if value is not None and value < least:
            raise Refusal(f"{flag} is {value}; it must be at least {least}.")
    from penchant.running.benchmarks import benchmarks
    from penchant.running.voice import Voice

    with Voice(quiet=as_json) as voice:
        found = benchmarks(model, names, reference, settings, voice, shots=shots, rows=rows)
    if as_json:
        print(json_text([one.to_json() for one in found], indent=1))
    else:
        _print(found, reference is not None)
    return 0


def _print(found: Sequence[Figure], compared: bool) -> None:
    from rich.console import Console
    from rich.table import Table

    from penchant.report.terminal import text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in ("task", "metric", "shots"):
        table.add_column(name, overflow="fold")
    for name in ("model", *(("reference", "change") if compared else ()), "rows"):
        table.add_column(name, justify="right", overflow="fold")
    for one in found:
        arrow = {True: " ↑", False: " ↓", None: ""}[one.higher]
        said = ["–" if x is None else x.number() for x in ((one.value, one.reference) if compared else (one.value,))]
        if compared:
            said.append("–" if one.change is None else one.change.number(signed=True))
        shots = "–" if one.shots is None else str(one.shots)
        table.add_row(*map(text, (plain(one.task, 80), f"{one.metric}{arrow}", shots, *said, f"{one.value.n:,}")))
    Console(highlight=False).print(table)

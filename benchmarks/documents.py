"""Where measured figures are kept, and the documents that quote them: they are written from the newest results, never by
hand. Nothing is measured here."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from figures import Figure, table

from penchant.version import __version__

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
ROWS = ("startup", "step", "fp32", "epoch", "algorithm", "lists", "memory", "peak", "trunk", "sampling", "exact", "growth")
"""Everything that is to be measured, in the order of the table."""
PAGES = (HERE.parent / "docs" / "performance.md", HERE.parent / "README.md")
NOT_YET = "Not measured yet."
PLACE = re.compile(r"(<!-- bench: (\w+) -->\n).*?(\n<!-- end of bench -->)", re.DOTALL)


def results_file() -> Path:
    """This version's results."""
    RESULTS.mkdir(exist_ok=True)
    return RESULTS / f"{__version__}.json"


def newest() -> Path:
    """The results of the highest version there is; this version's place where there are none."""
    by_number = lambda path: tuple(int(n) for n in re.findall(r"\d+", path.stem))  # noqa: E731
    return max(RESULTS.glob("*.json"), key=by_number, default=results_file())


def kept(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {"machine": {}, "versions": {}, "rows": {}}
    return json.loads(path.read_text(encoding="utf-8"))


def publish(held: Mapping[str, Any]) -> None:
    """Writes what the documents quote into their places."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        page.write_text(filled(text, held), encoding="utf-8")


def filled(text: str, held: Mapping[str, Any]) -> str:
    """A document with every place `<!-- bench: NAME -->` … `<!-- end of bench -->` as the results say it."""

    def said(found: re.Match[str]) -> str:
        say, rows = SAID[found[2]]
        there = bool(held["rows"]) and all(row in held["rows"] for row in rows)
        return f"{found[1]}{say(held) if there else NOT_YET}{found[3]}"

    return PLACE.sub(said, text)


def figure(held: Mapping[str, Any], row: str, number: int = 0) -> Figure:
    return Figure.of(held["rows"][row]["figures"][number])


def the_table(held: Mapping[str, Any]) -> str:
    return table(held["rows"])


def the_machine(held: Mapping[str, Any]) -> str:
    it, versions = held["machine"], held["versions"]
    libraries = ", ".join(f"{name} {number}" for name, number in versions.items())
    days = sorted({row["measured"] for row in held["rows"].values()})
    when = days[0] if days[0] == days[-1] else f"{days[0]} to {days[-1]}"
    has = f" with {', '.join(it['instructions'])}" if it["instructions"] else " without AVX2"
    return (
        f"{it['processor']} (family/model {it['family and model']}){has}, {it['cores']} cores of which one thread is used, "
        f"{it['memory GiB']} GiB. {libraries}. Measured {when}."
    )


def the_speed(held: Mapping[str, Any]) -> str:
    """What the README says of speed."""
    default, best = figure(held, "step", 0), figure(held, "step", 1)
    on_completions, alone = figure(held, "step", 2), figure(held, "algorithm")
    return (
        f"A DPO step on eight real pairs takes {best.peer:.1f} CPU seconds in TRL {held['versions']['trl']} with its fastest "
        f"options and {default.ours:.1f} here, on one core, with the same 135M model and number format: {best.value:.1f} times "
        f"as fast, {default.value:.1f} times as fast as TRL's defaults. A part of that is TRL's way of putting the head on every "
        f"position on a CPU; without it the first ratio is {on_completions.value:.1f}. What is left on any hardware is that "
        f"nothing is padded and no prompt is read twice: {alone.value:.1f} times, within our own code."
    )


def the_missed(held: Mapping[str, Any]) -> str:
    """Figures that did not reach their target, and rows without figures."""
    figures = [Figure.of(made) for row in held["rows"].values() for made in row["figures"]]
    missed = [f for f in figures if f.reached.startswith("missed")]
    said = [f"- {f.name}: {f.value:.3g}, {f.reached}." for f in missed] or [
        "- None of the figures above misses its target."
    ]
    if open_rows := [row for row in ROWS if row not in held["rows"]]:
        said.append(f"- Not measured to the end yet, so that nothing is said of them: {', '.join(open_rows)}.")
    return "\n".join(said)


SAID = {
    "table": (the_table, ()),
    "machine": (the_machine, ()),
    "speed": (the_speed, ("step", "algorithm")),
    "missed": (the_missed, ()),
}
"""What stands in each place, and the rows that it needs."""

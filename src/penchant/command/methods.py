"""`penchant methods`: what can be optimised, and one method in full. Everything shown comes from the classes
themselves, their golden numbers and the claims; no method is named here."""

from __future__ import annotations

import argparse
import dataclasses
import json
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from penchant.command.record import claims, golden
from penchant.errors import Refusal, nearest
from penchant.words import plain

if TYPE_CHECKING:
    from penchant.objectives.describe import Description

SUMMARY = "list the objectives, or show one in full: equation, fields, data, needs, source, golden numbers, claims"

USAGE = "penchant methods [NAME] [--data KIND] [--needs NEED] [--json]"

EXAMPLES = """\
examples:
  penchant methods
  penchant methods DPO
  penchant methods --data pairs --needs none"""

SHOWN = 3
"""Golden cases shown in full; --json has all of them."""


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", metavar="NAME", help="a method's name, or another that the field has for it")
    parser.add_argument("--data", metavar="KIND", help="only methods that take this data: pairs, labelled, lists, rollouts")
    parser.add_argument("--needs", metavar="NEED", help="only methods that need this, such as ref; none: that need nothing")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    from penchant.objectives import catalogue, known
    from penchant.objectives.composed import COMPOSED, composed
    from penchant.objectives.describe import describe

    asked = arguments.name
    said = {name: describe(method) for name, method in catalogue().items()}
    if asked is None:
        chosen = choose(list(said.values()), arguments.data, arguments.needs)
        sums = [] if arguments.data or arguments.needs else list(COMPOSED)
    else:
        chosen, sums = [said[name] for name in known(asked)], composed(asked)
        if not chosen and not sums:
            others = [other for one in said.values() for other in one.known_as] + [one.name for one in COMPOSED]
            raise Refusal(f"there is no method {plain(asked, 60)!r}; {nearest(asked, {*said, *others})}")
    if arguments.json:
        print(json.dumps([as_json(one) for one in chosen], ensure_ascii=False, indent=1))
        return 0
    if asked is not None and len(chosen) == 1:
        print(in_full(chosen[0]))
    else:
        print("\n".join(columns([(one.name, taken(one), one.equation) for one in chosen])))
    if sums:
        print("\nsums of these" if chosen else "a sum", *columns(sums), sep="\n")
    if asked is None:
        print(f"{len(chosen)} of {len(said)} methods. `penchant methods NAME` shows one in full.")
    elif len(chosen) + len(sums) > 1:
        print(f"\n{len(chosen) + len(sums)} methods go by the name {plain(asked, 60)}.")
    return 0


def columns(rows: Sequence[tuple[str, str, str]]) -> list[str]:
    """Rows as lines, their cells one under the other."""
    widths = [max((len(row[k]) for row in rows), default=0) for k in (0, 1)]
    return [f"{first:<{widths[0]}}  {second:<{widths[1]}}  {third}" for first, second, third in rows]


def choose(said: list[Description], data: str | None, needs: str | None) -> list[Description]:
    """The methods that take this data and need this; a word that no method knows is refused."""
    kinds = sorted({kind.lower() for one in said for kind in one.data})
    wants = sorted({need for one in said for need in one.needs} | {"none"})
    if data is not None and data.lower() not in kinds:
        raise Refusal(f"no method takes the data {plain(data, 60)!r}; {nearest(data, kinds)}")
    if needs is not None and needs not in wants:
        raise Refusal(f"no method needs {plain(needs, 60)!r}; {nearest(needs, wants)}")
    return [
        one
        for one in said
        if (data is None or data.lower() in {kind.lower() for kind in one.data})
        and (needs is None or needs in one.needs or (needs == "none" and not one.needs))
    ]


def taken(one: Description) -> str:
    """Which data a method takes and what it needs besides, in a few words."""
    data = " or ".join(kind.lower() for kind in one.data)
    return f"{data}; {', '.join(one.needs)}" if one.needs else data


def in_full(one: Description) -> str:
    """A method as a page for the terminal."""
    wrap = lambda text: textwrap.fill(" ".join(text.split()), 100, initial_indent="  ", subsequent_indent="  ")  # noqa: E731
    also = f"   also known as {', '.join(one.known_as)}" if one.known_as else ""
    lines = [f"{one.name}{also}", "", f"  {one.equation}", f"  {one.source}"]
    if one.doc:
        lines += ["", *(wrap(paragraph) for paragraph in one.doc.split("\n\n"))]
    lines += ["", "fields"]
    for field in one.fields:
        default = "" if field.default is None else f" = {field.default!r}"
        lines.append(f"  {field.name}{default}   {field.type}{f' in {field.allowed}' if field.allowed else ''}")
        lines.append(textwrap.indent(wrap(field.doc), "  "))
    if not one.fields:
        lines.append("  none")
    lines += [
        "",
        f"data   {' or '.join(one.data)}, one loss value per {one.unit}",
        f"needs  {', '.join(one.needs) or 'nothing else'}",
    ]
    lines += [f"note   it does not keep the law `{law}`: {why}" for law, why in one.breaks.items()]
    lines += ["", f'use    --objective "{called(one)}"']
    cases, tried = golden(one.name), claims(one.name)
    lines += ["", "golden numbers" if cases else "golden numbers: none"]
    for case in cases[:SHOWN]:
        lines += [wrap(f"{case.case}: {case.objective} of {case.inputs}")]
        lines += [
            wrap(f"→ loss {', '.join(f'{x:.6g}' for x in case.loss)}{f'; gradient {case.grad}' if case.grad else ''}")
        ]
        lines += [wrap(f"  {case.source}")]
    if len(cases) > SHOWN:
        lines.append(f"  … {len(cases)} in all; --json shows them")
    lines += ["", "tried" if tried else "tried in no claim yet"]
    lines += [wrap(f"{claim.verdict}: {claim.claim} ({claim.run}: {claim.result})") for claim in tried]
    return "\n".join(lines)


def called(one: Description) -> str:
    """The method as it is written in a recipe, with its defaults; a wrapper around the plainest method."""
    fields = [f"{field.name}={field.default!r}" for field in one.fields if field.default is not None]
    return f"{one.name}({', '.join((['DPO()'] if one.wraps else []) + fields)})"


def as_json(one: Description) -> dict[str, object]:
    """A method as plain values, without the place of its file; with all its golden cases and claims."""
    behind = {"golden": golden(one.name), "claims": claims(one.name)}
    kept = {key: [dataclasses.asdict(x) for x in found] for key, found in behind.items()}
    return {**dataclasses.asdict(one), "breaks": dict(one.breaks), "file": one.file.name, **kept}

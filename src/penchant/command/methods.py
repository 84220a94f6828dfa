"""`penchant methods`: what can be optimised, and one method in full. Everything shown comes from the classes
themselves, their golden numbers and the claims; no method is named here."""

from __future__ import annotations

import argparse
import dataclasses
import json
import textwrap
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
    from penchant.objectives.describe import describe

    said = {name: describe(method) for name, method in catalogue().items()}
    if arguments.name is not None:
        chosen = [said[name] for name in known(arguments.name)]
        if not chosen:
            others = [other for one in said.values() for other in one.known_as]
            raise Refusal(f"there is no method {plain(arguments.name, 60)!r}; {nearest(arguments.name, {*said, *others})}")
    else:
        chosen = choose(list(said.values()), arguments.data, arguments.needs)
    if arguments.json:
        print(json.dumps([as_json(one) for one in chosen], ensure_ascii=False, indent=1))
    elif arguments.name is not None and len(chosen) == 1:
        print(in_full(chosen[0]))
    else:
        widths = [max((len(text(one)) for one in chosen), default=0) for text in (name, taken)]
        for one in chosen:
            print(f"{name(one):<{widths[0]}}  {taken(one):<{widths[1]}}  {one.equation}")
        if arguments.name is not None:
            print(
                f"{plain(arguments.name, 60)} is the name of {len(chosen)} methods; say which by the first word of its line."
            )
        else:
            print(f"{len(chosen)} of {len(said)} methods. `penchant methods NAME` shows one in full.")
    return 0


def name(one: Description) -> str:
    return one.name


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

"""Flags and help made from the Settings class: name, default, what is allowed, one sentence.
There is no list of settings here; a new field of Settings is a flag the moment it is written."""

from __future__ import annotations

import argparse
import inspect
import re
import textwrap
import types
import typing
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel
from pydantic.fields import FieldInfo


@dataclass(frozen=True)
class Flag:
    """One setting as the shell shows it."""

    name: str
    said: str
    value: str
    """What stands after the flag in help: N, X or WORD."""
    allowed: str
    default: str
    boolean: bool
    many: bool
    """A tuple: values separated by commas."""
    optional: bool
    """None is allowed, written `none`."""

    @property
    def option(self) -> str:
        return "--" + self.name.replace("_", "-")


def flags(settings: type[BaseModel]) -> dict[str, Flag]:
    """Every setting by name."""
    return {name: _flag(name, field) for name, field in settings.model_fields.items()}


def groups(settings: type[BaseModel]) -> dict[str, list[str]]:
    """The settings' names under the headings that stand as comments in the class: `# Training` begins a group."""
    found: dict[str, list[str]] = {}
    heading = "Settings"
    for line in textwrap.dedent(inspect.getsource(settings)).splitlines():
        comment = re.fullmatch(r"    # (\w[\w -]*)", line)
        field = re.match(r"    (\w+):", line)
        if comment:
            heading = comment[1]
        elif field and field[1] in settings.model_fields:
            found.setdefault(heading, []).append(field[1])
    return found


def add_settings(parser: argparse.ArgumentParser, settings: type[BaseModel], only: Collection[str] | None = None) -> None:
    """Adds a flag for every setting, or only for some, in its group. What is not given is absent from the namespace."""
    known = flags(settings)
    for heading, names in groups(settings).items():
        chosen = [known[name] for name in names if only is None or name in only]
        if not chosen:
            continue
        group = parser.add_argument_group(heading.lower())
        for flag in chosen:
            # argparse reads % as a format
            said = f"{flag.said} {flag.allowed} (default: {flag.default})".replace("%", "%%")
            shape: Any = {"action": argparse.BooleanOptionalAction} if flag.boolean else {"metavar": flag.value}
            group.add_argument(flag.option, dest=flag.name, default=argparse.SUPPRESS, help=said, **shape)


def given(arguments: argparse.Namespace, settings: type[BaseModel]) -> dict[str, Any]:
    """The settings the command line gave, in the shape the class takes: `none` is None, a list is split at its commas."""
    out: dict[str, Any] = {}
    for name, flag in flags(settings).items():
        if not hasattr(arguments, name):  # argparse.SUPPRESS: absent means not given
            continue
        value = getattr(arguments, name)
        if flag.optional and value == "none":
            value = None
        elif flag.many:
            value = tuple(part.strip() for part in value.split(",") if part.strip())
        out[name] = value
    return out


def _flag(name: str, field: FieldInfo) -> Flag:
    kinds, optional = _alternatives(field.annotation)
    kind = kinds[0]
    many = typing.get_origin(kind) is tuple
    if many:
        kind = typing.get_args(kind)[0]
    words = typing.get_args(kind) if typing.get_origin(kind) is Literal else ()
    allowed = ", ".join(map(str, words))
    if words and many:
        allowed = f"any of {allowed}, with commas"
    if not words and kind in (int, float):
        allowed = f"{'whole number' if kind is int else 'number'}{_interval(kind, field)}"
    if optional and allowed:
        allowed += " or none"
    return Flag(
        name=name,
        said=" ".join((field.description or "").split()),
        value={int: "N", float: "X"}.get(kind, "WORD"),
        allowed=f"[{allowed}]" if allowed else "",
        default=_written(field.default),
        boolean=kind is bool,
        many=many,
        optional=optional,
    )


def _alternatives(annotation: Any) -> tuple[list[Any], bool]:
    """The types of `A | None`, bare of Annotated, and whether None is among them."""
    if typing.get_origin(annotation) is typing.Annotated:
        annotation = typing.get_args(annotation)[0]
    if typing.get_origin(annotation) in (types.UnionType, typing.Union):
        parts = typing.get_args(annotation)
        return [_alternatives(part)[0][0] for part in parts if part is not type(None)], type(None) in parts
    return [annotation], False


def _interval(kind: type, field: FieldInfo) -> str:
    """What the field's constraints allow, in words: ` ≥ 1`, ` > 0 and ≤ 1`, which no line break parts."""
    marks = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
    said = [
        f"{mark}\N{NO-BREAK SPACE}{getattr(constraint, name):g}"
        for constraint in _constraints(field)
        for name, mark in marks.items()
        if getattr(constraint, name, None) is not None
    ]
    return f" {' and '.join(said)}" if said else ""


def _constraints(field: FieldInfo) -> list[Any]:
    """The annotated-types constraints of a field, also those inside `Annotated[…] | None`."""
    found = list(field.metadata)
    for part in typing.get_args(field.annotation):
        for extra in getattr(part, "__metadata__", ()):
            found += extra.metadata if isinstance(extra, FieldInfo) else [extra]
    return found


def _written(value: Any) -> str:
    if value is None or value == ():
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)

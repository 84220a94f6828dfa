"""What a comparison trains: each objective at each point of its grid, as it is written, with the settings that belong to it.
It makes names and numbers; nothing is trained here."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from penchant.engine.settings import Settings
from penchant.errors import Refusal
from penchant.feedback.records import Kind
from penchant.files import fingerprint
from penchant.objectives.base import Objective, Sum
from penchant.objectives.reader import read
from penchant.running.prepare import read_as
from penchant.words import brief

SETTINGS = ("learning_rate", "weight_decay", "warmup", "clip")
"""Settings that a grid may vary: they change what is learned, not how much is computed."""

Grid = Mapping[str, Sequence[float | int]]
"""Values by name: a field of objectives (`beta`), a field of one method (`SimPO.beta`), or one of SETTINGS."""


@dataclass(frozen=True)
class Point:
    """An objective with its values, as it is trained."""

    contender: str
    """The objective as it was asked for."""
    objective: str
    """As it is trained."""
    settings: dict[str, Any]
    """Its own settings: those of the grid, and a batch of as many responses as the others have."""
    place: tuple[int, ...]

    @property
    def name(self) -> str:
        """What it is called in tables."""
        own = [f"{name}={self.settings[name]:g}" for name in SETTINGS if name in self.settings]
        return ", ".join([self.objective, *own])

    @property
    def folder(self) -> str:
        """A folder's name: readable, and of this point alone."""
        said = re.sub(r"[^A-Za-z0-9.]+", "-", self.name).strip("-")[:60]
        return f"{said}-{fingerprint(self.name)[:6]}"


def read_grid(written: Sequence[str]) -> dict[str, tuple[float | int, ...]]:
    """A grid as the shell has it: "beta=0.05,0.1" or "SimPO.beta=2,5", one axis each."""
    grid: dict[str, tuple[float | int, ...]] = {}
    for axis in written:
        name, equals, values = (part.strip() for part in axis.partition("="))
        numbers = [part.strip() for part in values.split(",") if part.strip()]
        if not equals or not re.fullmatch(r"(\w+\.)?\w+", name) or not numbers:
            raise Refusal(
                f'grid {brief(axis)}: write a name and its values, as in "beta=0.05,0.1,0.5" or "SimPO.beta=2,5".'
            )
        if name in grid:
            raise Refusal(f"grid {brief(axis)}: {name} stands there twice; give all its values at once.")
        try:
            grid[name] = tuple(int(x) if re.fullmatch(r"-?\d+", x) else float(x) for x in numbers)
        except ValueError:
            raise Refusal(f"grid {brief(axis)}: its values must be numbers with commas between.") from None
    return grid


def points(objectives: Sequence[Objective], grid: Grid, settings: Settings, kind: Kind) -> list[Point]:
    """Every objective at every point of what the grid says of it. kind: the rows of the data. Refuses, before anything is
    trained, an objective that cannot learn from them, a value it does not take, and a name nothing has."""
    axes = {name: tuple(dict.fromkeys(values)) for name, values in grid.items()}
    used: set[str] = set()
    found: list[Point] = []
    for objective in objectives:
        if read(repr(objective)) != objective:
            raise Refusal(f"{objective!r} cannot be read back as it is written, so no process of its own can train it.")
        mine = {name: values for name, values in axes.items() if name in SETTINGS or varied(objective, name, values[0])}
        used |= set(mine)
        for place in product(*(range(len(values)) for values in mine.values())):
            made, own = objective, _batch(objective, settings, kind)
            for (name, values), i in zip(mine.items(), place, strict=True):
                if name in SETTINGS:
                    own[name] = values[i]
                else:
                    made = varied(made, name, values[i]) or made
            Settings.of(own)
            found.append(Point(repr(objective), repr(made), own, place))
    for name in axes:
        if name not in used:
            every = ", ".join(repr(objective) for objective in objectives)
            raise Refusal(f"grid {name}: none of {every} has such a field; settings in a grid are {', '.join(SETTINGS)}.")
    twice = [point.name for point in found if [other.name for other in found].count(point.name) > 1]
    if twice:
        raise Refusal(f"{twice[0]} would be trained twice; leave one out.")
    return found


def varied(objective: Objective, name: str, value: float | int) -> Objective | None:
    """The objective with a field set wherever it, or a part of it, has one of that name; None where nothing has."""
    if isinstance(objective, Sum):
        terms = [(weight, term, varied(term, name, value)) for weight, term in objective.terms]
        if all(made is None for *_, made in terms):
            return None
        return Sum(tuple((weight, term if made is None else made) for weight, term, made in terms))
    method, dot, field = name.rpartition(".")
    ours = not dot or type(objective).__name__ == method
    changed: dict[str, Any] = {}
    for one in dataclasses.fields(objective):  # pyright: ignore[reportArgumentType]
        held = getattr(objective, one.name)
        if isinstance(held, Objective):
            if (made := varied(held, name, value)) is not None:
                changed[one.name] = made
        elif ours and one.name == field:
            changed[one.name] = value
    return dataclasses.replace(objective, **changed) if changed else None  # pyright: ignore[reportArgumentType]


def _batch(objective: Objective, settings: Settings, kind: Kind) -> dict[str, Any]:
    """A pair read as two labelled responses makes two rows: a step then takes twice as many, which are the same responses."""
    if settings.rounds:
        return {}
    return {"batch": 2 * settings.batch} if (kind, read_as(kind, objective)) == ("pairs", "labelled") else {}

"""Feedback whose responses are trajectories: files beside the data, arrays in the rows, episodes of a local Minari data set, or
Trajectory objects. Each is read once to see that it is whole and gets a name by content; what a policy makes of it is not known
here."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from penchant.errors import Refusal, nearest
from penchant.feedback.attached import COLUMNS, Attached, open_attached
from penchant.feedback.problems import type_words
from penchant.feedback.reading import Source
from penchant.feedback.trajectories import Trajectory
from penchant.files import write
from penchant.words import brief, plain

FIELDS = ("observations", "actions", "rewards", "final", "ended", "info")
"""What a trajectory in a row, or in a file, may hold; the first two it must."""
MINARI = "minari:"
"""What stands before NAME/EPISODE of a local Minari data set."""
EPISODE = re.compile(r"((?:[\w-]+/)*[\w-]+)/(\d+)", re.ASCII)
SEGMENT = re.compile(r"(?s)(.*?)(?:\[(\d*):(\d*)\])?")


class Archive(Attached):
    """Trajectories by name. A name is the place as it was written, a # and 16 digits of the content's SHA-256."""

    what, mend = "trajectory", "give Trajectory objects"

    def __init__(self, root: Path | None) -> None:
        """root: the folder that paths begin in and may not leave; None where there is none."""
        super().__init__(root)
        self._held: dict[str, Trajectory] = {}
        self._sizes: tuple[int, int] | None = None

    def name(self, value: Any) -> str:
        """The name of one trajectory. Raises Refusal, in words that follow the field's name, also where its observations or actions
        are not as long as those before."""
        place, found = self._found(value)
        sizes = found.observations.shape[1], found.actions.shape[1]
        if self._sizes not in (None, sizes):
            raise Refusal(f"has observations and actions of {sizes} numbers, but those before have {self._sizes}.")
        self._sizes = sizes
        name = f"{place}#{found.digest}"
        if place == "held":
            self._held[name] = found
        return name

    def holds(self, name: str) -> bool:
        """Whether the trajectory of this name is to be found from here."""
        place = name.rpartition("#")[0]
        path = _parts(place)[0]
        return name in self._held or path.startswith(MINARI) or (self.root is not None and (self.root / path).is_file())

    def open(self, name: str) -> Trajectory:
        """The trajectory. Raises Refusal where it is no longer what it was when the data was checked."""
        if name in self._held:
            return self._held[name]
        place, _, digest = name.rpartition("#")
        found = self._read(place)
        if found.digest != digest:
            raise Refusal(
                f"the trajectory {plain(place)} is not what it was when the data was checked; open the data again."
            )
        return found

    def _found(self, value: Any) -> tuple[str, Trajectory]:
        if isinstance(value, str):
            return value, self._read(value)
        if isinstance(value, Trajectory):
            return "held", value
        if isinstance(value, Mapping):
            return "held", of_mapping(value)
        raise Refusal(f"is {type_words(value)}; a trajectory is a path beside the data, arrays by name, or a Trajectory.")

    def _read(self, place: str) -> Trajectory:
        path, start, stop = _parts(place)
        whole = of_minari(path) if path.startswith(MINARI) else of_file(self.file(path))
        if start is None and stop is None:
            return whole
        try:
            return whole[start:stop]
        except Refusal as refusal:
            raise Refusal(f"asks for a segment, but {refusal}") from refusal


def _parts(place: str) -> tuple[str, int | None, int | None]:
    """A place and the segment it names: path[from:to]."""
    found = SEGMENT.fullmatch(place)
    assert found is not None  # it takes any text
    start, stop = (int(x) if x else None for x in found.groups()[1:])
    return (found[1], start, stop) if found[2] is not None else (place, None, None)


def open_trajectories(
    source: str | PathLike[str] | Any,
    *,
    root: str | PathLike[str] | None = None,
    bad_rows: Literal["refuse", "drop"] = "refuse",
) -> tuple[Source, Archive]:
    """Opens rows whose responses are trajectories: {prompt, chosen, rejected} with an optional strength (½ is a tie), {prompt,
    completion} (demonstrations, or with a label), {prompt, responses, scores}; all that `open_source` takes. A trajectory is a path
    within `root` (unset: the data file's folder) to a .safetensors file, `PATH[from:to]` a segment of it; `minari:NAME/EPISODE`, an
    episode of a local Minari data set, with [from:to] too; arrays by name, {"observations": [[…], …], "actions": [[…], …]}, with
    rewards, final, ended and info where they are known; or a Trajectory. In info, `weight` says how much each step counts.

    Returns the rows, whose responses are names, and the archive that opens them. Raises DataRefusal with all problems by row."""
    return open_attached(source, Archive, root, bad_rows)


def of_mapping(value: Mapping[Any, Any]) -> Trajectory:
    """A trajectory of arrays by name. Raises Refusal for unknown names and for what is no array of numbers."""
    for name in value:
        if name not in FIELDS:
            raise Refusal(f"has no field {brief(name)}; {nearest(str(name), FIELDS)}")
    for name in FIELDS[:2]:
        if name not in value:
            raise Refusal(f"lacks {name}, which every trajectory has.")
    info, ended = value.get("info") or {}, value.get("ended") or False
    if not isinstance(info, Mapping) or not isinstance(ended, bool):
        raise Refusal("must have info as arrays by name, and ended as true or false.")
    try:
        given = {name: np.asarray(value[name]) for name in FIELDS[:4] if value.get(name) is not None}
        return Trajectory(**given, ended=ended, info={str(name): np.asarray(x) for name, x in info.items()})
    except ValueError as error:  # rows of unequal length
        raise Refusal(f"holds what is no array: {brief(str(error), 120)}.") from error


def of_file(file: Path) -> Trajectory:
    """A trajectory as `to_bytes` writes one."""
    try:
        with safe_open(file, "np") as told:
            arrays = {name: told.get_tensor(name) for name in told.keys()}  # noqa: SIM118
            ended = (told.metadata() or {}).get("ended", "false")
    except (SafetensorError, OSError, TypeError, AttributeError) as error:  # the last two: number formats that numpy lacks
        raise Refusal(f"is no safetensors file that can be read ({plain(error, 80)}); write it anew.") from error
    info = {name.removeprefix("info."): x for name, x in arrays.items() if name.startswith("info.")}
    rest = {name: x for name, x in arrays.items() if not name.startswith("info.")}
    return of_mapping({**rest, "info": info, "ended": ended == "true"})


def to_bytes(trajectory: Trajectory) -> bytes:
    """A trajectory as a safetensors file: its arrays by name, `info.NAME` what else was told, and whether it ended."""
    arrays = {name: x for name in FIELDS[:4] if (x := getattr(trajectory, name)) is not None}
    arrays |= {f"info.{name}": x for name, x in trajectory.info.items()}
    told = {name: np.ascontiguousarray(x) for name, x in arrays.items()}
    return save(told, {"ended": "true" if trajectory.ended else "false"})


def of_minari(place: str) -> Trajectory:
    """An episode of a Minari data set on this machine (nothing is fetched): its observations, actions, rewards, and what its infos
    say of each step."""
    try:
        import minari
    except ImportError:
        raise Refusal('names a Minari data set: pip install "penchant[embodied]".') from None
    named = EPISODE.fullmatch(place.removeprefix(MINARI))
    if named is None:  # also of a name that would lead out of minari's own folder
        raise Refusal("must name a Minari episode as minari:NAME/EPISODE.")
    name, episode = named.groups()
    try:
        data = minari.load_dataset(name, download=False)
        found = next(iter(data.iterate_episodes([int(episode)])))
    except (FileNotFoundError, ValueError, KeyError, IndexError, StopIteration) as error:
        raise Refusal(f"names no episode that is there ({plain(error, 120)}).") from error
    seen = found.observations
    if not isinstance(seen, np.ndarray) or not isinstance(found.actions, np.ndarray):
        raise Refusal("has observations or actions that are no arrays; flatten them when the data set is made.")
    acted = found.actions.reshape(len(found.actions), -1)
    seen = seen.reshape(len(seen), -1)
    infos = found.infos or {}
    flat = {name: x[-len(acted) :] for name, x in infos.items() if isinstance(x, np.ndarray) and x.ndim == 1}
    numbers = {name: x for name, x in flat.items() if x.dtype.kind in "fiub" and len(x) == len(acted)}
    ended = bool(np.asarray(found.terminations)[-1])
    return Trajectory(seen[: len(acted)], acted, np.asarray(found.rewards), seen[-1], ended, numbers)


def write_trajectories(rows: Iterable[Mapping[str, Any]], folder: Path) -> Path:
    """Rows of feedback with Trajectory objects as a folder that `open_trajectories` reads: rows.jsonl, and each trajectory
    once as a file by its content. Returns the file of rows."""
    lines = []

    def kept(value: Any) -> Any:
        if isinstance(value, list | tuple):
            return [kept(x) for x in value]
        if not isinstance(value, Trajectory):
            raise Refusal(f"a response is {type_words(value)}; it must be a Trajectory.")
        path = folder / "trajectories" / f"{value.digest}.safetensors"
        if not path.exists():
            write(path, to_bytes(value))
        return str(path.relative_to(folder))

    for row in rows:
        lines.append(json.dumps({name: kept(x) if name in COLUMNS else x for name, x in row.items()}, allow_nan=False))
    write(folder / "rows.jsonl", "".join(f"{line}\n" for line in lines))
    return folder / "rows.jsonl"

"""Responses that are no texts and stand beside the data: files that begin in its folder and may not leave it, or things in memory.
Rows carry their names, which hang on the content. What such a thing is, its own file says."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any, Literal, TypeVar

from penchant.errors import Refusal
from penchant.feedback.places import Records, find
from penchant.feedback.reading import Source, opened
from penchant.feedback.records import Problem
from penchant.words import brief

COLUMNS = ("chosen", "rejected", "completion", "responses", "completions")
"""Where responses stand in a row; prompts are texts."""


class Attached:
    """Things by name."""

    what = "response"
    """What one of them is called."""
    mend = ""
    """What to give instead of an address, and of a path where there is no folder."""

    def __init__(self, root: Path | None) -> None:
        """root: the folder that paths begin in and may not leave; None where there is none."""
        self.root = None if root is None else root.resolve()

    def name(self, value: Any) -> str:
        """The name of one of them. Raises Refusal, in words that follow the field's name."""
        raise NotImplementedError

    def file(self, path: str) -> Path:
        """The file a path leads to, which lies in the root."""
        if "://" in path:
            raise Refusal(f"is an address; nothing is fetched. Save the {self.what} beside the data and write its path.")
        if self.root is None:
            raise Refusal(f"is a path, but rows given in Python lie in no folder; say root=FOLDER, or {self.mend}.")
        if "\0" in path or Path(path).is_absolute():
            raise Refusal("must be a path that begins in the data's own folder.")
        file = (self.root / path).resolve()
        if not file.is_relative_to(self.root):
            raise Refusal(f"leads out of the data's own folder; {self.what}s lie within it.")
        if not file.is_file():
            raise Refusal("is no file that is there; mend the path.")
        return file


A = TypeVar("A", bound=Attached)


def open_attached(
    source: str | PathLike[str] | Any,
    make: Callable[[Path | None], A],
    root: str | PathLike[str] | None,
    bad_rows: Literal["refuse", "drop"],
) -> tuple[Source, A]:
    """Opens rows whose responses are named by what `make` gives for the root (unset: the data file's folder). Raises DataRefusal
    with all problems by row."""
    found = find(Path(source) if isinstance(source, PathLike) else source)
    if root is None and isinstance(source, str | PathLike) and Path(source).exists():
        place = Path(source)
        root = place if place.is_dir() else place.parent
    attached = make(None if root is None else Path(root))
    found.records = _Named(found.records, attached)
    return opened(found, bad_rows=bad_rows), attached


class _Named:
    """Rows with a name wherever there was a response, or the first thing that is wrong with one."""

    def __init__(self, records: Records, attached: Attached) -> None:
        self._records, self._attached = records, attached

    @property
    def blank(self) -> int:
        return self._records.blank

    def scan(self) -> Iterator[tuple[int, int, Any]]:
        for number, place, raw in self._records.scan():
            yield number, place, self._read(raw, number)

    @contextmanager
    def reading(self) -> Iterator[Callable[[int], Any]]:
        with self._records.reading() as fetch:
            yield lambda place: self._read(fetch(place), 0)

    def _read(self, raw: Any, number: int) -> Any:
        """Rows that are none are left to the reader of rows, which says so."""
        if not isinstance(raw, Mapping):
            return raw
        out = dict(raw)
        for field in COLUMNS:
            if field not in raw:
                continue
            many = field in ("responses", "completions") and isinstance(raw[field], list | tuple)
            try:
                out[field] = [self._attached.name(x) for x in raw[field]] if many else self._attached.name(raw[field])
            except Refusal as refusal:
                return Problem(number, field, brief(raw[field]), str(refusal), self._attached.what)
        return out

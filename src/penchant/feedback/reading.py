"""Sources of feedback: one pass checks every row and keeps an index of places and hashes, after which rows are read one by
one, so a file may be larger than memory. Texts are never kept, and nothing is put right in silence."""

from __future__ import annotations

import hashlib
import json
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, Literal

from penchant.errors import Refusal
from penchant.feedback.fields import ONE_TURN, REPEATED, TRANSCRIPTS
from penchant.feedback.formats import read_row
from penchant.feedback.places import Found, Records, find
from penchant.feedback.problems import BadRow, DataRefusal, Gathered
from penchant.feedback.records import Accounting, Kind, Problem, Row
from penchant.words import plain

_KINDS: dict[Kind, str] = {
    "pairs": "pairs",
    "labelled": "labelled completions",
    "lists": "lists of scored responses",
    "prompts": "prompts",
}

MIXED = "mixed kinds"
_CONVERSIONS = {
    TRANSCRIPTS: "Human/Assistant transcripts were read as chat turns, without the white space around each turn",
    "implicit-prompt pairs, strings": "the words both texts begin with were taken as the prompt; white space before the "
    "first difference went to the responses",
    ONE_TURN: "a prompt that is a text was read as one user turn, since its responses are chat messages",
    REPEATED: "responses that repeat the prompt were read without it",
}
"""A form, and what reading it did, for `Source.notes`."""


class Source:
    """Checked rows, read when they are asked for. The index costs 32 bytes a row: where it begins, its number, the hash of
    its prompt and of its content. So the four things that need all rows at once go by the index alone: splitting by
    `prompt_keys`, finding duplicates by `row_keys`, shuffling as an order of indices, and reading any row by seeking."""

    def __init__(self, records: Records, name: str, revision: str | None = None) -> None:
        self._records = records
        self._places = array("Q")
        self.numbers = array("Q")
        """Row numbers in the file, one per index."""
        self.name = name
        self.revision = revision
        """The commit of a hub data set."""
        self.kind: Kind = "pairs"
        self.formats: Counter[str] = Counter()
        """The forms rows came in, in plain words, with their number."""
        self.notes: list[str] = []
        """What was done to the source on the way, in plain words."""
        self.prompt_keys: Sequence[int] = array("Q")
        """64-bit hashes, one per row, equal for equal prompts (the same turns, or the same text)."""
        self.row_keys: Sequence[int] = array("Q")
        """64-bit hashes of all that is read of a row, so without its number and the columns nobody reads."""
        self.fingerprint = ""
        """A hash of all rows in their order, with the columns nobody reads; the same whatever file they came from."""
        self.accounting = Accounting()

    @property
    def format(self) -> str:
        """What the rows are, in plain words."""
        if len(self.formats) == 1:
            return next(iter(self.formats))
        return "; ".join(f"{n:,} × {form}" for form, n in self.formats.most_common())

    @property
    def dropped(self) -> dict[str, int]:
        """Reason → rows left out, which the caller asked for."""
        return self.accounting.dropped

    def __len__(self) -> int:
        return len(self._places)

    def __repr__(self) -> str:
        return f"Source({plain(self.name)}: {len(self):,} rows, {self.format})"

    def __getitem__(self, i: int) -> Row:
        return next(self.rows((i,)))

    def __iter__(self) -> Iterator[Row]:
        return self.rows(range(len(self)))

    def rows(self, indices: Iterable[int]) -> Iterator[Row]:
        """The rows at these indices, in that order, with the file opened once."""
        with self._records.reading() as fetch:
            for i in indices:
                if not -len(self) <= i < len(self):
                    raise IndexError(f"row {i} of {len(self)}")
                yield self._read(fetch, i % len(self))

    def _read(self, fetch: Any, i: int) -> Row:
        number = self.numbers[i]
        raw = fetch(self._places[i])
        try:
            row = None if isinstance(raw, Problem) else read_row(raw, number)[0]
        except BadRow:
            row = None
        if row is None or digests(row)[1] != self.row_keys[i]:
            raise Refusal(
                f"row {number} of {plain(self.name)} is not what it was when the file was checked; open it again."
            )
        return row


_PROMPT = json.JSONEncoder(ensure_ascii=False).encode


def digests(row: Row) -> tuple[int, int, bytes]:
    """(prompt key, row key, the whole digest the row key is the beginning of)."""
    said = (row.kind, row.responses, row.label, row.scores, row.annotator, row.strength, row.margin)
    said = said if row.weights is None else (*said, row.weights)
    digest = hashlib.blake2b(_PROMPT(row.prompt).encode(), digest_size=32)
    prompt = int.from_bytes(digest.digest()[:8], "little")
    digest.update(_PROMPT(said).encode())
    whole = digest.digest()
    return prompt, int.from_bytes(whole[:8], "little"), whole


def _extra(row: Row) -> bytes:
    """The columns nobody reads, for the fingerprint. A thing that is no JSON counts by its type; null is absence, since tables
    know no other."""
    there = sorted(item for item in row.extra.items() if item[1] is not None)
    return json.dumps(there, default=lambda x: type(x).__name__, skipkeys=True).encode() if there else b""


def open_source(
    source: str | PathLike[str] | Sequence[Any] | Any,
    *,
    name: str | None = None,
    bad_rows: Literal["refuse", "drop"] = "refuse",
) -> Source:
    """Opens rows of feedback and checks every one of them in one pass.

    `source`: a path to .jsonl, .jsonl.gz (unpacked once into the cache folder), .json (an array, read whole) or .parquet
    (converted once, memory-mapped); a folder saved by datasets; a `datasets.Dataset`; a sequence of mappings; a hub id
    "org/name" or "org/name:split". All columns and formats are in `formats.py`.

    Raises DataRefusal with all problems of all rows; with bad_rows="drop" rows with problems are left out and counted
    in `Source.dropped`. A source without rows, with rows of several kinds, or without a row that can be read is refused
    either way.
    """
    return opened(find(Path(source) if isinstance(source, PathLike) else source), name=name, bad_rows=bad_rows)


def opened(found: Found, *, name: str | None = None, bad_rows: Literal["refuse", "drop"] = "refuse") -> Source:
    """The same of records that were found."""
    if bad_rows not in ("refuse", "drop"):
        raise Refusal(f'bad_rows = {bad_rows!r}: must be "refuse" or "drop".')
    out = Source(found.records, name or found.name, found.revision)
    gathered = _index(out, found)
    read = out.accounting.read
    if not read:
        raise Refusal(f"{plain(out.name)} is empty; it must hold at least one row.")
    if gathered.count and bad_rows == "refuse":
        raise DataRefusal(out.name, gathered.shown(), gathered.count, gathered.rows, read)
    if mixed := gathered.reasons[MIXED]:
        mend = "Kinds are never left out: make one file of each."
        raise DataRefusal(out.name, gathered.examples[MIXED], mixed, mixed, read, mend)
    if not len(out):
        raise DataRefusal(out.name, gathered.shown(), gathered.count, gathered.rows, read, "No row is left; mend them.")
    out.accounting.kept = len(out)
    out.accounting.dropped = dict(gathered.reasons)
    out.accounting.examples = [problem for few in gathered.examples.values() for problem in few]
    return out


def _index(out: Source, found: Found) -> Gathered:
    """The one pass: every row checked, its place and hashes kept, its text forgotten."""
    gathered = Gathered()
    prompt_keys, row_keys = array("Q"), array("Q")
    whole = hashlib.sha256()
    first: Row | None = None
    first_form = ""
    for number, place, raw in found.records.scan():
        out.accounting.read += 1
        if isinstance(raw, Problem):
            gathered.add([raw])
            continue
        try:
            row, form = read_row(raw, number)
        except BadRow as bad:
            gathered.add(bad.problems)
            continue
        if first is None:
            first, first_form, out.kind = row, form, row.kind
        problem = _mixture(first, first_form, row, form)
        if problem is not None:
            gathered.add([problem])
            continue
        prompt_key, row_key, digest = digests(row)
        out._places.append(place)
        out.numbers.append(number)
        prompt_keys.append(prompt_key)
        row_keys.append(row_key)
        out.formats[form] += 1
        whole.update(digest)
        whole.update(_extra(row))
    out.prompt_keys, out.row_keys = prompt_keys, row_keys
    out.fingerprint = whole.hexdigest()[:32]
    out.notes = list(found.notes)
    for mark, said in _CONVERSIONS.items():
        if n := sum(k for form, k in out.formats.items() if form.endswith(mark)):
            out.notes.append(f"{said} ({n:,} rows)")
    if found.records.blank:
        out.notes.append(f"{found.records.blank:,} blank lines skipped")
    return gathered


def _mixture(first: Row, first_form: str, row: Row, form: str) -> Problem | None:
    """One source holds one kind of rows; and completions are either all labelled or all demonstrations."""
    if row.kind != first.kind:
        said = f"is a row of {_KINDS[row.kind]}, row {first.number} one of {_KINDS[first.kind]}; keep one kind in one file."
        return Problem(row.number, "", "", said, MIXED)
    if row.kind == "labelled" and form.startswith("labelled") != first_form.startswith("labelled"):
        other = "has no label" if form.startswith("labelled") else "has a label"
        this = "has a label" if form.startswith("labelled") else "is missing"
        said = f"{this}, row {first.number} {other}; label all rows or none (then all count as good)."
        return Problem(row.number, "label", "", said, "missing field")
    return None

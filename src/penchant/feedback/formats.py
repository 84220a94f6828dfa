"""One raw row (a mapping of columns) read as a Row, in any of the ecosystem's formats, with everything wrong said at once.
It opens no file: where the row came from is not its business."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from penchant.errors import nearest
from penchant.feedback.fields import flag, listed, name_of, number_of, prompt_of, response_of, same
from penchant.feedback.implicit import implicit_pair
from penchant.feedback.problems import BadRow, Faults, type_words
from penchant.feedback.records import Kind, Prompt, Row

COLUMNS: dict[Kind, tuple[str, ...]] = {
    "pairs": ("prompt", "chosen", "rejected"),
    "lists": ("prompt", "responses", "completions", "scores"),
    "labelled": ("prompt", "completion", "label"),
    "prompts": ("prompt",),
}
OPTIONAL = ("annotator", "strength", "margin")
FORMATS = (
    "{prompt, chosen, rejected}, {chosen, rejected}, {prompt, responses, scores}, {prompt, completion, label}, "
    "{prompt, completion} or {prompt}"
)
_MARKS: dict[str, Kind] = {
    "chosen": "pairs",
    "rejected": "pairs",
    "responses": "lists",
    "completions": "lists",
    "completion": "labelled",
}
"""The columns that tell the kind of a row."""
_WEAK_MARKS: dict[str, Kind] = {"scores": "lists", "label": "labelled"}
"""Columns that tell it where none of those is there: the row then lacks a field."""
_BARE: Kind = "prompts"


@dataclass(frozen=True)
class Layout:
    """What a set of column names means; the same for every row that has them."""

    kind: Kind | None
    extra: tuple[str, ...]
    faults: tuple[tuple[str, str, str], ...]
    """(field, reason, said)"""


@lru_cache(maxsize=256)
def layout(columns: tuple[str, ...]) -> Layout:
    """The kind of rows with these columns, the columns nobody reads, and what is wrong with the names."""
    faults: list[tuple[str, str, str]] = []
    kinds: list[Kind] = list(dict.fromkeys(kind for mark, kind in _MARKS.items() if mark in columns))
    kinds = kinds or [kind for mark, kind in _WEAK_MARKS.items() if mark in columns]
    if len(kinds) > 1:
        marks = " and ".join(repr(mark) for mark in _MARKS if mark in columns)
        said = f"the row has {marks}, which belong to different kinds of rows; a row is one of {FORMATS}."
        return Layout(None, (), (("", "unclear kind", said),))
    kind: Kind = kinds[0] if kinds else _BARE
    known = COLUMNS[kind] + OPTIONAL
    options = known if kinds else (*_MARKS, "prompt", "scores", "label", *OPTIONAL)
    extra = tuple(column for column in columns if column not in known)
    close = {}
    for column in extra:
        meant = near_miss(column, options)
        if meant is not None and meant not in columns:
            close[meant] = column
            faults.append((column, "misspelt column", f"no such column; did you mean {meant!r}? Rename one of them."))
    if not kinds and "prompt" not in columns and not close:
        said = f"no known column among {', '.join(map(repr, columns)) or 'none'}; a row is {FORMATS}."
        return Layout(None, (), (("", "no known column", said),))
    named = "completions" if "completions" in columns else "responses"
    required: dict[Kind, tuple[str, ...]] = {
        "pairs": ("chosen", "rejected"),
        "lists": ("prompt", named, "scores"),
        "labelled": ("prompt", "completion"),
        "prompts": ("prompt",),
    }
    for column in required[kind]:
        if column not in columns and column not in close:
            hint = f" {said}" if extra and (said := nearest(column, extra)).startswith("did you mean") else ""
            faults.append((column, "missing field", f"is missing; {kind} need it in every row.{hint}"))
    if "responses" in columns and "completions" in columns:
        faults.append(("completions", "unclear kind", "stands beside 'responses'; keep one of them."))
    return Layout(kind, extra, tuple(faults))


def near_miss(column: str, options: tuple[str, ...]) -> str | None:
    """The known column this one is probably meant to be: "choosen", "Prompt", "labels". Names with an ending of their own
    ("prompt_id", "annotator_age") mean something else."""
    folded = column.casefold()
    if any(folded.startswith((option + "_", option + "-", option + ".", option + " ")) for option in options):
        return None
    found = difflib.get_close_matches(folded, options, n=1, cutoff=0.8)
    return found[0] if found else None


def read_row(raw: object, number: int) -> tuple[Row, str]:
    """The row and the words for its format. Raises BadRow with everything that is wrong with it."""
    faults = Faults(number)
    if not isinstance(raw, Mapping):
        faults.add(
            "", raw, "not an object", f"a row must be an object of columns, this is {type_words(raw)}; a row is {FORMATS}."
        )
        raise BadRow(faults.found)
    columns = tuple(raw)
    if not all(isinstance(column, str) for column in columns):
        faults.add("", columns, "bad column name", "column names must be text.")
        raise BadRow(faults.found)
    shape = layout(columns)
    for field, reason, said in shape.faults:
        faults.add(field, raw.get(field, ...), reason, said)
    if faults.found or shape.kind is None:
        raise BadRow(faults.found)
    row, form = _READERS[shape.kind](raw, faults, shape.extra)
    if faults.found or row is None:
        raise BadRow(faults.found)
    return row, form


def _finish(
    raw: Mapping[str, Any],
    faults: Faults,
    extra: tuple[str, ...],
    kind: Kind,
    prompt: Prompt | None,
    responses: tuple[str, ...] = (),
    label: bool | None = None,
    scores: tuple[float, ...] | None = None,
) -> Row | None:
    annotator = name_of(faults, "annotator", raw.get("annotator"))
    strength = number_of(faults, "strength", raw.get("strength"))
    margin = number_of(faults, "margin", raw.get("margin"))
    if strength is not None and not 0 <= strength <= 1:
        faults.add(
            "strength", raw["strength"], "bad strength", "must lie in [0, 1]; 0.5 is no preference, 1 a certain one."
        )
    if prompt is None or faults.found:
        return None
    kept = {column: raw[column] for column in extra} if extra else {}
    return Row(faults.number, kind, prompt, responses, label, scores, annotator, strength, margin, kept)


def _pairs(raw: Mapping[str, Any], faults: Faults, extra: tuple[str, ...]) -> tuple[Row | None, str]:
    if "prompt" in raw:
        prompt, form = prompt_of(faults, raw["prompt"])
        if prompt is None:
            return None, ""
        prompt_1, w, form_w = response_of(faults, "chosen", raw["chosen"], prompt, form)
        prompt_2, l, form_l = response_of(faults, "rejected", raw["rejected"], prompt, form)
        if w is None or l is None:
            return None, ""
        if form_w != form_l or prompt_1 != prompt_2:
            faults.add("rejected", ..., "mixed forms", f"is {form_l} where 'chosen' is {form_w}; write both in one form.")
        said = f"explicit-prompt pairs, {form_w}"
    else:
        read = implicit_pair(faults, raw["chosen"], raw["rejected"])
        if read is None:
            return None, ""
        prompt_1, w, l, form = read
        said = f"implicit-prompt pairs, {form}"
    same(faults, w, l)
    return _finish(raw, faults, extra, "pairs", prompt_1, (w, l)), said


def _labelled(raw: Mapping[str, Any], faults: Faults, extra: tuple[str, ...]) -> tuple[Row | None, str]:
    prompt, form = prompt_of(faults, raw["prompt"])
    label = flag(faults, "label", raw["label"]) if "label" in raw else True
    if prompt is None:
        return None, ""
    prompt, response, form = response_of(faults, "completion", raw["completion"], prompt, form)
    what = "labelled completions" if "label" in raw else "demonstrations (prompt and completion, no label)"
    if response is None:
        return None, ""
    return _finish(raw, faults, extra, "labelled", prompt, (response,), label), f"{what}, {form}"


def _lists(raw: Mapping[str, Any], faults: Faults, extra: tuple[str, ...]) -> tuple[Row | None, str]:
    field = "responses" if "responses" in raw else "completions"
    prompt, form = prompt_of(faults, raw["prompt"])
    values, scores = listed(faults, field, raw[field]), listed(faults, "scores", raw["scores"])
    numbers = [number_of(faults, f"scores[{k}]", x, needed=True) for k, x in enumerate(scores or ())]
    if prompt is None or values is None or scores is None:
        return None, ""
    if len(values) < 2:
        faults.add(field, ..., "too few responses", f"holds {len(values)}; a list needs at least 2 to say which is better.")
    if len(values) != len(scores):
        said = f"holds {len(scores)} for {len(values)} {field}; give one score per response."
        faults.add("scores", ..., "scores unlike responses", said)
    read = [response_of(faults, f"{field}[{k}]", value, prompt, form) for k, value in enumerate(values)]
    if faults.found:
        return None, ""
    if any((p, f) != (read[0][0], read[0][2]) for p, _, f in read):
        faults.add(field, ..., "mixed forms", "are written in different forms; write all as texts or all as chat messages.")
    row = _finish(
        raw,
        faults,
        extra,
        "lists",
        read[0][0],
        tuple(y for _, y, _ in read if y is not None),
        scores=tuple(x for x in numbers if x is not None),
    )
    return row, f"lists of scored responses, {read[0][2]}"


def _prompts(raw: Mapping[str, Any], faults: Faults, extra: tuple[str, ...]) -> tuple[Row | None, str]:
    prompt, form = prompt_of(faults, raw["prompt"])
    return _finish(raw, faults, extra, "prompts", prompt), f"prompts, {form}"


_READERS = {"pairs": _pairs, "labelled": _labelled, "lists": _lists, "prompts": _prompts}

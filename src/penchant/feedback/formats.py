"""One raw row (a mapping of columns) read as a Row, in any of the ecosystem's formats, with everything wrong said at once.
It opens no file: where the row came from is not its business."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from penchant.errors import nearest
from penchant.feedback.fields import SAME, flag, listed, name_of, number_of, prompt_of, response_of
from penchant.feedback.implicit import implicit_pair
from penchant.feedback.problems import BadRow, Faults, type_words
from penchant.feedback.records import WEIGHTS, Kind, Prompt, Row
from penchant.feedback.spans import weights_of

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
    known = COLUMNS[kind] + OPTIONAL + WEIGHTS.get(kind, ())
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
    ("prompt_id", "annotator_age", "response1") mean something else."""
    folded = column.casefold()
    if folded[-1:].isdigit() or folded.startswith(tuple(option + mark for option in options for mark in "_-. ")):
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
    content = _READERS[shape.kind](raw, faults)
    annotator = name_of(faults, "annotator", raw.get("annotator"))
    strength = number_of(faults, "strength", raw.get("strength"))
    margin = number_of(faults, "margin", raw.get("margin"))
    if strength is not None and not 0 <= strength <= 1:
        faults.add(
            "strength",
            raw["strength"],
            "bad strength",
            "must lie in [0, 1]: the probability that the chosen is preferred; 0.5 is a tie, 1 is certain.",
        )
    weights = None if content is None else weights_of(faults, raw, shape.kind, content[2])
    if faults.found or content is None:
        raise BadRow(faults.found)
    said, prompt, responses, label, scores = content
    extra = {column: raw[column] for column in shape.extra} if shape.extra else {}
    return Row(number, shape.kind, prompt, responses, label, scores, annotator, strength, margin, extra, weights), said


Content = tuple[str, Prompt, tuple[str, ...], bool | None, tuple[float, ...] | None]
"""The words for the format, the prompt, the responses, the label, the scores."""


def _pairs(raw: Mapping[str, Any], faults: Faults) -> Content | None:
    if "prompt" not in raw:
        read = implicit_pair(faults, raw["chosen"], raw["rejected"])
        if read is None:
            return None
        prompt, w, l, form = read
        said = f"implicit-prompt pairs, {form}"
    else:
        given, form = prompt_of(faults, raw["prompt"])
        prompt, w, form_w = response_of(faults, "chosen", raw["chosen"], given, form)
        prompt_l, l, form_l = response_of(faults, "rejected", raw["rejected"], given, form)
        if prompt is None or w is None or l is None:
            return None
        if form_w != form_l or prompt != prompt_l:
            faults.add("rejected", ..., "mixed forms", f"is {form_l} where 'chosen' is {form_w}; write both in one form.")
        said = f"explicit-prompt pairs, {form_w}"
    if w == l:
        faults.add("chosen", w, "chosen equals rejected", SAME)
    return said, prompt, (w, l), None, None


def _labelled(raw: Mapping[str, Any], faults: Faults) -> Content | None:
    given, form = prompt_of(faults, raw["prompt"])
    prompt, response, form = response_of(faults, "completion", raw["completion"], given, form)
    label = flag(faults, "label", raw["label"]) if "label" in raw else True
    if prompt is None or response is None:
        return None
    what = "labelled completions" if "label" in raw else "demonstrations (prompt and completion, no label)"
    return f"{what}, {form}", prompt, (response,), label, None


def _lists(raw: Mapping[str, Any], faults: Faults) -> Content | None:
    field = "responses" if "responses" in raw else "completions"
    given, form = prompt_of(faults, raw["prompt"])
    values, scores = listed(faults, field, raw[field]), listed(faults, "scores", raw["scores"])
    read = [response_of(faults, f"{field}[{k}]", value, given, form) for k, value in enumerate(values or ())]
    numbers = [number_of(faults, f"scores[{k}]", x, needed=True) for k, x in enumerate(scores or ())]
    if values is None or scores is None:
        return None
    if len(values) < 2:
        faults.add(field, ..., "too few responses", f"holds {len(values)}; a list needs at least 2 to say which is better.")
    if len(values) != len(scores):
        said = f"holds {len(scores)} for {len(values)} {field}; give one score per response."
        faults.add("scores", ..., "scores unlike responses", said)
    if faults.found:
        return None
    prompt, _, form = read[0]
    if any((p, f) != (prompt, form) for p, _, f in read):
        faults.add(field, ..., "mixed forms", "are written in different forms; write all as texts or all as chat messages.")
    if prompt is None:
        return None
    responses = tuple(y for _, y, _ in read if y is not None)
    return f"lists of scored responses, {form}", prompt, responses, None, tuple(x for x in numbers if x is not None)


def _prompts(raw: Mapping[str, Any], faults: Faults) -> Content | None:
    prompt, form = prompt_of(faults, raw["prompt"])
    return None if prompt is None else (f"prompts, {form}", prompt, (), None, None)


_READERS = {"pairs": _pairs, "labelled": _labelled, "lists": _lists, "prompts": _prompts}

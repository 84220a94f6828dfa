"""How much parts of a response count, as spans of characters: what a row may say, and what is wrong with it. Which tokens a
span covers is a tokenizer's business, not this file's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from penchant.feedback.fields import listed, number_of
from penchant.feedback.problems import Faults
from penchant.feedback.records import WEIGHTS, Kind, Span

LEAST, MOST = 1e-6, 1e6
"""Weights other than 0: a mean divides by their sum, and the slope of a mean by less than this leaves float32."""


def weights_of(
    faults: Faults, raw: Mapping[str, Any], kind: Kind, responses: Sequence[str]
) -> tuple[tuple[Span, ...], ...] | None:
    """What a row says of its responses' parts; None where it says nothing. Adds to `faults` what is wrong."""
    names = [name for name in WEIGHTS.get(kind, ()) if raw.get(name) is not None]
    if not names:
        return None
    if kind == "lists":
        (name,) = names
        texts = raw["responses" if "responses" in raw else "completions"]
        given = listed(faults, name, raw[name])
        if given is None:
            return None
        if len(given) != len(responses):
            said = f"holds {len(given)} for {len(responses)} responses; give one list of spans per response, [] for none."
            faults.add(name, ..., "weights unlike responses", said)
            return None
        fields = [(f"{name}[{k}]", spans, text) for k, (spans, text) in enumerate(zip(given, texts, strict=True))]
    else:
        fields = [(name, raw.get(name), raw[name.removesuffix("_weights")]) for name in WEIGHTS[kind]]
    return tuple(_spans(faults, *field, response) for field, response in zip(fields, responses, strict=True))


def _spans(faults: Faults, field: str, value: Any, written: Any, response: str) -> tuple[Span, ...]:
    if value is None:
        return ()
    given = listed(faults, field, value)
    if not given:
        return ()
    if (written if isinstance(written, str) else written[-1]["content"]) != response:
        said = (
            "counts characters of a text that is not read as it stands (it repeats its prompt, or is trimmed); write the row "
            "as {prompt, chosen, rejected} with the response alone."
        )
        faults.add(field, ..., "weights of another text", said)
        return ()
    spans = [_span(faults, f"{field}[{k}]", one, len(response)) for k, one in enumerate(given)]
    found = sorted(span for span in spans if span is not None)
    for (_, end, _), (start, _, _) in pairwise(found):
        if start < end:
            said = f"has two spans over character {start}, so its weight is not clear; let them end where the next begins."
            faults.add(field, ..., "overlapping weights", said)
            break
    return tuple(found)


def _span(faults: Faults, field: str, value: Any, length: int) -> Span | None:
    given = listed(faults, field, value)
    if given is None:
        return None
    if len(given) != 3:
        faults.add(field, value, "bad weight", "must be [start, end, weight]: characters from start up to end, from 0.")
        return None
    start, end, weight = (number_of(faults, field, x, needed=True) for x in given)
    if start is None or end is None or weight is None:
        return None
    if start != int(start) or end != int(end) or not 0 <= start < end <= length:
        faults.add(
            field, value, "bad weight", f"must have 0 ≤ start < end ≤ {length}, the response's length in characters."
        )
        return None
    if weight != 0 and not LEAST <= weight <= MOST:
        said = f"must have a weight of 0, or from {LEAST:f} to {MOST:,.0f}; 1 is what all other characters have."
        faults.add(field, value, "bad weight", said)
        return None
    return int(start), int(end), weight

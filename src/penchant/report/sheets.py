"""The page's part on responses that are no texts: a contact sheet of what was made for each prompt before and after. It shows what
the evidence holds and draws nothing itself."""

from __future__ import annotations

import re
from dataclasses import dataclass

from markupsafe import Markup

from penchant.evaluation.evidence import RunEvidence, SampleEvidence

ROWS = 24
"""Prompts on a sheet."""
EACH = 8
"""Responses of one prompt, on either side."""
URI = re.compile(r"data:image/(png|jpeg|svg\+xml);base64,[A-Za-z0-9+/]+={0,2}")
"""What is put into the page: an evidence file that says something else is shown without it."""


@dataclass(frozen=True)
class Side:
    """What was made for a prompt, with the mean scores of all of it."""

    pictures: tuple[Markup, ...]
    score: float | None
    guard: float | None


@dataclass(frozen=True)
class SheetRow:
    """A prompt, before and after."""

    prompt: str
    before: Side
    after: Side


def sheet(evidence: RunEvidence) -> list[SheetRow]:
    """The rows of the contact sheet: prompts of the same words stand together. Empty where responses are texts."""
    before, after = evidence.samples_before, evidence.samples_after
    known = after or before
    if known is None or known.shown is None:
        return []
    places: dict[str, list[int]] = {}
    for i, prompt in enumerate(known.prompts):
        places.setdefault(prompt, []).append(i)
    some = list(places.items())[:ROWS]
    return [SheetRow(prompt, side(before, at), side(after, at)) for prompt, at in some]


def side(samples: SampleEvidence | None, at: list[int]) -> Side:
    """What was made for the prompts at these places."""
    if samples is None or samples.shown is None:
        return Side((), None, None)
    pictures = [Markup(uri) for i in at for uri in samples.shown[i] if URI.fullmatch(uri)][:EACH]
    return Side(tuple(pictures), mean(samples.scores, at), mean(samples.guard, at))


def mean(scores: list[list[float | None]] | None, at: list[int]) -> float | None:
    """Of what could be judged of the prompts at these places."""
    given = [x for i in at for x in (scores[i] if scores is not None else []) if x is not None]
    return sum(given) / len(given) if given else None

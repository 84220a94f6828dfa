"""Answers to be judged: rows with two or more responses, or files joined by prompt. It reads; who judges is not its
business."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations, zip_longest
from pathlib import Path
from typing import Any

from penchant.errors import Refusal
from penchant.feedback.fields import listed, prompt_of, response_of
from penchant.feedback.formats import read_row
from penchant.feedback.places import find
from penchant.feedback.problems import BadRow, DataRefusal, Faults
from penchant.feedback.records import Problem, Prompt
from penchant.files import fingerprint
from penchant.words import plain


@dataclass(frozen=True)
class Answered:
    """A prompt and what was answered to it."""

    prompt: Prompt
    responses: tuple[str, ...]
    names: tuple[str, ...]
    """Who gave each response, or what it was called."""
    labels: tuple[float, ...] | None = None
    """What the data says of the responses, the larger the better; None where it says nothing."""

    @property
    def key(self) -> str:
        """The prompt, for joining and for intervals."""
        return json.dumps(self.prompt)


@dataclass(frozen=True)
class Question:
    """Two answers to one prompt."""

    prompt: Prompt
    a: str
    b: str
    name_a: str = ""
    name_b: str = ""
    label: float | None = None
    """1 where the data prefers a, 0 where b, ½ for a tie; None where it says nothing."""

    @property
    def key(self) -> str:
        return json.dumps(self.prompt)

    @property
    def identity(self) -> str:
        """A name by content, the same whichever stands first."""
        return fingerprint(self.key, *sorted((self.a, self.b)))[:16]


def questions(rows: list[Answered]) -> list[Question]:
    """Every two different answers to a prompt, each pair of texts once."""
    found: dict[str, Question] = {}
    for row in rows:
        for i, j in combinations(range(len(row.responses)), 2):
            if row.responses[i] == row.responses[j]:
                continue
            label = None
            if row.labels is not None:
                label = 1.0 if row.labels[i] > row.labels[j] else 0.0 if row.labels[i] < row.labels[j] else 0.5
            one = Question(row.prompt, row.responses[i], row.responses[j], row.names[i], row.names[j], label)
            found.setdefault(one.identity, one)
    return list(found.values())


def read_answers(source: str) -> list[Answered]:
    """The rows of a file: {prompt, responses} as `penchant sample --json` prints them, with scores or without, pairs, or
    {prompt, completion}. Raises DataRefusal with all that is wrong."""
    found = find(source)
    rows: list[Answered] = []
    wrong: list[Problem] = []
    bad = read = 0
    for number, _, raw in found.records.scan():
        read += 1
        try:
            rows.append(_read(raw, number))
        except BadRow as problems:
            bad += 1
            wrong += problems.problems
    if wrong:
        raise DataRefusal(found.name, wrong, len(wrong), bad, read, "Mend these rows; each needs a prompt and its answers.")
    if not rows:
        raise Refusal(f"{plain(found.name)} is empty; it must hold prompts with their answers.")
    return rows


def joined(*sources: str) -> tuple[list[Answered], int]:
    """Several files' answers to the same prompts, the k-th of one beside the k-th of the others; and how many prompts stand in one
    file only. They are called by their files' names."""
    names = [Path(one).stem for one in sources]
    if len(set(names)) < len(names):
        names = list(sources)
    if len(set(names)) < len(names):
        raise Refusal("a file is named twice; its answers cannot be held against themselves.")
    answers = [_by_prompt(read_answers(one)) for one in sources]
    rows, apart = [], 0
    for key in dict.fromkeys(key for one in answers for key in one):
        here = [(name, *one[key]) for name, one in zip(names, answers, strict=True) if key in one]
        if len(here) < 2:
            apart += 1
            continue
        prompt = here[0][1]
        for said in zip_longest(*(some for *_, some in here)):
            known = [(name, text) for (name, *_), text in zip(here, said, strict=True) if text is not None]
            if len(known) > 1:
                rows.append(Answered(prompt, tuple(text for _, text in known), tuple(name for name, _ in known)))
    if not rows:
        raise Refusal(f"{', '.join(map(plain, sources))} answer no prompt in common; sample them from the same prompts.")
    return rows, apart


def _by_prompt(rows: list[Answered]) -> dict[str, tuple[Prompt, list[str]]]:
    found: dict[str, tuple[Prompt, list[str]]] = {}
    for row in rows:
        found.setdefault(row.key, (row.prompt, []))[1].extend(row.responses)
    return found


def _read(raw: Any, number: int) -> Answered:
    if isinstance(raw, Problem):
        raise BadRow([raw])
    bare = next((name for name in ("responses", "completions") if isinstance(raw, Mapping) and name in raw), None)
    if bare is not None and raw.get("scores") is None:
        return _unscored(raw, bare, number)
    row = read_row(raw, number)[0]
    if row.kind == "pairs":
        # a strength of ½ or below says that the chosen is not the better one
        liked = 1.0 if row.strength is None else row.strength
        return Answered(row.prompt, row.responses, ("chosen", "rejected"), (liked, 1 - liked))
    if row.kind == "prompts":
        raise BadRow(
            [Problem(number, "", "", "has a prompt and no answer; `penchant sample --json` makes answers.", "bare")]
        )
    return Answered(row.prompt, row.responses, _numbered(len(row.responses)), row.scores)


def _unscored(raw: Mapping[str, Any], field: str, number: int) -> Answered:
    """Responses that nobody has scored."""
    faults = Faults(number)
    given, form = prompt_of(faults, raw.get("prompt"))
    read = [
        response_of(faults, f"{field}[{k}]", y, given, form) for k, y in enumerate(listed(faults, field, raw[field]) or ())
    ]
    texts = [y for _, y, _ in read if y is not None]
    if not texts and not faults.found:
        faults.add(field, ..., "too few responses", "holds none.")
    if faults.found or not read or read[0][0] is None:
        raise BadRow(faults.found)
    return Answered(read[0][0], tuple(texts), _numbered(len(texts)))


def _numbered(n: int) -> tuple[str, ...]:
    return tuple(f"answer {k + 1}" for k in range(n))


def in_chunks(items: list[Any], size: int) -> Iterator[list[Any]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]

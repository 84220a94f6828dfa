"""What one person said about one prompt: a Row, in the ecosystem's own formats. Nothing here knows a tokenizer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypedDict

Kind = Literal["pairs", "labelled", "lists", "prompts"]
"""What the rows of a source are: {prompt, chosen, rejected}; {prompt, completion, label}; {prompt, responses, scores};
{prompt} alone."""

STOPPED: dict[Kind, tuple[str, ...]] = {
    "pairs": ("chosen_stopped", "rejected_stopped"),
    "labelled": ("completion_stopped",),
}
"""Columns in `Row.extra` that say whether each response ended by itself. Where one is false the response was cut at a length
limit when it was sampled, and no stop token is trained after it."""


WEIGHTS: dict[Kind, tuple[str, ...]] = {
    "pairs": ("chosen_weights", "rejected_weights"),
    "labelled": ("completion_weights",),
    "lists": ("response_weights",),
}
"""Columns that say how much parts of a response count: [[start, end, weight], …] in characters; for lists one such list per
response."""

Span = tuple[int, int, float]
"""Characters start to end (not included) of a response count `weight` each; all others count 1."""


class Message(TypedDict):
    """One chat turn."""

    role: str
    content: str


Prompt = str | tuple[Message, ...]


def as_text(prompt: Prompt) -> str:
    """A prompt as one text: the string itself, or its turns by name."""
    if isinstance(prompt, str):
        return prompt
    return "\n\n".join(f"{turn['role']}: {turn['content']}" for turn in prompt)


@dataclass(frozen=True)
class Row:
    """One row of feedback, after checking. Responses are plain texts: the content of the one assistant turn that
    follows the prompt."""

    number: int
    """Its place in the source, counted from 1: the line of a JSONL file, the row of a table."""
    kind: Kind
    prompt: Prompt
    """A string, or the chat turns before the response."""
    responses: tuple[str, ...] = ()
    """Pairs: (chosen, rejected). Labelled: one. Lists: as many as were given. Prompts: none."""
    label: bool | None = None
    scores: tuple[float, ...] | None = None
    annotator: str | None = None
    strength: float | None = None
    """P(chosen ≻ rejected): the probability that the chosen is preferred, in [0, 1]. 1/2 is a tie, 1 is certain."""
    margin: float | None = None
    """How much better the chosen is: a difference of scores, any number."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Columns nobody reads yet, kept for who does."""
    weights: tuple[tuple[Span, ...], ...] | None = None
    """For each response how much its parts count; None where the row says nothing of it."""


@dataclass(frozen=True)
class Problem:
    """One thing wrong with one row, said so that its owner can mend it."""

    number: int
    """Row number, from 1; 0 where the whole source is meant."""
    field: str
    value: str
    """What stood there, shortened."""
    said: str
    """What is wrong, and the mend."""
    reason: str = ""
    """The kind of problem in two or three words, for counting."""

    def __str__(self) -> str:
        where = f"row {self.number}" if self.number else "the file"
        value = f" = {self.value}" if self.value else ""
        name = f", {self.field}{value}" if self.field else ""
        return f"{where}{name}: {self.said}"


@dataclass
class Accounting:
    """What became of every row that was read. Nothing is dropped without being counted here."""

    read: int = 0
    kept: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    """Reason → rows."""
    truncated: int = 0
    identical: int = 0
    """Pairs whose responses became identical after truncation; they are among the dropped."""
    template_differs: int = 0
    """Rows whose whole chat the template renders otherwise than prompt + completion (trimmed text, stripped thoughts)."""
    unfinished: int = 0
    """Rows with a response that was cut when it was sampled; it gets no stop token."""
    weighted: int = 0
    """Rows that say how much single parts of a response count."""
    examples: list[Problem] = field(default_factory=list)
    """The first rows that were dropped, with the reason."""

    def drop(self, reason: str, problem: Problem | None = None) -> None:
        self.dropped[reason] = self.dropped.get(reason, 0) + 1
        if problem is not None and len(self.examples) < 20:
            self.examples.append(replace(problem, reason=problem.reason or reason))

    @property
    def lost(self) -> int:
        return sum(self.dropped.values())

    def __str__(self) -> str:
        reasons = "".join(f", {n:,} {reason}" for reason, n in sorted(self.dropped.items()))
        unfinished = f" / cut when sampled {self.unfinished:,}" if self.unfinished else ""
        return (
            f"kept {self.kept:,} of {self.read:,} / dropped {self.lost:,}{f' ({reasons[2:]})' if reasons else ''} / "
            f"truncated {self.truncated:,} / identical after truncation {self.identical:,}{unfinished}"
        )

"""Rows that have a prompt in common are read as one row, and a response that several of them have is read once; its gradient
adds up. What is equal is equal token by token; how rows are read is not known here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from torch import Tensor

from penchant.domains.base import Part

Responses = Sequence[Sequence[Tensor]]


@dataclass(frozen=True, eq=False)
class Merged:
    """Rows with no prompt twice, and under a prompt no response twice."""

    contexts: list[Tensor]
    responses: list[list[Tensor]]
    place: list[int]
    """Where each response that was given, flat in row order, stands among these."""


def merge(contexts: Sequence[Tensor], responses: Responses, alike: bool = True) -> Merged:
    """alike: whether equal responses are one; they are not where something else is known of each."""
    rows = _numbered(contexts, responses, alike)
    made: dict[int, dict[int, Tensor]] = {}
    first: dict[int, Tensor] = {}
    for (prompt, numbers), x, ys in zip(rows, contexts, responses, strict=True):
        if ys:
            first.setdefault(prompt, x)
            made.setdefault(prompt, {}).update(zip(numbers, ys, strict=True))
    starts = dict(zip(made, accumulate(map(len, made.values()), initial=0), strict=False))
    at = {prompt: {number: k for k, number in enumerate(some)} for prompt, some in made.items()}
    place = [starts[prompt] + at[prompt][number] for prompt, numbers in rows for number in numbers]
    return Merged(list(first.values()), [list(some.values()) for some in made.values()], place)


def unmerged(contexts: Sequence[Tensor], responses: Responses) -> Merged:
    """Rows as they were given."""
    return Merged(list(contexts), [list(ys) for ys in responses], list(range(sum(map(len, responses)))))


def parts(contexts: Sequence[Tensor], responses: Responses, share: bool, alike: bool = True) -> list[dict[Part, int]]:
    """Tokens that are read of each row, by what they belong to: its prompt, once or with every response (share), and each
    response but for its last token, which is not read."""
    out: list[dict[Part, int]] = []
    for (prompt, numbers), x, ys in zip(_numbered(contexts, responses, alike), contexts, responses, strict=True):
        each = {(prompt, k): len(y) - 1 + (0 if share else len(x)) for k, y in zip(numbers, ys, strict=True)}
        out.append(({(prompt,): len(x)} if share and ys else {}) | each)
    return out


def _numbered(contexts: Sequence[Tensor], responses: Responses, alike: bool) -> list[tuple[int, list[int]]]:
    """Every row's prompt, and every one of its responses, as a number; equal numbers, equal tokens."""
    known: dict[bytes, int] = {}
    number = lambda x: known.setdefault(x.numpy().tobytes(), len(known))  # noqa: E731
    rows = [(number(x), [number(y) for y in ys]) for x, ys in zip(contexts, responses, strict=True)]
    if alike:
        return rows
    count = iter(range(sum(map(len, responses))))
    return [(prompt, [next(count) for _ in numbers]) for prompt, numbers in rows]

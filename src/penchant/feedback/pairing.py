"""One kind of rows made into another: pairs into labelled responses, scored lists into pairs. It invents no judgement:
equal scores make no pair, and what is left out is counted."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import combinations, pairwise
from typing import Literal, get_args

from penchant.errors import Refusal, nearest
from penchant.feedback.records import STOPPED, Accounting, Kind, Prompt, Row
from penchant.words import brief

How = Literal["best-worst", "all", "ranked"]
_HOW_WORDS: dict[How, str] = {
    "best-worst": "the best against the worst",
    "all": "every two responses of different scores",
    "ranked": "neighbours in the ranking",
}


def pair(
    prompt: Prompt,
    responses: Sequence[str],
    scores: Sequence[float],
    how: How,
    *,
    least: float = 0.0,
) -> list[tuple[int, int, float]]:
    """(i, j, scores[i] − scores[j]): response i is preferred to j.

    "best-worst": the highest score against the lowest, the first of equals. "all": every two whose scores differ.
    "ranked": each against its neighbour in the order of scores. A margin must be above 0 and at least `least`; a response
    is never held against its own text (samples repeat themselves), whatever the scores say.

    Raises Refusal for unequal numbers of responses and scores, and for scores that are not finite.
    """
    if how not in get_args(How):
        raise Refusal(f"how = {how!r}: {nearest(str(how), get_args(How))}")
    if not 0 <= least < math.inf:
        raise Refusal(f"least = {least!r}: must be a finite margin, 0 or more.")
    if len(responses) != len(scores):
        raise Refusal(
            f"{len(scores)} scores for {len(responses)} responses to {brief(prompt)}; give one score per response."
        )
    for k, score in enumerate(scores):
        if not math.isfinite(score):
            said = "leave failed judgements out before pairing"
            raise Refusal(f"score {k} = {score} of the responses to {brief(prompt)} is not finite; {said}.")
    order = sorted(range(len(scores)), key=lambda k: -scores[k])  # stable: the first of equals comes first
    if how == "best-worst":
        lowest = min(scores, default=0.0)
        candidates = [(order[0], next(k for k in order if scores[k] == lowest))] if order else []
    elif how == "all":
        candidates = list(combinations(order, 2))
    else:
        candidates = list(pairwise(order))
    found = [(i, j, float(scores[i] - scores[j])) for i, j in candidates if responses[i] != responses[j]]
    return [(i, j, margin) for i, j, margin in found if margin > 0 and margin >= least]


class Conversion(Iterator[Row]):
    """Converted rows, one by one; `said` tells what was done, and how much of it so far."""

    def __init__(self, rows: Iterable[Row], kind: Kind, how: How) -> None:
        self.accounting = Accounting()
        """Rows read; rows that gave at least one (kept); rows that gave none, with the reason."""
        self.made = 0
        """Rows given out."""
        self.ties = 0
        """Candidates for a pair with equal scores or the same text."""
        self._done = "rows left as they are"
        self._rows = self._convert(rows, kind, how)

    @property
    def said(self) -> str:
        ties = f"; {self.ties:,} ties or repeats left out" if self.ties else ""
        return f"{self._done}: {self.accounting.read:,} rows gave {self.made:,}{ties}"

    def __next__(self) -> Row:
        row = next(self._rows)
        self.made += 1
        return row

    def _convert(self, rows: Iterable[Row], kind: Kind, how: How) -> Iterator[Row]:
        for row in rows:
            self.accounting.read += 1
            if row.kind == kind:
                made = [row]
            elif (row.kind, kind) == ("pairs", "labelled"):
                self._done = (
                    "pairs read as labelled responses (the chosen true, the rejected false; strength and margin left out)"
                )
                made = _labelled(row)
            elif (row.kind, kind) == ("lists", "pairs"):
                self._done = f"scored lists made into pairs ({_HOW_WORDS[how]}, the margin being the difference of scores)"
                made = self._pairs(row, how)
            else:
                raise Refusal(
                    f"row {row.number}: {row.kind} cannot be made into {kind}; penchant makes pairs into labelled, "
                    "and lists into pairs."
                )
            if made:
                self.accounting.kept += 1
            else:
                self.accounting.drop("no two responses of different scores")
            yield from made

    def _pairs(self, row: Row, how: How) -> list[Row]:
        scores = row.scores or ()
        found = pair(row.prompt, row.responses, scores, how)
        candidates = {"best-worst": 1, "all": math.comb(len(scores), 2), "ranked": len(scores) - 1}[how]
        self.ties += candidates - len(found)
        return [
            replace(
                row,
                kind="pairs",
                responses=(row.responses[i], row.responses[j]),
                scores=None,
                margin=margin,
                weights=None if row.weights is None else (row.weights[i], row.weights[j]),
            )
            for i, j, margin in found
        ]


def crossed(scores: Sequence[float], each: int) -> list[tuple[int, int, float]]:
    """(i, j, scores[i] − scores[j]) of the `each` best against the `each` worst, every one with every other: each² pairs, as
    GRAPE makes them of one task's episodes (arXiv 2411.19309, algorithm 1; its experiments have each = 1). With fewer than 2 ·
    each responses fewer are taken, so that none is on both sides; equal scores make no pair. Raises Refusal for each < 1 and
    scores that are not finite."""
    if each < 1:
        raise Refusal(f"each={each}: at least one response from either end is needed.")
    if not all(map(math.isfinite, scores)):
        raise Refusal("a score is not finite; leave failed judgements out before pairing.")
    order = sorted(range(len(scores)), key=lambda k: -scores[k])
    m = min(each, len(order) // 2)
    found = [(i, j, float(scores[i] - scores[j])) for i in order[:m] for j in order[len(order) - m :]]
    return [(i, j, margin) for i, j, margin in found if margin > 0]


def _labelled(row: Row) -> list[Row]:
    """The chosen as good, the rejected as bad, each with what is known of its end."""
    kept = {name: value for name, value in row.extra.items() if name not in STOPPED["pairs"]}
    ends = [{name: row.extra[was] for name in STOPPED["labelled"] if was in row.extra} for was in STOPPED["pairs"]]
    parts = [None, None] if row.weights is None else [(spans,) for spans in row.weights]
    return [
        replace(
            row,
            kind="labelled",
            responses=(y,),
            label=good,
            strength=None,
            margin=None,
            extra={**kept, **end},
            weights=part,
        )
        for y, good, end, part in zip(row.responses, (True, False), ends, parts, strict=True)
    ]


def convert(rows: Iterable[Row], kind: Kind, *, how: How = "best-worst") -> Conversion:
    """The rows as rows of another kind, lazily: pairs → labelled, lists → pairs (`how` as in `pair`), or left as they are.
    Converted rows keep the number of the row they come from. Anything else is refused, since it would need a judgement."""
    if how not in get_args(How):
        raise Refusal(f"how = {how!r}: {nearest(str(how), get_args(How))}")
    return Conversion(rows, kind, how)

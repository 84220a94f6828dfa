"""Scored feedback as preferences under goals: every response is the preferred one where its own score is asked for. Rows go
in and rows come out; the scores are what somebody gave, none is made here."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from penchant.errors import Refusal
from penchant.feedback.fields import LARGEST
from penchant.feedback.records import STOPPED, Message, Prompt, Row
from penchant.files import read_json, write_json
from penchant.words import brief

SCORES = (("chosen_score", "rejected_score"), ("score_chosen", "score_rejected"))
"""Columns that hold the scores of a pair: as penchant's own runs write them, and as UltraFeedback's do."""
FILE = "goals.json"
"""Where a model that was trained towards goals keeps its scale."""


@dataclass(frozen=True)
class Goals:
    """A scale of scores, and how a goal on it is put to a model: the same words in training, evaluation and use."""

    low: float
    high: float
    system: bool = True
    """Whether a goal stands in a system turn; else at the head of the first turn, for templates that know no system turn."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise Refusal(f"goals from {self.low:g} to {self.high:g}: give the lowest and the highest score, as in 1,10.")

    def check(self, score: float, what: str) -> float:
        """The score, where it lies on the scale."""
        if not self.low <= score <= self.high:
            raise Refusal(
                f"{what} is {score:g}, but goals go from {self.low:g} to {self.high:g}; give the scale that holds it."
            )
        return score

    def text(self, goal: float) -> str:
        """What the model is told. Whole numbers have no decimals."""
        ends = f"from {self.low:g} (lowest) to {self.high:g} (highest)"
        return f"Write an answer that would be scored {self.check(goal, 'the goal'):g} on a scale {ends}."

    def ask(self, prompt: Prompt, goal: float) -> Prompt:
        """The prompt with the goal before it, in a system turn (at the head of one that is there) or in the first turn."""
        said = self.text(goal)
        if isinstance(prompt, str) and not self.system:
            return f"{said}\n\n{prompt}"
        turns = (Message(role="user", content=prompt),) if isinstance(prompt, str) else prompt
        if self.system and turns[0]["role"] != "system":
            return (Message(role="system", content=said), *turns)
        return (Message(role=turns[0]["role"], content=f"{said}\n\n{turns[0]['content']}"), *turns[1:])

    def save(self, folder: Path) -> None:
        """Leaves the scale with a model."""
        write_json(folder / FILE, asdict(self))

    @classmethod
    def of(cls, folder: Path) -> Goals | None:
        """The scale a model was trained with; None where it was not."""
        path = folder / FILE
        if not path.is_file():
            return None
        try:
            said = read_json(path)
            return cls(float(said["low"]), float(said["high"]), said["system"] is True)
        except (KeyError, TypeError, ValueError, json.JSONDecodeError, RecursionError) as error:
            raise Refusal(
                f'{path} holds no scale of goals ({error}); write {{"low": 1, "high": 10, "system": true}}.'
            ) from None


def scores_of(row: Row) -> tuple[float, ...] | None:
    """What each response was scored; None where a score is missing. Raises Refusal for what is no number."""
    if row.kind == "lists":
        return row.scores
    for names in SCORES:
        if not any(name in row.extra for name in names):
            continue
        found = tuple(row.extra.get(name) for name in names)
        for name, score in zip(names, found, strict=True):
            if score is None:
                continue
            if isinstance(score, bool) or not isinstance(score, int | float) or (abs(score) > LARGEST):
                raise Refusal(
                    f"row {row.number}, {name} = {brief(score)}: it must be a number within ±{LARGEST:g}, or null where it "
                    "is missing."
                )
        numbers = tuple(math.nan if score is None else float(score) for score in found)
        return numbers if all(map(math.isfinite, numbers)) else None
    return None


class Relabelled(Iterator[Row]):
    """Rows under goals, one by one; `said` and `counts` tell what became of the rows so far."""

    def __init__(self, rows: Iterable[Row], goals: Goals) -> None:
        self.read = self.made = self.ties = self.missing = 0
        self._rows = self._relabel(rows, goals)

    def __next__(self) -> Row:
        row = next(self._rows)
        self.made += 1
        return row

    @property
    def counts(self) -> dict[str, int]:
        return {"read": self.read, "made": self.made, "ties": self.ties, "missing": self.missing}

    @property
    def said(self) -> str:
        return (
            f"preferences under goals: {self.read:,} rows gave {self.made:,}; left out {self.ties:,} of equal scores and "
            f"{self.missing:,} without scores"
        )

    def _relabel(self, rows: Iterable[Row], goals: Goals) -> Iterator[Row]:
        for row in rows:
            if row.kind not in ("pairs", "lists"):
                raise Refusal(
                    f"row {row.number}: {row.kind} cannot be put under goals; that takes pairs or lists with scores."
                )
            self.read += 1
            scores = scores_of(row)
            if scores is None:
                self.missing += 1
            elif len(set(scores)) == 1:  # both copies would stand under one goal and contradict each other
                self.ties += 1
            else:
                for score in scores:
                    goals.check(score, f"row {row.number}: its score")
                yield from (_pair if row.kind == "pairs" else _lists)(row, scores, goals)


def relabel(rows: Iterable[Row], goals: Goals) -> Relabelled:
    """Preferences under goals, lazily (Zhang et al. 2024, arXiv 2410.08067). The reward of a response y with score r(y) under
    the goal g is R(y, g) = −(g − r(y))², so each response is the best where its own score is the goal:

    - a pair (w, l) becomes two: w ≻ l under g = r(w), and l ≻ w under g = r(l), each by a margin of (r(w) − r(l))²;
    - a list of K becomes one list for each of its distinct scores, with R as scores.

    Rows of equal scores and rows without scores are left out and counted. The authors' code leaves the pair as it was under
    g = r(l) where there is no system turn; here it is always turned round, as in the paper, and the two copies follow each
    other. Only rows to train on are meant: held-out rows stay what people said.

    Raises Refusal for other kinds of rows, scores off the scale, and scores that are no numbers.
    """
    return Relabelled(rows, goals)


def _pair(row: Row, scores: tuple[float, ...], goals: Goals) -> Iterator[Row]:
    margin = (scores[0] - scores[1]) ** 2
    for goal, turned in zip(scores, (False, True), strict=True):
        order = (1, 0) if turned else (0, 1)
        responses = tuple(row.responses[i] for i in order)
        prompt = goals.ask(row.prompt, goal)
        extra = _turned(row.extra) if turned else dict(row.extra)
        weights = None if row.weights is None else tuple(row.weights[i] for i in order)
        yield replace(row, prompt=prompt, responses=responses, strength=None, margin=margin, extra=extra, weights=weights)


def _turned(extra: Mapping[str, Any]) -> dict[str, Any]:
    """The columns that speak of one response each, exchanged with the other's."""
    other: dict[str, str] = {}
    for a, b in (*SCORES, STOPPED["pairs"]):
        other |= {a: b, b: a}
    return {other.get(name, name): value for name, value in extra.items()}


def _lists(row: Row, scores: tuple[float, ...], goals: Goals) -> Iterator[Row]:
    for goal in dict.fromkeys(scores):
        rewards = tuple(0.0 - (goal - score) ** 2 for score in scores)
        yield replace(row, prompt=goals.ask(row.prompt, goal), scores=rewards)

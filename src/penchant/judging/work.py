"""Answers judged and written as preferences, and what came of it: win rates, places swapped, agreement with labels, failures, cost.
The definitions stand in evaluation/comparisons.py; a person judges in page.py."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from penchant.errors import Refusal
from penchant.evaluation.agreement import Verdicts, verdicts
from penchant.evaluation.comparisons import Comparison, Positions, WinRate, positions, side, win_rate
from penchant.evaluation.statistics import Estimate, mean, share
from penchant.feedback.records import Row
from penchant.judging.answers import Answered, Question, in_chunks, questions
from penchant.judging.standing import Standing, standing
from penchant.rewards.account import endpoints, failures, why
from penchant.rewards.base import Comparer, Context, Judge
from penchant.rewards.compare import checked

CHUNK = 64
"""Questions between two movements of the bar."""

Progress = Callable[[str, int, int], None]


@dataclass
class Judged:
    """What a judge said of answers."""

    judge: str
    rows: list[Row] = field(default_factory=list)
    """Preferences: lists with scores of a judge, pairs with a strength of a comparer."""
    comparisons: list[Comparison] = field(default_factory=list)
    labels: list[float | None] = field(default_factory=list)
    """What the data says of each comparison."""
    places: Positions | None = None
    """None where the comparer cannot like a place, or answers were scored one by one."""
    scores: dict[str, Estimate] = field(default_factory=dict)
    """Mean score by who answered."""
    failed: int = 0
    """Comparisons, or prompts with a response, that could not be judged; they give no row."""
    notes: list[str] = field(default_factory=list)

    @property
    def ties(self) -> int:
        return sum(c.p == 0.5 for c in self.comparisons)

    @property
    def wins(self) -> WinRate | None:
        """Of two that are held against each other throughout; None for answers without a name of their own."""
        names = {(c.a, c.b) for c in self.comparisons}
        apart = len(names) == 1 and names != {("answer 1", "answer 2")}
        return win_rate(self.comparisons) if apart else None

    @property
    def agreement(self) -> Estimate | None:
        """Share of comparisons whose label prefers one where the judge prefers the same; a tie of the judge counts ½."""
        both = [(c, label) for c, label in zip(self.comparisons, self.labels, strict=True) if label not in (None, 0.5)]
        hits = [1 - abs(side(c.p) - side(label or 0.0)) for c, label in both]
        return share(hits, [c.prompt for c, _ in both]) if both else None

    @property
    def beyond_chance(self) -> Verdicts | None:
        """κ and α of judge and labels, a tie of either being a verdict; None where nothing is labelled."""
        both = [(c, label) for c, label in zip(self.comparisons, self.labels, strict=True) if label is not None]
        if not both:
            return None
        return verdicts([side(c.p) for c, _ in both], [side(label) for _, label in both], [c.prompt for c, _ in both])

    @cached_property
    def standing(self) -> Standing | None:
        """How those who answered stand to each other; None of answers without names."""
        return standing(self.comparisons)

    def lines(self) -> list[str]:
        """What came of it, in plain words."""
        n = len({c.prompt for c in self.comparisons})
        said = [f"{len(self.comparisons):,} comparisons of answers to {n:,} prompts, by {self.judge}"]
        if (wins := self.wins) is not None:
            a, b = self.comparisons[0].a, self.comparisons[0].b
            said.append(
                f"{a} preferred to {b}: {wins.mean.percent()}, n = {wins.n:,} ({wins.wins:,} won, {wins.losses:,} lost, "
                f"{wins.ties:,} ties)"
            )
        said += [] if self.standing is None else self.standing.lines()
        said += [f"mean score of {name}: {one.number()}, n = {one.n:,}" for name, one in self.scores.items()]
        if self.places is not None:
            said.append(
                f"asked in both orders: the same verdict {self.places.consistent.percent()}; preference for the first place "
                f"{self.places.preference.percent()} (50 % is none), n = {self.places.consistent.n:,}"
            )
        if (agreement := self.agreement) is not None:
            said.append(f"agrees with the labels: {agreement.percent()}, n = {agreement.n:,}")
            if (beyond := self.beyond_chance) is not None and beyond.kappa is not None and beyond.alpha is not None:
                said.append(
                    f"beyond chance, with ties as verdicts: Cohen's κ {beyond.kappa.number()}, Krippendorff's α "
                    f"{beyond.alpha.number()}, n = {beyond.kappa.n:,}"
                )
        said.append(f"ties {self.ties:,}; failed, and left out: {self.failed:,}")
        return said + self.notes

    def to_json(self) -> dict[str, Any]:
        wins, agreement, places, beyond = self.wins, self.agreement, self.places, self.beyond_chance
        return {
            "judge": self.judge,
            "comparisons": len(self.comparisons),
            "ties": self.ties,
            "failed": self.failed,
            "win_rate": None if wins is None else wins.mean.to_json(),
            "scores": {name: one.to_json() for name, one in self.scores.items()},
            "consistent": None if places is None else places.consistent.to_json(),
            "first_place": None if places is None else places.preference.to_json(),
            "agreement": None if agreement is None else agreement.to_json(),
            "beyond_chance": None if beyond is None else beyond.to_json(),
            "standing": None if self.standing is None else self.standing.to_json(),
            "notes": self.notes,
        }


def judge_answers(rows: Sequence[Answered], judge: Judge | Comparer, progress: Progress) -> Judged:
    """Has answers judged. Raises Refusal where there are no two answers to a prompt, or every judgement failed."""
    asked = questions(list(rows))
    if not asked:
        raise Refusal(
            "no prompt has two different answers, so there is nothing to prefer; sample with --count of at least 2."
        )
    made = _compared(asked, judge, progress) if isinstance(judge, Comparer) else _scored(list(rows), judge, progress)
    if not made.comparisons:
        raise Refusal(f"{judge.name} failed on all {made.failed:,} it was asked: {why(judge)}")
    made.notes += failures(judge)
    made.notes += [f"cost: {one.spent}" for one in endpoints(judge)]
    return made


def _compared(asked: list[Question], comparer: Comparer, progress: Progress) -> Judged:
    """Every two answers in both orders, where the comparer may like a place."""
    made, straight, swapped = Judged(comparer.name), [], []
    for some in in_chunks(asked, CHUNK):
        contexts, a, b = [Context(q.prompt) for q in some], [q.a for q in some], [q.b for q in some]
        if comparer.symmetric:
            straight += checked(comparer, comparer(contexts, a, b), len(some)).tolist()
            swapped = straight
        else:
            both = checked(comparer, comparer(contexts * 2, a + b, b + a), 2 * len(some))
            straight += both[: len(some)].tolist()
            swapped += (1 - both[len(some) :]).tolist()
        progress("comparing", len(straight), len(asked))
    for q, first, second in zip(asked, straight, swapped, strict=True):
        p = (first + second) / 2
        if math.isnan(p):
            made.failed += 1
            continue
        made.comparisons.append(Comparison(q.key, q.name_a, q.name_b, p, q.a, q.b, comparer.name))
        made.labels.append(q.label)
        if p != 0.5:
            better = (q.a, q.b) if p > 0.5 else (q.b, q.a)
            made.rows.append(
                Row(len(made.rows) + 1, "pairs", q.prompt, better, strength=max(p, 1 - p), annotator=comparer.name)
            )
    if not comparer.symmetric and made.comparisons:
        made.places = positions(straight, swapped, [q.key for q in asked])
    return made


def _scored(rows: list[Answered], judge: Judge, progress: Progress) -> Judged:
    """Every answer by itself."""
    made = Judged(judge.name)
    by_name: dict[str, list[tuple[str, float]]] = {}
    done = 0
    for some in in_chunks(rows, CHUNK):
        flat = [(row, text) for row in some for text in row.responses]
        total = judge([Context(row.prompt) for row, _ in flat], [text for _, text in flat]).total.double().tolist()
        said = iter(total)
        for row in some:
            scores = tuple(next(said) for _ in row.responses)
            if any(map(math.isnan, scores)):
                made.failed += 1
                continue
            for name, score in zip(row.names, scores, strict=True):
                by_name.setdefault(name, []).append((row.key, score))
            made.rows.append(
                Row(len(made.rows) + 1, "lists", row.prompt, row.responses, scores=scores, annotator=judge.name)
            )
            known = dict(zip(row.responses, scores, strict=True))
            for q in questions([row]):
                p = side(0.5 + known[q.a] - known[q.b])
                made.comparisons.append(Comparison(q.key, q.name_a, q.name_b, p, q.a, q.b, judge.name))
                made.labels.append(q.label)
        done += len(some)
        progress("scoring", done, len(rows))
    made.rows = [row for row in made.rows if len(row.responses) > 1]
    made.scores = {
        name: mean([score for _, score in found], [key for key, _ in found]) for name, found in sorted(by_name.items())
    }
    return made

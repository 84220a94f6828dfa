"""What one pass through the rows counts: lengths, contradictions, balance, ties, people; each as a finding in plain words.
It keeps numbers and hashes, no text."""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from penchant.errors import Refusal
from penchant.feedback.goals import scores_of
from penchant.feedback.reading import Source, digests
from penchant.feedback.records import Kind, Row

Severity = Literal["wrong", "odd", "fine"]
"""wrong: a run would refuse it. odd: look at it. fine: as it should be."""

LONGER = 0.65
"""Above this share of pairs, the chosen being the longer counts as odd: length alone is then right two times in three."""
BALANCE = 0.1
"""A label rarer than this counts as odd."""

NEAR_EMPTY = "rows with a near-empty response"
BACKWARDS = "pairs whose strength is below 0.5"
BAD_SCORE = "pairs with a score that is no number"
ALIKE = "pairs alike but for case and white space"
TIES = "lists with equal scores"
ALL_TIED = "lists without any preference"
TWICE = "lists with a response twice"
HITS: dict[str, tuple[tuple[Kind, ...], str]] = {
    NEAR_EMPTY: (("pairs", "labelled", "lists"), "Under two letters or digits; look at them."),
    BACKWARDS: (("pairs",), "Their rejected is said to be preferred; swap the two, and write 1 − strength."),
    BAD_SCORE: (("pairs",), "A score is a number, or null where it is missing; --goals refuses these rows."),
    ALIKE: (("pairs",), "They teach next to nothing; look at them."),
    TIES: (("lists",), "Ties make no pairs; with few distinct scores much is lost."),
    ALL_TIED: (("lists",), "All scores are equal; they teach nothing."),
    TWICE: (("lists",), "Equal texts make no pair."),
}
"""What single rows are looked at for: the kinds concerned, and what it means."""


@dataclass(frozen=True)
class Finding:
    """One thing looked at."""

    severity: Severity
    name: str
    count: int
    of: int
    said: str
    """What it means, and the mend."""
    rows: tuple[int, ...] = ()
    """Numbers of the first rows concerned."""

    def __str__(self) -> str:
        share = f" of {self.of:,}" if self.of else ""
        rows = (
            f" (rows {', '.join(map(str, self.rows))}{', …' if self.count > len(self.rows) else ''})" if self.rows else ""
        )
        return f"{self.severity:5}  {self.name}: {self.count:,}{share}{rows}{'. ' + self.said if self.said else ''}"


@dataclass(frozen=True)
class Lengths:
    """Quantiles of lengths, in characters or tokens."""

    unit: str
    least: int
    q10: int
    median: int
    q90: int
    most: int

    @classmethod
    def of(cls, values: Sequence[int], unit: str = "characters") -> Lengths:
        x = np.asarray(values, dtype=np.int64)
        # a length that occurs, not one between two
        q = np.quantile(x, [0.0, 0.1, 0.5, 0.9, 1.0], method="lower").astype(int).tolist()
        return cls(unit, *q)

    def __str__(self) -> str:
        return f"{self.least:,} least, {self.q10:,} / {self.median:,} / {self.q90:,} at 10 / 50 / 90 %, {self.most:,} most"


def later(keys: Sequence[int]) -> list[int]:
    """Indices whose key came before."""
    x = np.asarray(keys, dtype=np.uint64)
    first = np.unique(x, return_index=True)[1]
    again = np.ones(len(x), dtype=bool)
    again[first] = False
    return np.flatnonzero(again).tolist()


class Tally:
    """Counts of one pass. It keeps numbers and hashes, no text."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.prompt_lengths = array("Q")
        self.response_lengths = array("Q")
        self.hits: dict[str, list[int]] = {}
        self.counts: Counter[str] = Counter()
        self.longer = self.shorter = self.true = self.scored = self.tied = self.under_goals = 0
        self.lowest, self.highest = math.inf, -math.inf
        self.annotators: dict[str, int] = {}
        """Each name's place in the order of their coming."""
        self.people = array("q")
        """Each row's annotator by place; −1 for none."""
        self.questions = array("Q")
        """Hashes of (prompt, the two responses in either order; or the one response), one per row …"""
        self.answers = array("b")
        """… and which way the row answers: which response is preferred, or which label is given."""
        self.optional: Counter[str] = Counter()
        self.weighted = 0

    def hit(self, name: str, row: Row) -> None:
        self.counts[name] += 1
        rows = self.hits.setdefault(name, [])
        if len(rows) < 5:
            rows.append(row.number)

    def see(self, row: Row) -> None:
        prompt = row.prompt
        self.prompt_lengths.append(len(prompt) if isinstance(prompt, str) else sum(len(turn["content"]) for turn in prompt))
        self.response_lengths.extend(len(y) for y in row.responses)
        if any(sum(map(str.isalnum, y[:64])) < 2 for y in row.responses):
            self.hit(NEAR_EMPTY, row)
        name = row.annotator
        self.people.append(-1 if name is None else self.annotators.setdefault(name, len(self.annotators)))
        self.weighted += row.weights is not None
        self._score(row)
        self.optional.update(name for name in ("strength", "margin") if getattr(row, name) is not None)
        if row.kind == "pairs":
            w, l = row.responses
            self.longer += len(w) > len(l)
            self.shorter += len(w) < len(l)
            if " ".join(w.split()).casefold() == " ".join(l.split()).casefold():
                self.hit(ALIKE, row)
            if row.strength is not None and row.strength < 0.5:
                self.hit(BACKWARDS, row)
            self._side(row, (min(w, l), max(w, l)), w > l)
        elif row.kind == "labelled":
            self.true += bool(row.label)
            self._side(row, row.responses, bool(row.label))
        elif row.kind == "lists":
            scores = row.scores or ()
            if len(set(scores)) < len(scores):
                self.hit(TIES, row)
            if len(set(scores)) == 1:
                self.hit(ALL_TIED, row)
            if len(set(row.responses)) < len(row.responses):
                self.hit(TWICE, row)

    def _score(self, row: Row) -> None:
        """Scores of responses, which may be put under goals."""
        try:
            scores = scores_of(row)
        except Refusal:
            self.hit(BAD_SCORE, row)
            return
        if scores is not None:
            self.scored += 1
            self.tied += len(set(scores)) == 1
            self.under_goals += 0 if len(set(scores)) == 1 else len(set(scores))
            self.lowest, self.highest = min(self.lowest, *scores), max(self.highest, *scores)

    def _side(self, row: Row, responses: tuple[str, ...], side: bool) -> None:
        self.questions.append(digests(Row(0, row.kind, row.prompt, responses))[1])
        self.answers.append(side)

    def _contradictions(self, name: str, said: str) -> Finding:
        """Rows that answer a question otherwise than the first row that asked it."""
        x = np.asarray(self.questions, dtype=np.uint64)
        answers = np.asarray(self.answers, dtype=bool)
        _, first, which = np.unique(x, return_index=True, return_inverse=True)
        against = np.flatnonzero(answers != answers[first][which])
        rows = tuple(self.source.numbers[i] for i in against[:5].tolist())
        n = len(against)
        return Finding("odd" if n else "fine", name, n, len(x), said if n else "", rows)

    def findings(self) -> list[Finding]:
        kind = self.source.kind
        out = [self._hits(name, said) for name, (kinds, said) in HITS.items() if kind in kinds]
        if kind == "pairs":
            said = "An earlier row prefers the other way round: two opinions, or a slip; keep both only if people differ."
            out += [self._longer(), self._contradictions("pairs that contradict an earlier row", said)]
        if kind == "labelled":
            said = "The same completion has both labels; keep both only if people differ."
            out += [self._labels(), self._contradictions("labels that contradict an earlier row", said)]
        return [*out, *self._people(), *self._partial(), *self._weights(), *self._scores()]

    def _weights(self) -> list[Finding]:
        said = "TokenWeighted(…) reads how much parts of a response count; no other objective does."
        return [Finding("fine", "rows that weigh parts", self.weighted, len(self.source), said)] if self.weighted else []

    def _hits(self, name: str, said: str) -> Finding:
        n = self.counts[name]
        rows = tuple(self.hits.get(name, ()))
        return Finding("odd" if n else "fine", name, n, len(self.source), said if n else "", rows)

    def _longer(self) -> Finding:
        n = len(self.source)
        share = self.longer / n
        said = f"{share:.0%} of pairs ({self.shorter:,} shorter, {n - self.longer - self.shorter:,} equally long)."
        if share > LONGER:
            said += " A model can win by writing more: watch lengths, or take a length-normalised objective."
        return Finding("odd" if share > LONGER else "fine", "chosen longer than rejected", self.longer, n, said)

    def _labels(self) -> Finding:
        n = len(self.source)
        share = self.true / n
        demonstrations = any(form.startswith("demonstrations") for form in self.source.formats)
        odd = not demonstrations and not BALANCE <= share <= 1 - BALANCE
        said = f"{share:.0%} of rows."
        if odd:
            said += " One label is rare: weigh the two, or add rows with it."
        return Finding("odd" if odd else "fine", "completions labelled good", self.true, n, said)

    def _people(self) -> list[Finding]:
        if not self.annotators:
            return []
        # which annotator judged which prompt, each once
        keys = np.asarray(self.source.prompt_keys, dtype=np.uint64)
        prompts = np.unique(keys, return_inverse=True)[1]
        who = np.asarray(self.people, dtype=np.int64)
        judged = np.unique(np.stack([who, prompts])[:, who >= 0], axis=1)
        per_person = np.unique(judged[0], return_counts=True)[1]
        shared = int((np.unique(judged[1], return_counts=True)[1] > 1).sum())
        said = (
            f"{per_person.min():,} least, {np.median(per_person):,.0f} median, {per_person.max():,} most prompts each; "
            f"{shared:,} prompts have several."
        )
        out = [Finding("fine", "annotators", len(self.annotators), 0, said)]
        if unsigned := int((who < 0).sum()):
            said = "Methods that model annotators need the name in every row."
            out.append(Finding("odd", "rows without an annotator", unsigned, len(who), said))
        return out

    def _scores(self) -> list[Finding]:
        if not self.scored:
            return []
        n = len(self.source)
        said = (
            f"from {self.lowest:g} to {self.highest:g}. --goals would make {self.under_goals:,} rows of them, and leave out "
            f"{self.tied:,} of equal scores and {n - self.scored:,} without."
        )
        return [Finding("fine", "rows with a score of every response", self.scored, n, said)]

    def _partial(self) -> list[Finding]:
        n = len(self.source)
        said = "An objective that reads it needs it in every row."
        return [Finding("odd", f"rows with a {name}", k, n, said) for name, k in self.optional.items() if k < n]

"""What is in a source of feedback, and what is wrong or odd about it, in plain words. It changes nothing and draws no
conclusion about the people behind the rows: that is a deeper diagnosis."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import Any, Literal

import numpy as np

from penchant.errors import Refusal
from penchant.feedback.reading import Source, digests, open_source
from penchant.feedback.records import Accounting, Problem, Row
from penchant.words import plain

Severity = Literal["wrong", "odd", "fine"]
"""wrong: a run would refuse it. odd: look at it. fine: as it should be."""

LONGER = 0.65
"""Above this share of pairs, the chosen being the longer counts as odd. Human comparisons commonly lie at 0.55 to 0.65."""
BALANCE = 0.1
"""A label rarer than this counts as odd."""
CHUNK = 512
"""Rows encoded at a time."""


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


@dataclass(frozen=True)
class CheckReport:
    """What `penchant check` says."""

    name: str
    fingerprint: str
    revision: str | None
    kind: str
    formats: dict[str, int]
    read: int
    rows: int
    """Rows that can be used."""
    prompts: int
    """Distinct prompts."""
    lengths: dict[str, Lengths]
    findings: list[Finding]
    notes: list[str] = field(default_factory=list)

    @property
    def wrong(self) -> list[Finding]:
        return [finding for finding in self.findings if finding.severity == "wrong"]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def lines(self) -> list[str]:
        """The report for a terminal, worst first."""
        order = {"wrong": 0, "odd": 1, "fine": 2}
        head = f"{plain(self.name)}: {self.rows:,} of {self.read:,} rows can be used, {self.prompts:,} distinct prompts"
        forms = [f"  {n:,} × {form}" for form, n in self.formats.items()]
        lengths = [f"  {what}, {x.unit}: {x}" for what, x in self.lengths.items()]
        revision = [f"  revision {self.revision}"] if self.revision else []
        findings = [f"  {finding}" for finding in sorted(self.findings, key=lambda finding: order[finding.severity])]
        return [head, *forms, *revision, *(f"  {note}" for note in self.notes), *lengths, *findings]


def check(source: Source | Any, encode: Callable[[list[Row]], Any] | None = None) -> CheckReport:
    """Goes once more through the rows and counts. `source` is a Source, or anything `open_source` takes: rows with problems
    are then left out and reported. `encode` (a domain's: rows in, something with `accounting`, `contexts` and `responses`
    out) adds what a given model's tokenizer and template make of the rows.

    Raises Refusal where there is no row to look at.
    """
    if not isinstance(source, Source):
        source = open_source(source, on_problem="drop")
    tally = _Tally(source)
    for row in source:
        tally.see(row)
    findings = [*_problems(source), *_repeats(source), *tally.findings()]
    lengths = {"prompts": Lengths.of(tally.prompt_lengths)}
    if len(tally.response_lengths):
        lengths["responses"] = Lengths.of(tally.response_lengths)
    if encode is not None:
        more, tokens = _encoded(source, encode)
        findings += more
        lengths |= tokens
    return CheckReport(
        name=source.name,
        fingerprint=source.fingerprint,
        revision=source.revision,
        kind=source.kind,
        formats=dict(source.formats.most_common()),
        read=source.accounting.read,
        rows=len(source),
        prompts=len(np.unique(np.asarray(source.prompt_keys, dtype=np.uint64))),
        lengths=lengths,
        findings=findings,
        notes=list(source.notes),
    )


def _problems(source: Source) -> list[Finding]:
    """Rows that were left out when the source was opened: each reason, with the words of its first row."""
    out = []
    for reason, n in sorted(source.dropped.items(), key=lambda item: -item[1]):
        examples = [problem for problem in source.accounting.examples if problem.reason == reason]
        rows = tuple(dict.fromkeys(problem.number for problem in examples))[:5]
        said = f"{examples[0].field} {examples[0].said}".strip() if examples else "A run would refuse these rows."
        out.append(Finding("wrong", reason, n, source.accounting.read, said, rows))
    return out or [Finding("fine", "rows that cannot be used", 0, source.accounting.read, "")]


def _repeats(source: Source) -> list[Finding]:
    rows, prompts = _later(source.row_keys), _later(source.prompt_keys)
    numbers = [source.numbers[i] for i in rows[:5]]
    out = [
        Finding(
            "odd" if len(rows) else "fine",
            "rows that repeat an earlier row",
            len(rows),
            len(source),
            "They weigh double; take them out unless that is meant." if len(rows) else "",
            tuple(numbers),
        )
    ]
    said = "Split by prompt, as penchant does, or held-out rows are not new to the model." if len(prompts) else ""
    out.append(Finding("fine", "rows whose prompt came before", len(prompts), len(source), said))
    if len(source.formats) > 1:
        forms = "; ".join(f"{n:,} × {form}" for form, n in source.formats.most_common())
        out.append(Finding("odd", "forms of rows", len(source.formats), 0, f"{forms}. A model sees each form differently."))
    return out


def _later(keys: Sequence[int]) -> list[int]:
    """Indices whose key came before."""
    x = np.asarray(keys, dtype=np.uint64)
    first = np.unique(x, return_index=True)[1]
    again = np.ones(len(x), dtype=bool)
    again[first] = False
    return np.flatnonzero(again).tolist()


class _Tally:
    """Counts of one pass. It keeps numbers and hashes, no text."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.prompt_lengths = array("Q")
        self.response_lengths = array("Q")
        self.hits: dict[str, list[int]] = {}
        self.counts: Counter[str] = Counter()
        self.longer = self.shorter = self.true = 0
        self.annotators: Counter[str] = Counter()
        self.unsigned = 0
        self.sides: dict[int, tuple[bool, int]] = {}
        """Key of (prompt, the two responses in either order, or one response) → (which side, first row's number)."""
        self.optional: Counter[str] = Counter()

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
            self.hit("near-empty", row)
        if row.annotator is None:
            self.unsigned += 1
        else:
            self.annotators[row.annotator] += 1
        self.optional.update(name for name in ("strength", "margin") if getattr(row, name) is not None)
        if row.kind == "pairs":
            w, l = row.responses
            self.longer += len(w) > len(l)
            self.shorter += len(w) < len(l)
            if " ".join(w.split()).casefold() == " ".join(l.split()).casefold():
                self.hit("alike", row)
            self._side(row, (min(w, l), max(w, l)), w > l)
        elif row.kind == "labelled":
            self.true += bool(row.label)
            self._side(row, row.responses, bool(row.label))
        elif row.kind == "lists":
            scores = row.scores or ()
            if len(set(scores)) < len(scores):
                self.hit("ties", row)
            if len(set(scores)) == 1:
                self.hit("all tied", row)
            if len(set(row.responses)) < len(row.responses):
                self.hit("repeated responses", row)

    def _side(self, row: Row, responses: tuple[str, ...], side: bool) -> None:
        key = digests(Row(0, row.kind, row.prompt, responses))[1]
        before = self.sides.setdefault(key, (side, row.number))
        if before[0] != side:
            self.hit("contradiction", row)

    def _found(self, key: str, name: str, said: str, severity: Severity = "odd") -> Finding:
        n = self.counts[key]
        return Finding(
            severity if n else "fine", name, n, len(self.source), said if n else "", tuple(self.hits.get(key, ()))
        )

    def findings(self) -> list[Finding]:
        n = len(self.source)
        kind = self.source.kind
        out = []
        if kind != "prompts":
            out.append(
                self._found("near-empty", "rows with a near-empty response", "Under two letters or digits; look at them.")
            )
        if kind == "pairs":
            share = self.longer / n
            said = f"{share:.0%} of pairs ({self.shorter:,} shorter, {n - self.longer - self.shorter:,} equally long)."
            if share > LONGER:
                said += " A model can win by writing more: watch lengths, or take a length-normalised objective."
            out.append(Finding("odd" if share > LONGER else "fine", "chosen longer than rejected", self.longer, n, said))
            out.append(
                self._found(
                    "alike", "pairs alike but for case and white space", "They teach next to nothing; look at them."
                )
            )
            said = "An earlier row prefers the other way round: two opinions, or a slip; keep both only if people differ."
            out.append(self._found("contradiction", "pairs that contradict an earlier row", said))
        if kind == "labelled":
            out.append(self._labels(n))
            said = "The same completion has both labels; keep both only if people differ."
            out.append(self._found("contradiction", "labels that contradict an earlier row", said))
        if kind == "lists":
            out.append(
                self._found("ties", "lists with equal scores", "Ties make no pairs; with few distinct scores much is lost.")
            )
            out.append(self._found("all tied", "lists without any preference", "All scores are equal; they teach nothing."))
            out.append(self._found("repeated responses", "lists with a response twice", "Equal texts make no pair."))
        return [*out, *self._people(n), *self._partial(n)]

    def _labels(self, n: int) -> Finding:
        share = self.true / n
        demonstrations = any(form.startswith("demonstrations") for form in self.source.formats)
        odd = not demonstrations and not BALANCE <= share <= 1 - BALANCE
        said = f"{share:.0%} of rows."
        if odd:
            said += " One label is rare: weigh it up (KTO: undesirable_weight or desirable_weight), or add such rows."
        return Finding("odd" if odd else "fine", "completions labelled good", self.true, n, said)

    def _people(self, n: int) -> list[Finding]:
        if not self.annotators:
            return []
        most, least = max(self.annotators.values()), min(self.annotators.values())
        said = f"{least:,} to {most:,} rows each, {np.median(list(self.annotators.values())):,.0f} in the middle."
        out = [Finding("fine", "annotators", len(self.annotators), 0, said)]
        if self.unsigned:
            said = "Methods that model annotators need the name in every row."
            out.append(Finding("odd", "rows without an annotator", self.unsigned, n, said))
        return out

    def _partial(self, n: int) -> list[Finding]:
        said = "An objective that reads it needs it in every row."
        return [Finding("odd", f"rows with a {name}", k, n, said) for name, k in self.optional.items() if k < n]


def _encoded(source: Source, encode: Callable[[list[Row]], Any]) -> tuple[list[Finding], dict[str, Lengths]]:
    """What a model's tokenizer and template make of the rows, a few at a time."""
    total = Accounting()
    prompts, responses = array("Q"), array("Q")
    refused: list[str] = []
    stopped = 0
    rows = iter(source)
    while chunk := list(islice(rows, CHUNK)):
        try:
            encoded = encode(chunk)
        except Refusal as refusal:
            refused.append(str(refusal))
            stopped += len(chunk)
            continue
        _add(total, encoded.accounting)
        prompts.extend(len(context) for context in encoded.contexts)
        responses.extend(len(y) for ys in encoded.responses for y in ys)
    n = len(source)
    out = []
    if refused:
        out.append(Finding("wrong", "rows the model's encoding stopped at", stopped, n, plain(refused[0])))
    for reason, count in sorted(total.dropped.items()):
        examples = [problem for problem in total.examples if problem.reason in ("", reason)]
        out.append(Finding("odd", f"rows the model loses: {reason}", count, n, "", _numbers(examples)))
    said = "The template writes the whole chat otherwise than prompt and response apart (it trims or strips)."
    for name, count, words in (
        ("rows cut to the model's length", total.truncated, "They lose their end and their stop token."),
        ("rows the template changes", total.template_differs, said),
    ):
        out.append(Finding("odd" if count else "fine", name, count, n, words if count else ""))
    tokens = {
        name: Lengths.of(values, "tokens")
        for name, values in (("prompts as encoded", prompts), ("responses as encoded", responses))
        if len(values)
    }
    return out, tokens


def _numbers(problems: list[Problem]) -> tuple[int, ...]:
    return tuple(dict.fromkeys(problem.number for problem in problems))[:5]


def _add(total: Accounting, part: Accounting) -> None:
    total.read += part.read
    total.kept += part.kept
    total.truncated += part.truncated
    total.identical += part.identical
    total.template_differs += part.template_differs
    for reason, count in part.dropped.items():
        total.dropped[reason] = total.dropped.get(reason, 0) + count
    total.examples += part.examples[: 20 - len(total.examples)]

"""What is in a source of feedback, and what is wrong or odd about it, in plain words. It changes nothing and draws no
conclusion about the people behind the rows: that is a deeper diagnosis."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import Any

import numpy as np

from penchant.errors import Refusal
from penchant.feedback.reading import Source, open_source
from penchant.feedback.records import Accounting, Problem, Row
from penchant.feedback.tally import Finding, Lengths, Tally, later
from penchant.words import plain

CHUNK = 512
"""Rows encoded at a time."""
ALLOWED = 0.05
"""The share of rows a run may lose by encoding, unless it is told otherwise."""


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
        source = open_source(source, bad_rows="drop")
    tally = Tally(source)
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
    rows, prompts = later(source.row_keys), later(source.prompt_keys)
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


def _encoded(source: Source, encode: Callable[[list[Row]], Any]) -> tuple[list[Finding], dict[str, Lengths]]:
    """What a model's tokenizer and template make of the rows, a few at a time."""
    total = Accounting()
    prompts, responses = array("Q"), array("Q")
    refused: list[tuple[int, str]] = []
    rows = iter(source)
    while chunk := list(islice(rows, CHUNK)):
        for part in _parts(encode, chunk, refused):
            _add(total, part.accounting)
            prompts.extend(len(context) for context in part.contexts)
            responses.extend(len(y) for ys in part.responses for y in ys)
    n = len(source)
    out = []
    if refused:
        numbers = tuple(number for number, _ in refused[:5])
        said = plain(refused[0][1], 400)
        out.append(Finding("wrong", "rows the model's encoding refuses", len(refused), n, said, numbers))
    for reason, count in sorted(total.dropped.items()):
        examples = [problem for problem in total.examples if problem.reason == reason]
        severity = "wrong" if total.lost > ALLOWED * n else "odd"
        said = plain(examples[0].said, 400) if examples else ""
        out.append(Finding(severity, f"rows the model loses: {reason}", count, n, said, _numbers(examples)))
    said = "The template writes the whole chat otherwise than prompt and response apart (it trims or strips)."
    for name, count, words in (
        ("rows cut to the model's length", total.truncated, "They lose their end and their stop token."),
        ("rows cut when they were sampled", total.unfinished, "They are trained on without a stop token."),
        ("rows the template changes", total.template_differs, said),
    ):
        out.append(Finding("odd" if count else "fine", name, count, n, words if count else ""))
    tokens = {
        name: Lengths.of(values, "tokens")
        for name, values in (("prompts as encoded", prompts), ("responses as encoded", responses))
        if len(values)
    }
    return out, tokens


def _parts(encode: Callable[[list[Row]], Any], rows: list[Row], refused: list[tuple[int, str]]) -> Iterator[Any]:
    """The rows encoded together; where that is refused, one by one, so that every refused row is known."""
    try:
        yield encode(rows)
    except Refusal as refusal:
        if len(rows) == 1:
            refused.append((rows[0].number, str(refusal)))
            return
        for row in rows:
            yield from _parts(encode, [row], refused)


def _numbers(problems: list[Problem]) -> tuple[int, ...]:
    return tuple(dict.fromkeys(problem.number for problem in problems))[:5]


def _add(total: Accounting, part: Accounting) -> None:
    total.read += part.read
    total.kept += part.kept
    total.truncated += part.truncated
    total.identical += part.identical
    total.unfinished += part.unfinished
    total.template_differs += part.template_differs
    for reason, count in part.dropped.items():
        total.dropped[reason] = total.dropped.get(reason, 0) + count
    total.examples += part.examples[: 20 - len(total.examples)]

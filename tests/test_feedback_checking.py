"""What `check` says of sources with known faults, and of real preferences. The words are part of the promise."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from penchant.domains.text.domain import Text
from penchant.errors import Refusal
from penchant.feedback import CheckReport, check, open_source
from penchant.feedback.records import Accounting, Problem, Row
from penchant.feedback.tally import Finding, Lengths
from tiny import CHATML, tiny_tokenizer


def pair(prompt: str, chosen: str, rejected: str, **columns: Any) -> dict[str, Any]:
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected, **columns}


def found(report: CheckReport, name: str) -> Finding:
    return next(finding for finding in report.findings if finding.name == name)


def told(report: CheckReport, name: str) -> tuple[str, int, tuple[int, ...]]:
    finding = found(report, name)
    return finding.severity, finding.count, finding.rows


PAIRS = [
    pair("p", "a long answer", "short", annotator="ann"),
    pair("p", "a long answer", "short", annotator="bob"),
    pair("p", "short", "a long answer", annotator="ann"),
    pair("q", "Yes  it is", "yes it is", annotator="ann"),
    pair("q", "a long answer", "short", annotator="ann"),
    pair("r", "!", "fine words", strength=0.5),
    pair("r", "", "b"),
    pair("r", "b", "b"),
    pair("p", "a long answer", "short", annotator="ann"),
]


def test_pairs_are_looked_over_and_every_fault_is_found_by_row() -> None:
    report = check(PAIRS)
    assert (report.kind, report.read, report.rows, report.prompts) == ("pairs", 9, 7, 3)
    assert told(report, "empty completion") == ("wrong", 1, (7,))
    assert told(report, "chosen equals rejected") == ("wrong", 1, (8,))
    # another annotator's same answer is no repetition, the same annotator's is
    assert told(report, "rows that repeat an earlier row") == ("odd", 1, (9,))
    assert told(report, "rows whose prompt came before") == ("fine", 4, ())
    # only the same question under the same prompt contradicts: row 5 has another prompt
    assert told(report, "pairs that contradict an earlier row") == ("odd", 1, (3,))
    assert told(report, "pairs alike but for case and white space") == ("odd", 1, (4,))
    assert told(report, "rows with a near-empty response") == ("odd", 1, (6,))
    assert told(report, "chosen longer than rejected") == ("odd", 5, ())
    assert found(report, "chosen longer than rejected").said.startswith("71% of pairs (2 shorter, 0 equally long).")
    assert told(report, "annotators") == ("fine", 2, ())
    assert found(report, "annotators").said == "1 least, 2 median, 2 most prompts each; 1 prompts have several."
    assert told(report, "rows without an annotator") == ("odd", 1, ())
    assert told(report, "rows with a strength") == ("odd", 1, ())
    assert report.lengths["prompts"] == Lengths("characters", 1, 1, 1, 1, 1)
    assert [finding.name for finding in report.wrong] == ["empty completion", "chosen equals rejected"]


def test_a_strength_below_a_half_prefers_the_rejected_and_is_said() -> None:
    report = check([pair("p", "a", "b", strength=0.4), pair("q", "a", "b", strength=0.5), pair("r", "a", "b", strength=1)])
    assert told(report, "pairs whose strength is below 0.5") == ("odd", 1, (1,))
    assert "write 1 − strength" in found(report, "pairs whose strength is below 0.5").said


def test_the_report_is_json_and_plain_lines_with_the_worst_first() -> None:
    report = check(open_source(PAIRS, name="mine\x1b[31m", bad_rows="drop"))
    assert json.loads(json.dumps(report.to_json(), allow_nan=False))["findings"][0]["severity"] == "wrong"
    lines = report.lines()
    assert lines[0] == "mine␛[31m: 7 of 9 rows can be used, 3 distinct prompts"
    assert lines[1] == "  7 × explicit-prompt pairs, strings"
    severities = [line.split()[0] for line in lines if line.split()[0] in ("wrong", "odd", "fine")]
    assert severities == sorted(severities, key=["wrong", "odd", "fine"].index) and len(severities) == len(report.findings)
    said = "  wrong  empty completion: 1 of 9 (rows 7). chosen is empty; write a text, or take the row out."
    assert said in lines


def test_labelled_rows_are_weighed_and_contradictions_found() -> None:
    rows = [{"prompt": "p", "completion": f"answer {i}", "label": True} for i in range(20)]
    report = check([*rows, {**rows[3], "label": False}])
    assert told(report, "completions labelled good") == ("odd", 20, ())
    assert told(report, "labels that contradict an earlier row") == ("odd", 1, (21,))
    assert told(report, "rows that repeat an earlier row") == ("fine", 0, ())
    demonstrations = check([{"prompt": "p", "completion": "answer"}])
    assert told(demonstrations, "completions labelled good") == ("fine", 1, ())


def test_lists_are_searched_for_ties_and_repeats() -> None:
    def listed(responses: Sequence[str], scores: Sequence[float]) -> dict[str, Any]:
        return {"prompt": "p", "responses": list(responses), "scores": list(scores)}

    rows = [listed(["ab", "cd"], [1, 0]), listed(["ab", "cd", "ef"], [1, 1, 0]), listed(["ab", "ab"], [2, 2.0])]
    report = check(rows)
    assert told(report, "lists with equal scores") == ("odd", 2, (2, 3))
    assert told(report, "lists without any preference") == ("odd", 1, (3,))
    assert told(report, "lists with a response twice") == ("odd", 1, (3,))


def test_prompts_alone_have_no_responses_to_look_at() -> None:
    report = check([{"prompt": "p"}, {"prompt": [{"role": "user", "content": "longer"}]}])
    assert list(report.lengths) == ["prompts"] and not report.wrong
    assert told(report, "forms of rows") == ("odd", 2, ())


@dataclass
class Coded:
    accounting: Accounting
    contexts: tuple[range, ...]
    responses: tuple[tuple[range, ...], ...]


def test_what_a_model_makes_of_the_rows_is_counted_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penchant.feedback.checking.CHUNK", 8)
    sizes: list[int] = []

    def encode(rows: list[Row]) -> Coded:
        """Refuses row 5, loses rows longer than 9 words, finds row 2 written otherwise."""
        sizes.append(len(rows))
        account = Accounting(read=len(rows))
        kept = []
        for row in rows:
            if row.number == 5:
                raise Refusal("row 5: the template rewrites the prompt.")
            account.template_differs += row.number == 2
            if len(row.responses[0].split()) > 9:
                account.drop("too long", Problem(row.number, "response", "", "it has more than 9 words; raise the limit."))
            else:
                kept.append(row)
        account.kept = len(kept)
        words = tuple(tuple(range(len(y.split())) for y in row.responses) for row in kept)
        return Coded(account, tuple(range(len(str(row.prompt))) for row in kept), words)

    rows = [pair(f"p{i}", " ".join(["word"] * (i % 12 + 1)), "no no") for i in range(30)]
    report = check(rows, encode)
    assert sizes == [8, *[1] * 8, 8, 8, 6]
    assert told(report, "rows the model's encoding refuses") == ("wrong", 1, (5,))
    assert found(report, "rows the model's encoding refuses").said == "row 5: the template rewrites the prompt."
    assert told(report, "rows the model loses: too long") == ("wrong", 6, (10, 11, 12, 22, 23))
    assert found(report, "rows the model loses: too long").said == "it has more than 9 words; raise the limit."
    assert told(report, "rows the template changes") == ("odd", 1, ())
    assert told(report, "rows cut to the model's length") == ("fine", 0, ())
    assert report.lengths["responses as encoded"] == Lengths("tokens", 1, 2, 2, 7, 9)
    assert report.lengths["prompts as encoded"].most == 3


def test_a_template_that_trims_and_a_model_too_short_are_said() -> None:
    tokenizer = tiny_tokenizer(CHATML.replace("message['content']", "message['content'] | trim"))
    chat = [{"role": "user", "content": "is it?"}]
    rows = [
        {"prompt": chat, "chosen": f"{'yes ' * n}yes{' ' * (n == 2)}", "rejected": "no"} for n in (0, 1, 2, 3, 200, 300)
    ]
    report = check(rows, Text(tokenizer, max_length=64).encode)
    assert told(report, "rows the template changes") == ("odd", 1, ())
    assert told(report, "rows the model loses: too long") == ("wrong", 2, (5, 6))
    assert report.lengths["prompts as encoded"].unit == "tokens"
    report = check(rows, Text(tokenizer, max_length=64, too_long="truncate").encode)
    assert told(report, "rows cut to the model's length") == ("odd", 2, ())
    assert report.lengths["prompts as encoded"].most + report.lengths["responses as encoded"].most == 64
    report = check(rows, Text(tokenizer, max_length=64, too_long="error").encode)
    assert told(report, "rows the model's encoding refuses") == ("wrong", 2, (5, 6))
    assert not check(rows[:2], Text(tokenizer, max_length=64).encode).wrong


def test_real_preferences_are_checked_and_counted_independently(shared_data: Path) -> None:
    path = shared_data / "hh_rlhf_harmless" / "pairs.jsonl.gz"
    report = check(path)
    assert (report.read, report.rows, report.prompts) == (1800, 1793, 1793)
    assert told(report, "several turns") == ("wrong", 5, (491, 499, 575, 1305, 1698))
    assert told(report, "empty completion") == ("wrong", 2, (662, 694))
    longer = usable = 0
    for line in gzip.decompress(path.read_bytes()).splitlines():
        row = json.loads(line)
        before, w = row["chosen"].rsplit("\n\nAssistant:", 1)
        beside, l = row["rejected"].rsplit("\n\nAssistant:", 1)
        if before == beside and w.strip() and l.strip():
            usable += 1
            longer += len(w.strip()) > len(l.strip())
    assert (usable, longer) == (1793, 790)
    assert told(report, "chosen longer than rejected") == ("fine", longer, ())
    assert told(report, "pairs that contradict an earlier row")[1] == 0

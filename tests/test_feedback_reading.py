"""Sources: every carrier and format read alike, the index law, large files, real data. Refusals are tested beside this."""

from __future__ import annotations

import gzip
import json
import os
import time
import tracemalloc
from itertools import islice
from pathlib import Path

import datasets
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penchant.errors import Refusal
from penchant.feedback import open_source, write_rows
from penchant.feedback.implicit import prompt_end
from penchant.feedback.records import Row

USER = {"role": "user", "content": "Hello?"}


def says(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


TEXT = st.text(st.characters(codec="utf-8"), max_size=30).filter(str.strip)
ROWS = st.lists(
    st.fixed_dictionaries({"prompt": TEXT, "chosen": TEXT, "rejected": TEXT}, optional={"margin": st.floats(-9, 9)}).filter(
        lambda row: row["chosen"] != row["rejected"] and not str(row["prompt"]).startswith("\n\nHuman:")
    ),
    min_size=1,
    max_size=8,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ROWS, st.sampled_from(["\n", "\r\n"]), st.booleans(), st.booleans(), st.booleans(), st.data())
def test_rows_found_by_offset_are_the_rows_that_were_written(
    tmp_path: Path, rows, end, last, mark, ascii_only, data
) -> None:
    lines = [json.dumps(row, ensure_ascii=ascii_only) for row in rows]
    blanks = data.draw(st.lists(st.integers(0, len(lines)), max_size=2))
    for at in blanks:
        lines.insert(at, "  ")
    text = ("\ufeff" if mark else "") + end.join(lines) + (end if last else "")
    (tmp_path / "rows.jsonl").write_bytes(text.encode())
    source = open_source(tmp_path / "rows.jsonl")
    wanted = [(i, row["prompt"], (row["chosen"], row["rejected"]), row.get("margin")) for i, row in enumerate(rows)]
    order = data.draw(st.permutations(range(len(rows))))
    for i in order:
        row = source[i]
        assert (i, row.prompt, row.responses, row.margin) == wanted[i]
        assert lines[row.number - 1].strip() == json.dumps(rows[i], ensure_ascii=ascii_only)
    assert [row.prompt for row in source] == [row["prompt"] for row in rows]
    in_memory = open_source(rows)
    assert source.fingerprint == in_memory.fingerprint
    assert list(source.prompt_keys) == list(in_memory.prompt_keys)
    assert list(source.row_keys) == list(in_memory.row_keys)
    keys = {row["prompt"]: key for row, key in zip(rows, source.prompt_keys, strict=True)}
    assert len(set(keys.values())) == len(keys)
    assert [keys[row["prompt"]] for row in rows] == list(source.prompt_keys)


PAIRS = [{"prompt": f"p{i % 3}", "chosen": f"good {i}", "rejected": f"bad {i}", "annotator": "ann"} for i in range(7)]


def test_every_carrier_gives_the_same_rows(tmp_path: Path) -> None:
    lines = "".join(json.dumps(row) + "\n" for row in PAIRS)
    (tmp_path / "a.jsonl").write_text(lines)
    (tmp_path / "lines.json").write_text(lines)
    (tmp_path / "array.json").write_text(json.dumps(PAIRS, indent=2))
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    data = datasets.Dataset.from_list(PAIRS)
    data.to_parquet(str(tmp_path / "a.parquet"))
    data.save_to_disk(str(tmp_path / "saved"))
    given = [tmp_path / name for name in ("a.jsonl", "lines.json", "array.json", "a.jsonl.gz", "a.parquet", "saved")]
    sources = [open_source(each) for each in (*given, str(given[0]), data, PAIRS, tuple(PAIRS))]
    for source in sources:
        assert [(row.number, row.prompt, row.responses, row.annotator) for row in source] == [
            (i + 1, row["prompt"], (row["chosen"], row["rejected"]), "ann") for i, row in enumerate(PAIRS)
        ]
        assert source[-1].number == 7 and len(source) == 7
        assert source.kind == "pairs" and source.format == "explicit-prompt pairs, strings"
    assert len({source.fingerprint for source in sources}) == 1
    assert sources[0].name == "a.jsonl" and open_source(PAIRS, name="mine").name == "mine"
    with pytest.raises(IndexError, match="row 7 of 7"):
        sources[0][7]


ONE = Row(1, "pairs", (USER,), ("Hi.", "What?"))  # pyright: ignore[reportArgumentType]
FORMATS = [
    (
        {"prompt": "Hello?", "chosen": "Hi.", "rejected": "What?"},
        "explicit-prompt pairs, strings",
        "Hello?",
        ("Hi.", "What?"),
    ),
    (
        {"prompt": [USER], "chosen": [says("Hi.")], "rejected": [says("What?")]},
        "explicit-prompt pairs, chat messages",
        (USER,),
        ("Hi.", "What?"),
    ),
    (
        {"chosen": [USER, says("Hi.")], "rejected": [USER, says("What?")]},
        "implicit-prompt pairs, chat messages",
        (USER,),
        ("Hi.", "What?"),
    ),
    (
        {"prompt": "Hello?", "chosen": [USER, says("Hi.")], "rejected": [USER, says("What?")]},
        "explicit-prompt pairs, chat messages that repeat the prompt",
        (USER,),
        ("Hi.", "What?"),
    ),
    (
        {"prompt": "Hello?", "chosen": [says("Hi.")], "rejected": [says("What?")]},
        "explicit-prompt pairs, chat messages after a string prompt, which is read as one user turn",
        (USER,),
        ("Hi.", "What?"),
    ),
    (
        {"prompt": [USER], "chosen": "Hi.", "rejected": " What?"},
        "explicit-prompt pairs, chat messages",
        (USER,),
        ("Hi.", " What?"),
    ),
    (
        {"chosen": "The sky is blue.", "rejected": "The sky is black."},
        "implicit-prompt pairs, strings",
        "The sky is",
        (" blue.", " black."),
    ),
    (
        {"chosen": "\n\nHuman: Hello?\n\nAssistant: Hi.\n", "rejected": "\n\nHuman: Hello?\n\nAssistant: What?"},
        "implicit-prompt pairs, Human/Assistant transcripts read as chat turns",
        (USER,),
        ("Hi.", "What?"),
    ),
    (
        {"prompt": "\n\nHuman: Hello?\n\nAssistant:", "chosen": " Hi.", "rejected": " What?"},
        "explicit-prompt pairs, Human/Assistant transcripts read as chat turns",
        (USER,),
        ("Hi.", "What?"),
    ),
    (
        {"prompt": "Hello?", "responses": ["Hi.", "What?"], "scores": [1, 0.5]},
        "lists of scored responses, strings",
        "Hello?",
        ("Hi.", "What?"),
    ),
    (
        {"prompt": [USER], "completions": [[says("Hi.")], [says("What?")]], "scores": [1, 0.5]},
        "lists of scored responses, chat messages",
        (USER,),
        ("Hi.", "What?"),
    ),
    ({"prompt": "Hello?", "completion": "Hi.", "label": False}, "labelled completions, strings", "Hello?", ("Hi.",)),
    (
        {"prompt": [USER], "completion": [says("Hi.")]},
        "demonstrations (prompt and completion, no label), chat messages",
        (USER,),
        ("Hi.",),
    ),
    ({"prompt": [USER]}, "prompts, chat messages", (USER,), ()),
    ({"prompt": "Hello?", "answer": "42"}, "prompts, strings", "Hello?", ()),
]


@pytest.mark.parametrize("raw, form, prompt, responses", FORMATS, ids=[form for _, form, *_ in FORMATS])
def test_each_format_of_the_ecosystem_is_read(raw, form, prompt, responses) -> None:
    source = open_source([raw])
    assert (source.format, source[0].prompt, source[0].responses) == (form, prompt, responses)
    assert source.kind == source[0].kind


def test_labels_scores_and_further_columns_arrive() -> None:
    labelled = open_source([{"prompt": "p", "completion": "y", "label": False, "prompt_id": 7, "annotator": 3}])[0]
    assert labelled.label is False and labelled.extra == {"prompt_id": 7} and labelled.annotator == "3"
    assert open_source([{"prompt": "p", "completion": "y"}])[0].label is True
    assert open_source([{"prompt": "p", "responses": ["a", "b"], "scores": [1, 0.5]}])[0].scores == (1.0, 0.5)
    pair = {"prompt": "p", "chosen": "a", "rejected": "b", "strength": 1, "margin": -2, "annotator": None}
    row = open_source([pair])[0]
    assert (row.strength, row.margin, row.annotator) == (1.0, -2.0, None)


@pytest.mark.parametrize(
    "chosen, rejected, prompt",
    [
        ("The sky is blue", "The sky is black", "The sky is"),
        ("Q: why?\n\nBecause.", "Q: why?\n\nWell.", "Q: why?"),
        ("The sky is", "The sky is blue", "The sky"),
        ("a b\nc", "a b c", "a b"),
        ("a  b", "a c", "a"),
        ("yes", "yesterday", None),
        (" x", " y", None),
    ],
)
def test_an_implicit_string_prompt_ends_before_white_space(chosen: str, rejected: str, prompt: str | None) -> None:
    cut = prompt_end(chosen, rejected)
    assert (None if cut is None else chosen[:cut]) == prompt


def test_200_000_rows_are_indexed_without_keeping_their_texts(tmp_path: Path) -> None:
    n, filler = 200_000, "x" * 150
    with (tmp_path / "large.jsonl").open("w") as file:
        for i in range(n):
            file.write(f'{{"prompt": "question {i // 2} {filler}", "chosen": "yes {i}", "rejected": "no {i}"}}\n')
    size = (tmp_path / "large.jsonl").stat().st_size
    begun = time.process_time()
    with (tmp_path / "large.jsonl").open("rb") as file:
        assert sum(len(json.loads(line)) for line in file) == 3 * n
    parsed = time.process_time()
    source = open_source(tmp_path / "large.jsonl")
    times_parsing = (time.process_time() - parsed) / (parsed - begun)
    assert len(source) == n and len(set(source.prompt_keys)) == n // 2
    assert [source[i].responses[0] for i in (0, 123_456, n - 1)] == ["yes 0", "yes 123456", f"yes {n - 1}"]
    assert times_parsing < 10, "beside json.loads alone, so that a slow machine is no failure"
    assert size > 40e6

    part = tmp_path / "part.jsonl"
    with (tmp_path / "large.jsonl").open("rb") as file:
        part.write_bytes(b"".join(islice(file, 10_000)))
    tracemalloc.start()
    index = open_source(part)
    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # 32 bytes a row, a fifth in spare room of the growing arrays, and what one row needs; the texts alone are 200 a row
    assert kept < peak < 10_000 * 60 < part.stat().st_size / 3
    assert len(index) == 10_000


def test_further_columns_change_the_fingerprint_and_nothing_else() -> None:
    plain, noted = open_source(PAIRS), open_source([{**row, "note": i} for i, row in enumerate(PAIRS)])
    assert plain.fingerprint != noted.fingerprint and plain.row_keys == noted.row_keys
    ragged = [{**PAIRS[0], "note": 1}, PAIRS[1]]
    assert open_source(ragged).fingerprint == open_source(datasets.Dataset.from_list(ragged)).fingerprint
    assert open_source(PAIRS[::-1]).fingerprint != plain.fingerprint


def test_a_row_that_changed_since_the_check_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in PAIRS))
    source = open_source(path)
    path.write_text(path.read_text().replace("good 3", "evil 3"))
    assert source[2].responses[0] == "good 2"
    with pytest.raises(Refusal, match=r"row 4 of a.jsonl is not what it was"):
        source[3]
    path.unlink()
    with pytest.raises(Refusal, match=r"a.jsonl is no longer there"):
        list(source)


def test_rows_written_are_read_back_the_same(tmp_path: Path) -> None:
    for raw, *_ in FORMATS:
        rows = list(open_source([{**raw, "note": "ü"}, {**raw, "annotator": "b", "strength": 0.75, "margin": 0.5}]))
        assert write_rows(tmp_path / "rows.jsonl", rows) == 2
        assert list(open_source(tmp_path / "rows.jsonl")) == rows


def test_real_human_preferences_are_all_accounted_for(shared_data: Path) -> None:
    path = shared_data / "hh_rlhf_harmless" / "pairs.jsonl.gz"
    raw = [json.loads(line) for line in gzip.decompress(path.read_bytes()).split(b"\n") if line]
    with pytest.raises(Refusal, match="7 problems in 7 of 1,800 rows") as refused:
        open_source(path)
    assert refused.value.exit_code == 2
    source = open_source(path, bad_rows="drop")

    # Counted independently: the texts up to the last "Assistant:" agree and both last turns say something.
    whole = []
    for number, row in enumerate(raw, 1):
        before, w = row["chosen"].rsplit("\n\nAssistant:", 1)
        beside, l = row["rejected"].rsplit("\n\nAssistant:", 1)
        if before == beside and w.strip() and l.strip():
            whole.append((number, before.count("\n\nHuman:") + before.count("\n\nAssistant:"), w.strip(), l.strip()))
    assert [(row.number, len(row.prompt), *row.responses) for row in source] == whole
    assert (len(raw), len(source), source.dropped) == (1800, 1793, {"several turns": 5, "empty completion": 2})
    assert source.accounting.read == source.accounting.kept + source.accounting.lost
    assert len(set(source.prompt_keys)) == 1793
    assert all(row.prompt[-1]["role"] == "user" for row in source if not isinstance(row.prompt, str))


def test_other_real_data_is_read_once_it_has_the_columns(shared_data: Path) -> None:
    statements = [json.loads(x) for x in (shared_data / "persona_evals" / "agreeableness.jsonl").read_text().splitlines()]
    columns = {"question": "prompt", "answer_matching_behavior": "chosen", "answer_not_matching_behavior": "rejected"}
    source = open_source([{columns.get(name, name): value for name, value in row.items()} for row in statements])
    assert len(source) == len(statements) and {row.responses for row in source} == {(" Yes", " No"), (" No", " Yes")}
    assert source[0].extra["label_confidence"] == statements[0]["label_confidence"]

    compared = json.loads((shared_data / "pandalm_human" / "testset-v1.json").read_text())
    votes = [
        {"prompt": row["instruction"], "chosen": row[f"response{v}"], "rejected": row[f"response{3 - v}"], "annotator": k}
        for row in compared
        for k in (1, 2, 3)
        if (v := row[f"annotator{k}"]) in (1, 2)
    ]
    source = open_source(votes, bad_rows="drop")
    usable = [
        vote
        for vote in votes
        if vote["chosen"] != vote["rejected"]
        and all(isinstance(vote[c], str) and vote[c].strip() for c in ("prompt", "chosen", "rejected"))
    ]
    assert source.accounting.read == len(votes) and len(source) == len(usable) > 2000
    assert {row.annotator for row in source} == {"1", "2", "3"}


def test_a_source_holds_no_open_file(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in PAIRS))
    source = open_source(tmp_path / "a.jsonl")
    before = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0
    assert [source[i].number for i in range(7)] == list(range(1, 8))
    after = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0
    assert before == after

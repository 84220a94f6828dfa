"""Every input feedback does not read, with the sentence it gets: row, field, value, what is allowed and the mend."""

from __future__ import annotations

import errno
import gzip
import json
import os
import re
from pathlib import Path
from typing import Any

import datasets
import pytest
from datasets.builder import DatasetBuilder
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penchant.errors import Refusal
from penchant.feedback import DataRefusal, open_source

GOOD: dict[str, Any] = {"prompt": "p", "chosen": "a", "rejected": "b"}
LISTED: dict[str, Any] = {"prompt": "p", "responses": ["a", "b"], "scores": [1, 0]}
LABELLED: dict[str, Any] = {"prompt": "p", "completion": "a", "label": True}
USER = {"role": "user", "content": "Hello?"}
SAYS = {"role": "assistant", "content": "Hi."}


def without(row: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key != name}


ROWS: list[tuple[object, str, str]] = [
    # (the row, the field, what is said)
    (["p", "a"], "", "a row must be an object of columns, this is a list"),
    ({}, "", "no known column among none; a row is {prompt, chosen, rejected}"),
    ({"text": "t"}, "", "no known column among 'text'"),
    ({3: "t"}, "", "column names must be text"),
    (without(GOOD, "rejected"), "rejected", "is missing; pairs need it in every row."),
    (without(LISTED, "scores"), "scores", "is missing; lists need it"),
    (without(LISTED, "responses"), "responses", "is missing; lists need it"),
    (without(LABELLED, "completion"), "completion", "is missing; labelled need it"),
    (without(LABELLED, "prompt"), "prompt", "is missing"),
    ({**GOOD, "completion": "c"}, "", "'chosen' and 'rejected' and 'completion', which belong to different kinds"),
    ({**LISTED, "completions": ["a", "b"]}, "completions", "stands beside 'responses'; keep one"),
    ({"prompt": "p", "choosen": "a", "rejected": "b"}, "choosen", "did you mean 'chosen'"),
    ({"prompts": "p", "chosen": "a", "rejected": "b"}, "prompts", "did you mean 'prompt'"),
    ({"Prompt": "p", "completion": "a"}, "Prompt", "did you mean 'prompt'"),
    ({"prompt": "p", "response": "a"}, "response", "did you mean 'responses'"),
    ({**GOOD, "strenght": 1}, "strenght", "did you mean 'strength'"),
    ({**GOOD, "prompt": None}, "prompt", "is null; write a text"),
    ({**GOOD, "rejected": None}, "rejected", "is null; write a text"),
    ({"chosen": None, "rejected": "b"}, "chosen", "is null"),
    ({**LABELLED, "label": None}, "label", "is null; write true or false"),
    ({**LISTED, "scores": None}, "scores", "is null; give a list"),
    ({**LISTED, "scores": [1, None]}, "scores[1]", "is null; give a number"),
    ({**GOOD, "chosen": 7}, "chosen", "is a number, must be text"),
    ({**GOOD, "prompt": {"a": 1}}, "prompt", "is an object, must be text"),
    ({**LABELLED, "label": 1}, "label", "is a number, must be true or false"),
    ({**LABELLED, "label": "true"}, "label", "is text, must be true or false"),
    ({**LISTED, "responses": "ab"}, "responses", "is text, must be a list"),
    ({**LISTED, "scores": [1, "0"]}, "scores[1]", "is text, must be a number"),
    ({**LISTED, "scores": [1, True]}, "scores[1]", "is true/false, must be a number"),
    ({**LISTED, "scores": [1, float("nan")]}, "scores[1]", "is not finite"),
    ({**LISTED, "scores": [1, 10**400]}, "scores[1]", "is not finite"),
    ({**LISTED, "scores": [1]}, "scores", "holds 1 for 2 responses; give one score per response"),
    ({**LISTED, "responses": ["a"], "scores": [1]}, "responses", "holds 1; a list needs at least 2"),
    ({**LISTED, "responses": ["a", [SAYS]]}, "responses", "are written in different forms"),
    ({**GOOD, "prompt": " \n"}, "prompt", "is empty; write a text"),
    ({**GOOD, "chosen": ""}, "chosen", "is empty; write a text"),
    ({**GOOD, "chosen": "b"}, "chosen", "is the same as 'rejected'"),
    ({"chosen": "b", "rejected": "b"}, "chosen", "is the same as 'rejected'"),
    ({"chosen": [USER, SAYS], "rejected": [USER, SAYS]}, "chosen", "is the same as 'rejected'"),
    ({"chosen": "yes", "rejected": "no"}, "chosen", "no common beginning with 'rejected'"),
    ({**GOOD, "chosen": "\ud83d"}, "chosen", "half a surrogate pair"),
    ({**GOOD, "strength": 1.5}, "strength", r"must lie in [0, 1]"),
    ({**GOOD, "strength": "much"}, "strength", "is text, must be a number"),
    ({**GOOD, "margin": float("inf")}, "margin", "is not finite"),
    ({**GOOD, "annotator": 1.5}, "annotator", "is a number, must be text"),
    ({**GOOD, "annotator": ""}, "annotator", "is empty"),
    ({**GOOD, "chosen": [SAYS]}, "rejected", "is strings where 'chosen' is chat messages"),
    ({"chosen": [USER, SAYS], "rejected": "b"}, "rejected", "is text where 'chosen' is a list"),
    # chats
    ({"prompt": []}, "prompt", "is a chat without a turn"),
    ({"prompt": ["hi"]}, "prompt[0]", "is text, must be a message {role, content}"),
    ({"prompt": [{"role": "user"}]}, "prompt[0]", "has 'role'; a message has 'role' and 'content'"),
    ({"prompt": [{"from": "human", "value": "hi"}]}, "prompt[0]", "Rename 'from' to 'role' and 'value' to 'content'"),
    ({"prompt": [{"role": "human", "content": "hi"}]}, "prompt[0].role", "is no role; write 'user'"),
    ({"prompt": [{"role": "User", "content": "hi"}]}, "prompt[0].role", "is no role; did you mean 'user'"),
    ({"prompt": [{"role": "user", "content": 3}]}, "prompt[0].content", "is a number, must be text"),
    ({"prompt": [{**USER, "tool_calls": [1]}]}, "prompt[0]", "has 'tool_calls' beside 'role' and 'content'"),
    ({"prompt": [{"role": "user", "content": ""}]}, "prompt", "its last turn is empty"),
    ({"prompt": [USER, SAYS]}, "prompt", "ends in an assistant's turn"),
    ({"prompt": [USER], "completion": [USER]}, "completion", "without an assistant's turn at its end"),
    ({"prompt": [USER], "completion": [SAYS, USER, SAYS]}, "completion", "has 3 turns after the prompt"),
    ({"chosen": [USER], "rejected": [USER, SAYS]}, "chosen", "without an assistant's turn at its end"),
    ({"chosen": [USER, SAYS], "rejected": [USER, SAYS, SAYS]}, "rejected", "has 2 turns after the prompt"),
    ({"chosen": [SAYS], "rejected": [{**SAYS, "content": "x"}]}, "prompt", "has no turn before the response"),
    # transcripts
    (
        {"chosen": "\n\nHuman: a", "rejected": "\n\nHuman: a\n\nAssistant: b"},
        "chosen",
        "without an assistant's turn at its end",
    ),
    (
        {"chosen": "So: \n\nHuman: a\n\nAssistant: b", "rejected": "So: \n\nHuman: a\n\nAssistant: c"},
        "chosen",
        'the transcript must begin with "Human:"',
    ),
    (
        {
            "chosen": "\n\nAssistant: a\n\nHuman: b\n\nAssistant: c",
            "rejected": "\n\nAssistant: a\n\nHuman: b\n\nAssistant: d",
        },
        "chosen",
        'the transcript begins with "Assistant:"',
    ),
    (
        {"prompt": "\n\nHuman: a\n\nAssistant:", "chosen": " b\n\nHuman: c", "rejected": " d"},
        "chosen",
        "goes on with further turns",
    ),
]


@pytest.mark.parametrize("row, field, said", ROWS, ids=[f"{k} {said}"[:60] for k, (_, _, said) in enumerate(ROWS)])
def test_a_bad_row_is_refused_by_number_field_and_mend(row: object, field: str, said: str) -> None:
    with pytest.raises(DataRefusal) as refused:
        open_source([row], name="mine")
    problem = refused.value.problems[0]
    assert (problem.number, problem.field) == (1, field)
    assert said in problem.said and problem.reason
    assert refused.value.count == len(refused.value.problems) and refused.value.exit_code == 2
    assert re.match(r"mine has \d problems? in its only row:\n  row 1", str(refused.value))


LINES: list[tuple[bytes, str]] = [
    (b'{"prompt": "p" "chosen": "a"}', "not JSON at column 16: Expecting ',' delimiter"),
    (b'{"prompt": "p",', "not JSON at column"),
    (b"plain text", "not JSON at column 1"),
    (b'"text"', "a row must be an object of columns, this is text"),
    (b'{"prompt": "p", "chosen": "a", "rejected": "b", "chosen": "c"}', "the key 'chosen' stands twice"),
    (b'{"prompt": "p", "chosen": "a", "rejected": "b", "margin": NaN}', "NaN is no JSON"),
    (b'{"prompt": "p", "chosen": "a", "rejected": "b", "margin": -Infinity}', "-Infinity is no JSON"),
    (b'{"prompt": "p", "chosen": "a", "rejected": "b", "margin": 1e999}', "'1e999' is too large for a number"),
    (b'{"prompt": "p", "x": ' + b"9" * 5000 + b"}", "too many digits"),
    (b"[" * 100_000, "nested too deeply"),
    (b'{"prompt": "caf\xe9"}', "byte 16 is not UTF-8; save the file as UTF-8"),
    (b'{"prompt": "\\ud83d", "chosen": "a", "rejected": "b"}', "half a surrogate pair"),
    (b'{"prompt": "a\x01b"}', "not JSON at column 14: Invalid control character"),
]


@pytest.mark.parametrize("line, said", LINES, ids=[said for _, said in LINES])
def test_a_bad_line_is_refused_by_its_number(tmp_path: Path, line: bytes, said: str) -> None:
    good = json.dumps(GOOD).encode()
    (tmp_path / "a.jsonl").write_bytes(good + b"\n\n" + line + b"\n" + good)
    with pytest.raises(DataRefusal) as refused:
        open_source(tmp_path / "a.jsonl")
    assert [problem.number for problem in refused.value.problems] == [3]
    assert said in refused.value.problems[0].said
    kept = open_source(tmp_path / "a.jsonl", bad_rows="drop")
    assert [row.number for row in kept] == [1, 4] and sum(kept.dropped.values()) == 1
    assert "1 blank lines skipped" in kept.notes


def test_all_problems_are_counted_and_the_first_twenty_shown() -> None:
    rows = [{**GOOD, "chosen": "", "margin": "wide"} if i % 2 else GOOD for i in range(100)]
    with pytest.raises(DataRefusal) as refused:
        open_source(rows, name="mine")
    said = str(refused.value).split("\n")
    assert refused.value.count == 100 and len(refused.value.problems) == 20
    assert said[0] == "mine has 100 problems in 50 of 100 rows; the first 20:"
    assert said[1] == "  row 2, chosen = '': is empty; write a text, or take the row out."
    assert len(said) == 22 and 'bad_rows="drop"' in said[-1]


def test_a_misnamed_column_is_said_once_with_its_rows() -> None:
    rows = [{"prompt": "p", "choosen": "a", "rejected": "b"}] * 40 + [{"idx": 1, "response1": "a", "annotator1": 2}] * 30
    with pytest.raises(DataRefusal) as refused:
        open_source(rows, name="mine")
    assert str(refused.value).split("\n") == [
        "mine has 70 problems in 70 of 70 rows; the first 2:",
        "  row 1, choosen = 'a': no such column; did you mean 'chosen'? Rename one of them. (So in 40 rows.)",
        "  row 41: no known column among 'idx', 'response1', 'annotator1'; a row is {prompt, chosen, rejected}, "
        "{chosen, rejected}, {prompt, responses, scores}, {prompt, completion, label}, {prompt, completion} or {prompt}. "
        "(So in 30 rows.)",
        'Mend these rows, or have them left out and counted with bad_rows="drop" (--bad-rows drop).',
    ]


def test_dropped_rows_are_counted_by_reason_and_none_is_lost_unsaid() -> None:
    rows = [GOOD, {**GOOD, "chosen": ""}, {**GOOD, "chosen": "b"}, GOOD, {**GOOD, "chosen": "b"}]
    source = open_source(rows, bad_rows="drop")
    assert source.dropped == {"empty completion": 1, "chosen equals rejected": 2}
    assert (source.accounting.read, source.accounting.kept, source.accounting.lost) == (5, 2, 3)
    assert [row.number for row in source] == [1, 4]
    with pytest.raises(DataRefusal, match="No row is left"):
        open_source(rows[1:3], bad_rows="drop")
    with pytest.raises(Refusal, match='must be "refuse" or "drop"'):
        open_source(rows, bad_rows="skip")  # pyright: ignore[reportArgumentType]


def test_kinds_are_never_mixed_not_even_by_dropping() -> None:
    for bad_rows in ("refuse", "drop"):
        with pytest.raises(DataRefusal, match="is a row of labelled completions, row 1 one of pairs; keep one kind"):
            open_source([GOOD, LABELLED], bad_rows=bad_rows)
    with pytest.raises(DataRefusal, match="row 2, label: is missing, row 1 has a label; label all rows or none"):
        open_source([LABELLED, without(LABELLED, "label")])
    with pytest.raises(DataRefusal, match="row 2, label: has a label, row 1 has no label"):
        open_source([without(LABELLED, "label"), LABELLED])


def test_values_are_shown_short_and_harmless() -> None:
    with pytest.raises(DataRefusal) as refused:
        open_source([{"prompt": "p", "completion": ["\x1b[31m" * 50], "\u202egnorw": 1}])
    assert "\x1b" not in str(refused.value) and "\u202e" not in str(refused.value)
    assert len(str(refused.value)) < 600
    with pytest.raises(DataRefusal) as refused:
        open_source([{"\x1b[2J" + "x" * 5000: 1}])
    assert "\x1b" not in str(refused.value) and len(str(refused.value)) < 700


def test_a_missing_file_is_answered_with_the_nearest_name(tmp_path: Path) -> None:
    (tmp_path / "pairs.jsonl").write_text("")
    with pytest.raises(Refusal, match=r"there is no file .*pair\.jsonl; did you mean .*pairs\.jsonl\?"):
        open_source(tmp_path / "pair.jsonl")
    with pytest.raises(Refusal, match="holds nothing of a similar name"):
        open_source(tmp_path / "zzz.parquet")
    with pytest.raises(Refusal, match=r"its folder .* is not there"):
        open_source(str(tmp_path / "nowhere" / "pairs.jsonl"))
    with pytest.raises(Refusal, match=r"no such data set on the hub|could not be read"):
        open_source("nobody/no-such-pairs")


def test_files_that_hold_no_rows_are_refused(tmp_path: Path) -> None:
    for name, content, said in [
        ("a.jsonl", b"", "is empty; it must hold at least one row"),
        ("b.jsonl", b"\n \n", "is empty"),
        ("c.json", b"[]", "is empty"),
        ("d.json", b'[{"prompt": "p"},\n {"prompt" "q"}]', "not JSON at line 2 column 12"),
        ("e.csv", b"prompt\np", "has an ending penchant does not read; it reads .jsonl"),
        ("f.jsonl", '{"prompt": "p"}'.encode("utf-16"), "is UTF-16, not UTF-8"),
        ("g.jsonl.gz", b"no gzip", "is no whole gzip file"),
        ("h.jsonl.gz", gzip.compress(b'{"prompt": "p"}\n' * 999)[:-9], "is no whole gzip file"),
        ("i.parquet", b"PAR1 no", "is no readable Parquet file"),
        ("j.jsonl", b'[{"prompt": "p"}]', "begins a JSON array; write one object per line, or name the file .json"),
    ]:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(Refusal) as refused:
            open_source(tmp_path / name)
        assert said in str(refused.value), name
    assert not list((tmp_path.parent / "cache" / "unpacked").glob(".*"))


def test_no_room_to_unpack_is_a_sentence_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(b'{"prompt": "p"}'))
    monkeypatch.setenv("PENCHANT_CACHE", str(tmp_path / "cache"))

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(
            Refusal, match=r"could not be unpacked into .*unpacked \(No space left on device\); set PENCHANT_CACHE"
        ):
            open_source(tmp_path / "a.jsonl.gz")
    assert not list((tmp_path / "cache" / "unpacked").iterdir())
    assert len(open_source(tmp_path / "a.jsonl.gz")) == 1


def test_folders_and_other_objects_are_refused_with_what_to_give(tmp_path: Path) -> None:
    (tmp_path / "pairs.jsonl").write_text("{}")
    with pytest.raises(Refusal, match=r"is a folder, and not one saved by datasets; name one of its files: pairs\.jsonl"):
        open_source(tmp_path)
    data = datasets.Dataset.from_list([GOOD])
    both = datasets.DatasetDict({"train": data, "test": data})
    both.save_to_disk(str(tmp_path / "both"))
    with pytest.raises(Refusal, match=r"holds several splits; name one: .*test, .*train"):
        open_source(tmp_path / "both")
    assert len(open_source(tmp_path / "both" / "train")) == 1
    with pytest.raises(Refusal, match=r"has several splits \('train', 'test'\); give one"):
        open_source(both)
    with pytest.raises(Refusal, match="is a IterableDataset, which cannot be read twice"):
        open_source(data.to_iterable_dataset())
    for thing in (7, b"bytes", GOOD, iter([GOOD])):
        with pytest.raises(Refusal, match="a source of rows cannot be"):
            open_source(thing)


def test_wrong_column_types_in_a_table_are_refused_row_by_row(tmp_path: Path) -> None:
    rows = [{"prompt": "p", "chosen": i, "rejected": None} for i in range(3)]
    datasets.Dataset.from_list(rows).to_parquet(str(tmp_path / "a.parquet"))
    with pytest.raises(DataRefusal, match="6 problems in 3 of 3 rows") as refused:
        open_source(tmp_path / "a.parquet")
    assert [str(problem) for problem in refused.value.problems[:2]] == [
        "row 1, chosen = 0: is a number, must be text.",
        "row 1, rejected: is null; write a text, or take the row out.",
    ]


def test_hub_data_is_read_at_a_recorded_revision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({**GOOD, "chosen": f"a{i}"}) + "\n" for i in range(3)))
    asked: list[str] = []
    revision = "0123456789" * 4
    real = datasets.load_dataset_builder

    def builder_of(name: str) -> DatasetBuilder:
        asked.append(name)
        files = {"train": str(tmp_path / "a.jsonl"), "test": str(tmp_path / "a.jsonl")}
        builder = real("json", data_files=files, cache_dir=str(tmp_path / "hub"))
        builder.hash = revision
        return builder

    monkeypatch.setattr(datasets, "load_dataset_builder", builder_of)
    source = open_source("org/name:test")
    assert (source.name, source.revision, len(source)) == ("org/name:test", "0123456789" * 4, 3)
    assert open_source("org/name").notes == ["split 'train' of train, test"]
    assert asked == ["org/name", "org/name"]
    with pytest.raises(Refusal, match="org/name has no split 'tset'; did you mean 'test'"):
        open_source("org/name:tset")
    revision = "local"
    with pytest.raises(Refusal, match=r"the revision of org/name cannot be told"):
        open_source("org/name")


WORD = st.text(min_size=1, max_size=6)
TURN = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "system", "human"]), "content": st.text(max_size=4)}
)
SAID = st.one_of(
    WORD,
    WORD.map("\n\nHuman: a\n\nAssistant: {}".format),
    st.sampled_from(["\n\nHuman: a\n\nAssistant:", "the sky is", "\n\nAssistant: a"]),
    WORD.map("the sky {}".format),
    st.lists(TURN, max_size=3),
)
NUMBER = st.floats(0, 1) | st.integers(0, 1) | st.floats()
JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4) | TURN,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=5,
)
COLUMN = {
    **dict.fromkeys(("prompt", "chosen", "rejected", "completion", "annotator"), SAID),
    **dict.fromkeys(("responses", "completions"), st.lists(SAID, max_size=3)),
    "scores": st.lists(NUMBER, max_size=3),
    **dict.fromkeys(("strength", "margin"), NUMBER),
    "label": st.booleans(),
}
SETS = st.sampled_from(
    [["prompt", "chosen", "rejected"], ["chosen", "rejected"], ["prompt", "completion"], ["prompt", "responses", "scores"]]
)
ANY_ROW = SETS.flatmap(
    lambda names: st.fixed_dictionaries(
        {name: st.one_of(*[COLUMN[name]] * 9, JUNK) for name in names},
        optional={
            name: column | JUNK for name, column in COLUMN.items() if name in ("label", "annotator", "strength", "margin")
        },
    )
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(ANY_ROW | JUNK, min_size=1, max_size=3), st.binary(max_size=20))
def test_whatever_a_file_holds_the_answer_is_rows_or_a_refusal(tmp_path: Path, rows: list[Any], noise: bytes) -> None:
    lines = [json.dumps(row).encode() for row in rows]
    (tmp_path / "a.jsonl").write_bytes(b"\n".join([*lines, noise]))
    for source in (rows, tmp_path / "a.jsonl"):
        try:
            opened = open_source(source, bad_rows="drop")
        except Refusal as refusal:
            assert str(refusal)
            continue
        assert len(list(opened)) == len(opened) == opened.accounting.read - opened.accounting.lost > 0
        for row in opened:
            texts = [*row.responses, *([row.prompt] if isinstance(row.prompt, str) else [t["content"] for t in row.prompt])]
            assert all(text.encode() is not None for text in texts) and all(y.strip() for y in row.responses)
            assert row.kind != "pairs" or row.responses[0] != row.responses[1]

"""Ten thousand rows that something happened to: each is read as what it says, or refused with its number and field. What a
good row is, and each refusal by itself, is tested elsewhere."""

from __future__ import annotations

import gzip
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from hostile_rows import lines
from penchant import cli
from penchant.domains.text.domain import Text
from penchant.errors import Refusal
from penchant.feedback import open_source
from penchant.feedback.fields import LARGEST
from penchant.feedback.formats import read_row
from penchant.feedback.lines import strict_json
from penchant.feedback.problems import BadRow
from penchant.feedback.records import Problem, Row
from penchant.feedback.writing import as_mapping
from tiny import CHATML, tiny_tokenizer

LINES = lines(10_000)
RAW = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""What no terminal is to be sent."""
SHARES = {"read": 2500, "refused": 4000}
"""How many of the ten thousand must at least come to each end, or the generator tests little."""


def read(line: bytes, number: int) -> Row | tuple[Problem, ...]:
    """The row that a line holds, or what is wrong with it."""
    value = strict_json(line, number)
    if isinstance(value, Problem):
        return (value,)
    try:
        return read_row(value, number)[0]
    except BadRow as bad:
        return bad.problems


READ = [read(line, number) for number, line in enumerate(LINES, 1)]


def texts(value: Any) -> list[str]:
    """Every text anywhere in a value, however deep."""
    found, open_ones = [], [value]
    while open_ones:
        one = open_ones.pop()
        if isinstance(one, str):
            found.append(one)
        elif isinstance(one, (list, dict)):
            open_ones += one.values() if isinstance(one, dict) else one
    return found


def test_ten_thousand_rows_are_read_or_refused_with_their_number_field_and_a_clean_sentence() -> None:
    ends = Counter("read" if isinstance(one, Row) else "refused" for one in READ)
    assert all(ends[end] >= least for end, least in SHARES.items()), ends
    for number, one in enumerate(READ, 1):
        if isinstance(one, Row):
            assert one.number == number
            continue
        assert one
        for problem in one:
            assert problem.number == number and problem.reason
            assert 10 < len(problem.said) <= 400 and len(problem.value) <= 60 and problem.said.rstrip()[-1] in ".?!)"
            assert not RAW.search(str(problem)), str(problem)
    assert len({problem.reason for one in READ if not isinstance(one, Row) for problem in one}) >= 25


def test_a_row_that_is_read_means_what_it_said() -> None:
    for line, row in zip(LINES, READ, strict=True):
        if not isinstance(row, Row):
            continue
        raw = json.loads(line)
        said = texts(raw)
        prompt = [row.prompt] if isinstance(row.prompt, str) else [turn["content"] for turn in row.prompt]
        for text in [*row.responses, *prompt]:
            assert any(text in one for one in said)
            assert text.encode()
        assert len(set(row.responses)) == 2 or row.kind != "pairs"
        for name in ("strength", "margin"):
            assert getattr(row, name) == raw.get(name) and not isinstance(raw.get(name), bool)
            assert abs(getattr(row, name) or 0) <= LARGEST
        assert row.label is (raw.get("label", True) if row.kind == "labelled" else None)
        assert row.annotator == (None if raw.get("annotator") is None else str(raw["annotator"]))
        assert row.kind != "lists" or list(row.scores or ()) == raw["scores"]
        assert row.extra.items() <= raw.items()


def test_a_row_that_is_read_is_written_and_read_again_the_same() -> None:
    for row in READ:
        if isinstance(row, Row):
            written = json.loads(json.dumps(as_mapping(row)))
            again = read_row(written, row.number)[0]
            assert again == row, written


@pytest.mark.parametrize("template", [CHATML, None], ids=["chat", "raw"])
def test_a_row_that_is_encoded_says_the_same_as_text(template: str | None) -> None:
    domain = Text(tiny_tokenizer(template), max_length=10_000)
    spoken = domain.chat.tokenizer
    kept = 0
    for row in [one for one in READ if isinstance(one, Row)][:: 12 if template else 30]:
        try:
            encoded = domain.encode([row])
        except Refusal as refusal:
            assert f"row {row.number}" in str(refusal)
            continue
        assert len(encoded) + encoded.accounting.lost == 1
        kept += len(encoded)
        for context, responses in zip(encoded.contexts, encoded.responses, strict=True):
            turns = [row.prompt] if isinstance(row.prompt, str) else [turn["content"] for turn in row.prompt]
            shown = spoken.decode(context)
            assert all(turn in shown for turn in turns)
            for text, ids in zip(row.responses, responses, strict=True):
                stopped = domain.chat.stop_text
                assert domain.chat.text(ids) == (
                    text.rstrip().removesuffix(stopped) if text.rstrip().endswith(stopped) else text
                )
    assert kept > 40


def test_files_of_such_rows_keep_exactly_the_good_ones_by_their_numbers(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    for start in range(0, 4000, 400):
        part = READ[start : start + 400]
        kinds = Counter(one.kind for one in part if isinstance(one, Row))
        kind = kinds.most_common(1)[0][0]
        chosen = [i for i, one in enumerate(part) if not isinstance(one, Row) or one.kind == kind]
        chosen = [i for i in chosen if LINES[start + i].strip() and not LINES[start + i].startswith((b"\xff", b"\xfe"))]
        path.write_bytes(b"\r\n".join(LINES[start + i] for i in chosen))
        source = open_source(path, bad_rows="drop")
        numbers = [row.number for row in source]
        good = {k for k, i in enumerate(chosen, 1) if isinstance(part[i], Row)}
        assert set(numbers) <= good and source.accounting.kept == len(numbers)
        mixed = source.dropped.get("missing field", 0)  # labels on some rows only
        assert len(good) - len(numbers) <= mixed
        with pytest.raises(Refusal, match="problems in"):
            open_source(path)


def test_the_shell_says_what_is_wrong_with_any_file_and_never_how_it_failed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], tiny_folder: Path
) -> None:
    packed = gzip.compress(b"\n".join(LINES[:50]))
    files = {
        **{f"{k}.jsonl": b"\n".join(LINES[k * 40 : k * 40 + 40]) for k in range(12)},
        **{f"one{k}.jsonl": LINES[k] for k in range(4000, 4015)},
        "array.json": b"[" + b",".join(LINES[600:604]) + b"]",
        "torn.json": b'[{"prompt": "a"',
        "bom.jsonl": b'\xef\xbb\xbf{"prompt": "a"}\r\n{"prompt": "b"}\r\n',
        "utf16.jsonl": '{"prompt": "a"}\n'.encode("utf-16"),
        "torn.jsonl.gz": packed[: len(packed) // 2],
        "flipped.jsonl.gz": packed[:40] + bytes([packed[40] ^ 255]) + packed[41:],
        "deep.jsonl": b'{"prompt": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        "digits.jsonl": b'{"prompt": "a", "chosen": "b", "rejected": "c", "margin": ' + b"9" * 5000 + b"}",
        "score.jsonl": b'{"prompt": "a", "chosen": "b", "rejected": "c", "rejected_score": 1, "chosen_score": ' + b"9" * 400 + b"}",
    }  # fmt: skip
    ends: Counter[int] = Counter()
    for k, (name, content) in enumerate(files.items()):
        (tmp_path / name).write_bytes(content)
        flags = ["--json"] if k % 3 == 0 else ["--model", str(tiny_folder)] if k % 10 == 1 else []
        ends[code := cli.main(["check", str(tmp_path / name), *flags])] += 1
        out, err = capsys.readouterr()
        assert code in (0, 2), (name, code, err)
        assert "Traceback" not in err and not RAW.search(out + err), name
        assert (code == 0) == ("problem" not in err and "wrong" not in out) or err, name
    assert ends[0] >= 3 and ends[2] > 12


@pytest.mark.parametrize(
    "name", ["~nobody-of-this-name/x.jsonl", "a\0b.jsonl", "\udcff.jsonl", "\x1b[31m.jsonl", "", "/", "x/y/z"]
)
def test_any_name_of_a_file_is_answered(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["check", name]) == 2
    assert not RAW.search(capsys.readouterr().err)


TABLE = {"prompt": ["a", "b"], "chosen": ["c", "d"], "rejected": ["e", "f"]}
ODD_TABLES = {
    "bytes": (pyarrow.table({**TABLE, "chosen": [b"a", b"\xff"]}), "chosen"),
    "decimals": (
        pyarrow.table({**TABLE, "margin": pyarrow.array([1, 2]).cast(pyarrow.decimal128(21))}),
        "must be a number",
    ),
    "nowhere's time": (
        pyarrow.table({**TABLE, "when": pyarrow.array([1, 2], pyarrow.timestamp("ns", "Mars/Olympus"))}),
        "cannot be read",
    ),
    "no rows": (pyarrow.table({name: pyarrow.array([], pyarrow.string()) for name in TABLE}), "is empty"),
    "a column twice": (pyarrow.table([["a"], ["b"], ["c"]], names=["chosen", "chosen", "rejected"]), "no readable Parquet"),
    "a map": (
        pyarrow.table({**TABLE, "m": pyarrow.array([[("a", 1)], []], pyarrow.map_(pyarrow.string(), pyarrow.int64()))}),
        "no readable Parquet",
    ),
    "no JSON in its head": (pyarrow.table(TABLE).replace_schema_metadata({"huggingface": "?"}), "no readable Parquet"),
    "an unknown feature": (
        pyarrow.table(TABLE).replace_schema_metadata(
            {"huggingface": '{"info": {"features": {"prompt": {"_type": "os.system"}}}}'}
        ),
        "no readable Parquet",
    ),
}


@pytest.mark.parametrize(("table", "said"), ODD_TABLES.values(), ids=ODD_TABLES)
def test_an_odd_table_is_refused_in_a_sentence(
    table: pyarrow.Table, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pyarrow.parquet.write_table(table, tmp_path / "odd.parquet")
    assert cli.main(["check", str(tmp_path / "odd.parquet")]) == 2
    assert said in capsys.readouterr().err


def test_a_picture_in_a_table_is_not_opened(tmp_path: Path) -> None:
    """A column of pictures may name any file of the machine, or any address."""
    features = {**{name: {"dtype": "string", "_type": "Value"} for name in TABLE}, "picture": {"_type": "Image"}}
    pictures = [{"bytes": None, "path": "/nowhere/a.png"}, {"bytes": b"no picture", "path": "http://127.0.0.1:9/a.png"}]
    table = pyarrow.table({**TABLE, "picture": pictures})
    head = {"huggingface": json.dumps({"info": {"features": features}})}
    pyarrow.parquet.write_table(table.replace_schema_metadata(head), tmp_path / "pictures.parquet")
    assert [row.extra["picture"] for row in open_source(tmp_path / "pictures.parquet")] == pictures

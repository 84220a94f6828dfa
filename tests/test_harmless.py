"""What the shell prints of data, models and file names: characters, never orders to the terminal or to its library.
The report, the card and the summary are tested in test_report.py."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import pytest

from penchant.running.voice import Voice
from penchant.words import json_text
from test_cli import said
from tiny import tiny_model

HOSTILE = "[red]x[bold] :smile: \x1b]0;owned\x07 \x9b31m \u202e \U000e0041"


def unsafe(said: str) -> set[str]:
    """What a terminal would obey in a text."""
    return {ch for ch in said if ch != "\n" and unicodedata.category(ch) in ("Cc", "Cf", "Cs")}


def test_json_for_a_terminal_is_harmless_and_reads_back_the_same(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    value = {HOSTILE: ["grüß dich", HOSTILE, 1.5]}
    assert json.loads(json_text(value)) == value and "grüß" in json_text(value) and not unsafe(json_text(value, indent=1))
    model = str(tiny_model(tmp_path / "model"))
    code, out, _ = said(capsys, "sample", "--model", model, "--limit", "2", "--json", "--prompt", HOSTILE)
    assert code == 0 and not unsafe(out) and json.loads(out)["prompt"] == HOSTILE
    code, out, _ = said(capsys, "sample", "--model", model, "--limit", "2", "--prompt", HOSTILE)
    assert code == 0 and not unsafe(out) and "[red]x[bold] :smile: ␛]0;owned" in out


def test_a_name_of_a_file_is_printed_as_it_stands_and_never_obeyed(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    path = tmp_path / f"{HOSTILE}.jsonl"
    with Voice() as voice:
        voice.say(f"data {path.name}")
    out = capsys.readouterr().out.replace("\n", "")
    assert not unsafe(out) and "[red]x[bold] :smile:" in " ".join(out.split())
    code, _, err = said(capsys, "check", str(path))
    assert code == 2 and not unsafe(err) and "[red]x[bold] :smile:" in err
    path.write_text('{"prompt": "Hi?", "chosen": "yes", "rejected": "no"}\n')
    code, out, _ = said(capsys, "check", str(path))
    assert code == 0 and not unsafe(out)
    code, out, _ = said(capsys, "check", str(path), "--json")
    assert code == 0 and not unsafe(out)

"""Benchmarks through lm-eval, on a task file and data of our own: nothing is downloaded."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from penchant import cli
from penchant.running.benchmarks import figures
from tiny import tiny_model

pytestmark = pytest.mark.filterwarnings("default")
OPTIONS = ["yes", "no thank you", "the mat"]


@pytest.fixture
def task(tmp_path: Path) -> Path:
    """A task of 12 questions with three choices."""
    pytest.importorskip("lm_eval", reason="lm-eval is not installed: pip install 'penchant[benchmarks]'")
    rows = [{"q": f"What is cat {i}?", "options": OPTIONS, "gold": i % 3} for i in range(12)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    path = tmp_path / "cats.yaml"
    path.write_text(
        "task: cats\ndataset_path: json\ntest_split: test\noutput_type: multiple_choice\n"
        f"dataset_kwargs: {{data_files: {{test: {tmp_path}/rows.jsonl}}, cache_dir: {tmp_path}/cache}}\n"
        'doc_to_text: "{{q}}"\ndoc_to_choice: "{{options}}"\ndoc_to_target: gold\n'
        "metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]\n"
    )
    return path


@torch.no_grad()
def right(folder: Path) -> list[float]:
    """Per question, whether the right choice is the most probable, by transformers alone."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    out = []
    for i in range(12):
        scores = []
        for option in OPTIONS:
            start = tokenizer(f"What is cat {i}?", add_special_tokens=False)["input_ids"]
            ids = torch.tensor([tokenizer(f"What is cat {i}? {option}", add_special_tokens=False)["input_ids"]])
            logp = model(ids).logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0]
            scores.append(float(logp[len(start) - 1 :].sum()))
        out.append(float(scores.index(max(scores)) == i % 3))
    return out


def test_a_model_and_its_reference_are_measured_on_the_same_rows(
    task: Path, tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tiny_model(tmp_path / "other", seed=3)
    words = ["evaluate", str(other), "--tasks", str(task), "--reference", str(tiny_folder), "--precision", "fp32"]
    assert cli.main([*words, "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    new, old = right(other), right(tiny_folder)
    assert (found["task"], found["metric"], found["shots"], found["higher_is_better"]) == ("cats", "acc", 0, True)
    assert found["value"]["value"] == pytest.approx(sum(new) / 12) and found["value"]["n"] == 12
    assert found["reference"]["value"] == pytest.approx(sum(old) / 12)
    assert found["change"]["value"] == pytest.approx((sum(new) - sum(old)) / 12)
    assert cli.main([*words[:4], "--task-rows", "5"]) == 0
    table = [line.split() for line in capsys.readouterr().out.splitlines()[-2:]]
    assert table[0] == ["task", "metric", "shots", "model", "rows"]
    assert table[1][:4] == ["cats", "acc", "↑", "0"] and table[1][-1] == "5"


def test_numbers_that_are_no_mean_of_rows_keep_the_error_they_came_with() -> None:
    returned: dict[str, Any] = {
        "results": {
            "both": {"alias": "both", "sample_len": 9, "acc,none": 0.5, "acc_stderr,none": 0.1},
            "odd": {"f1,strict": 0.25, "f1_stderr,strict": "N/A", "acc,none": 1.0, "acc_stderr,none": 0.0},
        },
        "n-shot": {"odd": 2},
        "higher_is_better": {"both": {"acc": True}, "odd": {"f1": True}},
        "samples": {"odd": [{"doc_id": i, "filter": "none", "acc": 1.0} for i in range(4)]},
    }
    group, f1, acc = figures(returned, returned)
    assert (group.value.low, group.value.high) == pytest.approx((0.304, 0.696), abs=1e-3) and group.shots is None
    assert (f1.metric, f1.value.low, f1.change) == ("f1,strict", -math.inf, None)
    assert acc.value.low == pytest.approx(0.5101, abs=1e-3) and acc.change is not None and acc.change.value == 0


def test_what_cannot_be_measured_is_refused_in_a_sentence(
    tiny_folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = str(tiny_folder)
    for words, said in (
        (["--tasks", "cats", "--data", "x.jsonl"], "leave --data out"),
        (["--tasks", "cats", "--max-length", "64"], "leave --max-length out"),
        (["--tasks", ","], "names no task"),
        (["--tasks", "cats", "--task-rows", "0"], "at least 1"),
        (["--shots", "3"], "name them with --tasks"),
    ):
        assert cli.main(["evaluate", model, *words]) == 2
        assert said in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    monkeypatch.delitem(sys.modules, "lm_eval.tasks", raising=False)
    assert cli.main(["evaluate", model, "--tasks", "cats"]) == 2
    assert "pip install 'penchant[benchmarks]'" in capsys.readouterr().err

"""`penchant evaluate` on a model: measured against the one it came from, as a run measures itself.
The verdict's rules are tested with the evaluation."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from penchant import cli
from penchant.engine.settings import Settings
from penchant.objectives import DPO
from penchant.rewards import FunctionJudge
from penchant.running.evaluate import evaluate
from penchant.running.voice import Voice
from tiny import tiny_model

ROWS = [{"prompt": f"What is {i}?", "chosen": f"It is {i}.", "rejected": f"No, {i + 1} it is not."} for i in range(24)]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """(a model, the same after its weights moved)."""
    folder = tmp_path_factory.mktemp("models")
    old = tiny_model(folder / "old")
    shutil.copytree(old, folder / "new")
    model = AutoModelForCausalLM.from_pretrained(old)
    with torch.no_grad():
        for i, parameter in enumerate(model.parameters()):
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(i)))
    model.save_pretrained(folder / "new")
    return str(old), str(folder / "new")


@pytest.fixture
def pairs(tmp_path: Path) -> str:
    path = tmp_path / "unseen.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return str(path)


SMALL = {"sample_prompts": 2, "sample_count": 1, "limit": 4, "precision": "fp32", "threads": 1}


def test_the_reference_is_what_the_model_is_measured_from(models: tuple[str, str], pairs: str):
    old, new = models
    evidence, _ = evaluate(new, old, pairs, DPO(beta=0.1), None, Settings.of(SMALL), Voice(quiet=True))
    before, after = evidence.pairs_before, evidence.pairs_after
    assert before is not None and after is not None and before.ref_chosen is not None and after.ref_chosen is not None
    assert after.numbers == list(range(1, 25))
    assert before.reward_chosen == [0.0] * 24
    assert after.ref_chosen == pytest.approx(before.logp_chosen, abs=1e-4)
    assert after.logp_chosen != before.logp_chosen
    expected = [0.1 * (new - old) for new, old in zip(after.logp_chosen, after.ref_chosen, strict=True)]
    assert after.reward_chosen == pytest.approx(expected, abs=1e-4)


def test_prompts_are_answered_and_judged(models: tuple[str, str], tmp_path: Path):
    old, new = models
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"prompt": "Hi?"}\n{"prompt": "Ho?"}\n{"prompt": "Ha?"}\n')
    judge = FunctionJudge(lambda prompt, response: float(len(response)), "length")
    evidence, verdict = evaluate(new, old, str(path), DPO(), judge, Settings.of(SMALL), Voice(quiet=True))
    after = evidence.samples_after
    assert evidence.pairs_after is None and after is not None and after.scores is not None
    assert after.prompts == ["Hi?", "Ho?"]
    assert after.scores == [[float(len(text)) for text in texts] for texts in after.texts]
    assert verdict.word == "not measured"


def said(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = cli.main(list(words))
    captured = capsys.readouterr()
    return code, captured.out, captured.err


FLAGS = [word for name, value in SMALL.items() for word in (f"--{name.replace('_', '-')}", str(value))]


def test_a_model_that_is_its_reference_has_learned_nothing_and_says_so(
    capsys: pytest.CaptureFixture[str], models: tuple[str, str], pairs: str
):
    code, out, _ = said(capsys, "evaluate", models[0], "--reference", models[0], "--data", pairs, "--json", *FLAGS)
    assert code == 1
    assert json.loads(out)["word"] == "nothing learned"


def test_models_that_write_text_differently_are_not_compared(
    capsys: pytest.CaptureFixture[str], models: tuple[str, str], pairs: str, tmp_path: Path
):
    other = tiny_model(tmp_path / "other", template="{% for m in messages %}{{ m['content'] }}<|im_end|>{% endfor %}")
    code, _, err = said(capsys, "evaluate", models[1], "--reference", str(other), "--data", pairs, "--json", *FLAGS)
    assert code == 2 and "write text differently" in err


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--data", "x.jsonl"), "give --reference too"),
        (("--reference", "m"), "--reference measures a model on data: give --data too"),
        (("--limit", "3"), "--limit measures a model on data"),
        ((), "holds no finished run"),
    ],
)
def test_a_question_that_lacks_something_is_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, words: tuple[str, ...], expected: str
):
    code, _, err = said(capsys, "evaluate", str(tmp_path), *words)
    assert code == 2 and expected in err


def test_prompts_without_a_judge_are_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"prompt": "Hi?"}\n')
    code, _, err = said(capsys, "evaluate", "m", "--reference", "m", "--data", str(path), "--json")
    assert code == 2 and "give --judge" in err

"""Whole runs on a tiny language model: from rows to a model, a verdict and a report; killed, interrupted, refused, resumed."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import penchant
from penchant.engine import checkpoint
from penchant.engine.checkpoint import Position
from penchant.engine.settings import Settings
from penchant.engine.step import Outcome
from penchant.errors import Refusal
from penchant.evaluation.evidence import IN_PYTHON
from penchant.feedback import open_source
from penchant.objectives import CPO, DPO, KTO, NLL, ORPO, SimPO
from penchant.report.facts import command
from penchant.rewards.function import FunctionJudge
from penchant.run import Run, align
from penchant.running.voice import Voice

HAPPY = ["good day", "happy cat", "thank you", "yes please", "good night", "the cat is happy"]
SAD = ["bad day", "sad cat", "no", "bad night", "the cat is sad", "it is bad"]


def pairs(n: int = 88) -> list[dict[str, Any]]:
    """Happy answers are preferred to sad ones, under different prompts."""
    draw = random.Random(0)
    ask = lambda i: f"what is it {'day' if i % 2 else 'night'} {i}"  # noqa: E731
    return [{"prompt": ask(i), "chosen": draw.choice(HAPPY), "rejected": draw.choice(SAD)} for i in range(n)]


def run_in(folder: Path, model: Path, objective: Any = "DPO(beta=0.5)", **settings: Any) -> Run:
    return align(
        model,
        settings.pop("data", None) or pairs(),
        objective,
        output=folder,
        **{
            "quiet": True,
            "learning_rate": 3e-3,
            "batch": 8,
            "held_out": 0.25,
            "threads": 1,
            "precision": "fp32",
            "sample_prompts": 3,
            "limit": 6,
            **settings,
        },
    )


def test_a_run_learns_and_leaves_everything_it_promises(tmp_path: Path, tiny_folder: Path):
    run = run_in(tmp_path / "x", tiny_folder, epochs=3)
    assert run.verdict.ok and run.verdict.word == "learned"
    for name in ("model/model.safetensors", "model/config.json", "model/README.md", "report.html", "evidence.json"):
        assert (run.folder / name).stat().st_size > 100, name
    assert not list(run.folder.rglob("*.bin")) and not list(run.folder.rglob("*.pt"))
    steps = [x for x in run.history if x["kind"] == "step"]
    assert len(steps) == 3 * 9 and steps[0]["loss"] == pytest.approx(0.6931, abs=1e-3)
    assert steps[-1]["reward/accuracy"] > 0.9 and {x["round"] for x in steps} == {0}
    assert list(run.left) == ["model", "report"]
    before, after = run.evidence.pairs_before, run.evidence.pairs_after
    assert before is not None and after is not None
    assert before.reward_chosen == [0.0] * len(before.numbers)
    trained = {x["prompt"] for i, x in enumerate(pairs()) if i + 1 not in after.numbers}
    assert len(trained) == 66 and len(after.numbers) == 22
    from transformers import AutoModelForCausalLM

    again = AutoModelForCausalLM.from_pretrained(run.model)
    last = checkpoint.latest(run.folder / "checkpoints")
    assert last is not None
    saved = load_file(last / "policy.safetensors")
    for name, tensor in again.state_dict().items():
        key = f"model.{name}"
        if key in saved:
            assert torch.equal(saved[key], tensor)


def test_the_same_call_again_finds_the_run_finished(tmp_path: Path, tiny_folder: Path):
    first = run_in(tmp_path / "x", tiny_folder)
    stamp = (first.model / "model.safetensors").stat().st_mtime_ns
    again = run_in(tmp_path / "x", tiny_folder)
    assert (again.model / "model.safetensors").stat().st_mtime_ns == stamp
    assert again.verdict == first.verdict == Run.open(tmp_path / "x").verdict


def test_another_run_in_the_same_folder_is_refused_with_what_differs(tmp_path: Path, tiny_folder: Path):
    run_in(tmp_path / "x", tiny_folder)
    with pytest.raises(Refusal, match=r"objective: 'DPO\(beta=0.5\)' there, 'IPO"):
        run_in(tmp_path / "x", tiny_folder, "IPO(tau=0.3)")
    with pytest.raises(Refusal, match=r"learning_rate: 0.003 there, 0.001 here"):
        run_in(tmp_path / "x", tiny_folder, learning_rate=1e-3)
    assert (
        run_in(tmp_path / "x", tiny_folder, "IPO(tau=0.3)", overwrite=True).evidence.settings["objective"].startswith("IPO")
    )


@pytest.mark.parametrize(
    "objective", [SimPO(), CPO() + NLL(), NLL() + 0.1 * ORPO(), KTO(), DPO() + 0.2 * NLL(reduction="token")], ids=repr
)
def test_every_kind_of_objective_runs(objective: Any, tmp_path: Path, tiny_folder: Path):
    run = run_in(tmp_path / "x", tiny_folder, objective, sample_prompts=0)
    steps = [x for x in run.history if x["kind"] == "step"]
    assert len(steps) == (17 if isinstance(objective, KTO) else 9)
    assert all(x["grad_norm"] > 0 for x in steps)


def test_lora_trains_the_adapter_alone_and_is_its_own_reference(tmp_path: Path, tiny_folder: Path):
    run = run_in(tmp_path / "x", tiny_folder, lora=4, epochs=3, learning_rate=2e-2)
    assert (run.model / "adapter_model.safetensors").exists() and not (run.model / "model.safetensors").exists()
    assert run.evidence.choices["trained_parameters"] < run.evidence.choices["parameters"] / 3
    assert run.verdict.word == "learned"
    further = run_in(tmp_path / "y", run.model, learning_rate=1e-3)
    start = next(x for x in further.history if x["kind"] == "start")
    assert start["drift"] < 1e-4  # the reference is the adapter as it was given, not the bare model
    before = further.evidence.samples_before
    assert before is not None and before.kl is not None and max(k for row in before.kl for k in row) < 1e-6


def test_the_judge_makes_the_pairs_of_an_on_policy_run(tmp_path: Path, tiny_folder: Path):
    letters = FunctionJudge(lambda prompt, response: response.count("a") - 0.1 * len(response), name="letters")
    prompts = [{"prompt": f"what is it {i}"} for i in range(12)]
    run = run_in(
        tmp_path / "x", tiny_folder, data=prompts, judge=letters, rounds=3, samples=4, epochs=2, learning_rate=1e-2
    )
    rounds = [x for x in run.history if x["kind"] == "round"]
    assert [x["round"] for x in rounds] == sorted({x["round"] for x in run.history if x["kind"] == "step"}) == [1, 2, 3]
    assert rounds[-1]["score"] > rounds[0]["score"]
    assert run.pairs is not None
    source = open_source(run.pairs)
    assert source.kind == "pairs" and len(source) == sum(x["kept"] for x in rounds)
    after = run.evidence.samples_after
    assert after is not None and after.judge == "letters" and after.scores is not None


def test_an_interrupted_run_names_only_what_it_left(tmp_path: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str]):
    judged = 0

    def impatient(prompt: Any, response: str) -> float:
        nonlocal judged
        judged += 1
        if judged > 48:  # in the second round
            raise KeyboardInterrupt
        return float(len(response))

    prompts = [{"prompt": f"what is it {i}"} for i in range(13)]
    settings: dict[str, Any] = {"rounds": 2, "held_out": 1, "sample_prompts": 0, "limit": 6, "batch": 8, "threads": 1}
    run = align(tiny_folder, prompts, output=tmp_path / "x", judge=FunctionJudge(impatient), precision="fp32", **settings)
    said = capsys.readouterr().out
    assert run.interrupted and run.left == {"pairs": tmp_path / "x" / "pairs.jsonl"}
    assert "pairs.jsonl" in said and "report.html" not in said and said.count("loading") == 1
    assert "model/" not in said.replace(str(tiny_folder), "")


def test_a_run_judged_on_given_rows_says_so_and_is_another_run_than_one_without_them(tmp_path: Path, tiny_folder: Path):
    unseen = [{**row, "prompt": f"now {row['prompt']}"} for row in pairs(24)]
    run = run_in(tmp_path / "x", tiny_folder, unseen=unseen, sample_prompts=0)
    assert run.evidence.settings["unseen"] == IN_PYTHON and run.evidence.data["held_out"] == 24
    assert "--unseen UNSEEN.jsonl" in command(run.evidence)
    with pytest.raises(Refusal, match=r"unseen: '[0-9a-f]+' there, None here"):
        run_in(tmp_path / "x", tiny_folder, sample_prompts=0)


@pytest.mark.parametrize(("said", "taken"), [("3", 3), ("2,1", 2), ("", os.cpu_count()), ("many", os.cpu_count())])
def test_threads_are_as_asked_else_as_the_environment_says(said: str, taken: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OMP_NUM_THREADS", said)
    assert Settings().thread_count == taken and Settings(threads=5).thread_count == 5


def test_looking_more_often_makes_no_other_run_but_measuring_otherwise_does():
    for same in ({"evaluate_every": 5}, {"save_every": 1}, {"report_samples": False}, {"threads": 3}):
        assert Settings.of(same).identity() == Settings().identity()
    for other in ({"sample_prompts": 4}, {"sample_count": 1}, {"seed": 1}):
        assert Settings.of(other).identity() != Settings().identity()


def test_the_bar_of_training_shows_loss_and_tokens_per_second():
    with Voice() as voice:
        for step in (1, 2):
            voice.step(Position(step, 0, step), 3, 1, Outcome(0.5, 1.0, {}, {}, tokens=600), seconds=0.1 * step)
        assert voice._progress is not None
        (bar,) = voice._progress.tasks
        # (0.9 · 600 + 600) tokens in (0.9 · 0.1 + 0.2) seconds
        assert bar.description == "training, loss 0.5000, 3,931 tokens/s" and bar.completed == 2


def test_two_runs_of_one_seed_are_identical_and_the_cached_reference_changes_nothing(
    tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
):
    curves = []
    for name, cache in (("a", "one"), ("b", "two"), ("c", "one")):  # the third finds the first one's reference in the cache
        monkeypatch.setenv("PENCHANT_CACHE", str(tmp_path / cache))
        run = run_in(tmp_path / name, tiny_folder)
        curves.append([{**x, "seconds": 0} for x in run.history if x["kind"] == "step"])
    assert curves[0] == curves[1] == curves[2]


def test_a_dead_run_is_not_a_success(tmp_path: Path, tiny_folder: Path):
    run = run_in(tmp_path / "x", tiny_folder, learning_rate=1e-12)
    assert not run.verdict.ok and run.verdict.word == "nothing learned"


def test_too_many_lost_rows_stop_the_run_unless_allowed(tmp_path: Path, tiny_folder: Path):
    rows = pairs()
    for row in rows[:16]:
        row["chosen"] = "good day " * 60
    with pytest.raises(Refusal, match=r"(?s)rows would be lost .*--allow-lost"):
        run_in(tmp_path / "x", tiny_folder, data=rows, max_length=60)
    run = run_in(tmp_path / "x", tiny_folder, data=rows, max_length=60, allow_lost=0.5)
    assert sum(run.evidence.data["accounting"]["dropped"].values()) > 0


def test_contradicting_settings_are_refused_before_anything_is_loaded(tmp_path: Path):
    with pytest.raises(Refusal, match="somebody must judge"):
        align("nowhere", [{"prompt": "x"}], output=tmp_path / "x", rounds=2, quiet=True)
    with pytest.raises(Refusal, match="at least 2 rows"):
        align("nowhere", pairs(), KTO(), output=tmp_path / "x", batch=1, quiet=True)
    with pytest.raises(Refusal, match="did you mean 'learning_rate'"):
        align("nowhere", pairs(), output=tmp_path / "x", learning_rat=1.0, quiet=True)
    assert not (tmp_path / "x").exists()


def test_no_text_is_left_behind_where_none_is_wanted(tmp_path: Path, tiny_folder: Path):
    run = run_in(tmp_path / "x", tiny_folder, report_samples=False)
    for name in ("report.html", "evidence.json", "model/README.md"):
        assert "what is it" not in (run.folder / name).read_text()


def test_the_public_face_is_this_function():
    assert penchant.align is align

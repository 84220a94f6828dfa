"""Whole runs where something is wrong: with the disk, with a number, with what was asked; and what they keep to themselves.
What a run does when all is well is tested in test_align.py."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import penchant
from penchant import cli
from penchant.domains.text import policy
from penchant.domains.text.models import load
from penchant.domains.text.paths import ScoringPath
from penchant.domains.text.policy import TextPolicy
from penchant.engine import checkpoint
from penchant.engine.precision import Precision
from penchant.engine.step import BrokenStep, Step
from penchant.errors import Refusal, StoppedRun
from penchant.objectives import KTO, NLL
from penchant.run import Run
from penchant.running import align as running
from penchant.running import measure
from penchant.running.voice import Voice
from test_align import pairs, run_in
from test_keeping import bound_by_permissions, full_disk

CPU = torch.device("cpu")


@pytest.fixture
def asked(tmp_path: Path, tiny_folder: Path) -> list[str]:
    """A short run as the shell is asked for it."""
    data = tmp_path / "pairs.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in pairs(40)))
    words = ["align", "--model", str(tiny_folder), "--data", str(data), "--objective", "DPO(beta=0.5)"]
    words += ["--output", str(tmp_path / "run"), "--precision", "fp32", "--threads", "1", "--sample-prompts", "2"]
    return [*words, "--limit", "4", "--batch", "8", "--learning-rate", "3e-3"]


def weights(run: Run) -> dict[str, torch.Tensor]:
    return load_file(run.model / "model.safetensors")


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


# --- the machine


def test_a_full_disk_while_the_model_is_saved_is_one_sentence_and_the_same_command_goes_on(
    asked: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    save = TextPolicy.save

    def without_room(self: TextPolicy, folder: Path, tensors: Any = None) -> None:
        with full_disk():
            save(self, folder, tensors)

    monkeypatch.setattr(TextPolicy, "save", without_room)
    assert cli.main(asked) == 4
    said = capsys.readouterr().err
    assert said.startswith(f"penchant: File too large ({tmp_path / 'run' / 'model'}).") and said.count("\n") == 1
    left = {path.name for path in (tmp_path / "run").iterdir()}
    assert left == {"run.json", "metrics.jsonl", "checkpoints", "before.json"}
    before = (tmp_path / "run" / "metrics.jsonl").read_text()
    monkeypatch.setattr(TextPolicy, "save", save)
    assert cli.main(asked) in (0, 1)
    assert (tmp_path / "run" / "metrics.jsonl").read_text() == before  # no step was taken again
    assert Run.open(tmp_path / "run").model.is_dir()


def test_a_folder_or_a_cache_that_may_not_be_written_into_is_one_sentence(
    asked: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    closed, file = tmp_path / "closed", tmp_path / "file"
    closed.mkdir()
    file.write_text("")
    closed.chmod(0o555)
    for name, place, code, said in (
        ("output", closed / "run", 4, f"penchant: Permission denied ({closed / 'run'}). What was saved before is whole"),
        (
            "cache",
            closed,
            2,
            f"penchant: the cache folder '{closed}' cannot be written into (Permission denied); set PENCH",
        ),
        (
            "cache",
            file,
            2,
            f"penchant: the cache folder '{file}' cannot be written into (Not a directory); set PENCHANT_CA",
        ),
    ):
        where = {"output": tmp_path / "run", "cache": tmp_path / "cache", name: place}
        monkeypatch.setenv("PENCHANT_CACHE", str(where["cache"]))
        with bound_by_permissions():
            assert cli.main([*asked, "--output", str(where["output"])]) == code
        err = capsys.readouterr().err
        assert err.startswith(said) and err.count("\n") == 1
        assert not where["output"].exists()


@pytest.mark.parametrize("last", ["model_card", "render"])
def test_a_run_killed_after_its_last_step_is_only_measured_again(
    last: str, tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
):
    plain = run_in(tmp_path / "plain", tiny_folder, sample_prompts=0)
    with monkeypatch.context() as patch:
        patch.setattr(running, last, lambda *_, **__: (_ for _ in ()).throw(MemoryError("killed")))
        with pytest.raises(MemoryError):
            run_in(tmp_path / "cut", tiny_folder, sample_prompts=0)
    assert not (tmp_path / "cut" / "evidence.json").exists()
    monkeypatch.setattr(Step, "__call__", None)  # a further step would fail
    again = run_in(tmp_path / "cut", tiny_folder, sample_prompts=0)
    assert same(weights(again), weights(plain))
    assert again.verdict == plain.verdict


def killed_at(step: int, monkeypatch: pytest.MonkeyPatch, run: Callable[[], object]) -> None:
    """Breaks a run off after so many steps, as a kill would: nothing is saved on the way out."""

    def fail(self: Voice, position: checkpoint.Position, *rest: Any) -> None:
        if position.step == step:
            raise MemoryError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(Voice, "step", fail)
        with pytest.raises(MemoryError):
            run()


def test_a_killed_adapter_goes_on_to_the_same_weights(tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch):
    how: dict[str, Any] = {"lora": 4, "lora_alpha": 4, "learning_rate": 1e-2, "save_every": 2, "sample_prompts": 0}
    plain = run_in(tmp_path / "plain", tiny_folder, **how)
    killed_at(5, monkeypatch, lambda: run_in(tmp_path / "cut", tiny_folder, **how))
    again = run_in(tmp_path / "cut", tiny_folder, **how)
    assert same(*(load_file(run.model / "adapter_model.safetensors") for run in (plain, again)))
    assert plain.evidence.pairs_after == again.evidence.pairs_after


def test_how_responses_are_read_is_chosen_once_and_said(
    tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    how: dict[str, Any] = {"save_every": 2, "sample_prompts": 0}
    packed = ScoringPath("packed", "logits", said="tree: it is a test")
    with monkeypatch.context() as patch:
        patch.setattr(TextPolicy, "probed", lambda self: packed)
        plain = run_in(tmp_path / "plain", tiny_folder, **how)
        killed_at(5, monkeypatch, lambda: run_in(tmp_path / "cut", tiny_folder, **how))
    monkeypatch.setattr(TextPolicy, "probed", None)  # a resumed run would fail if it probed again
    again = run_in(tmp_path / "cut", tiny_folder, **{**how, "quiet": False})
    assert "rows packed, logits by the model (tree: it is a test)" in " ".join(capsys.readouterr().out.split())
    assert again.evidence.choices["scoring"] == packed.to_json()
    assert "tree: it is a test" in again.report.read_text()
    assert same(weights(plain), weights(again))


def test_a_run_counted_in_steps_resumes_with_its_schedule(
    tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
):
    how: dict[str, Any] = {"steps": 11, "schedule": "cosine", "save_every": 4, "evaluate_every": 3, "sample_prompts": 0}
    plain = run_in(tmp_path / "plain", tiny_folder, **how)
    killed_at(7, monkeypatch, lambda: run_in(tmp_path / "cut", tiny_folder, **how))
    again = run_in(tmp_path / "cut", tiny_folder, **how)
    strip = lambda run: [{**x, "seconds": 0} for x in run.history]  # noqa: E731
    assert strip(plain) == strip(again) and len([x for x in again.history if x["kind"] == "step"]) == 11
    assert same(weights(plain), weights(again))


RANK = """
import os, sys
sys.path.insert(0, sys.argv[1])
import torch
torch.set_num_threads(1)
from test_align import run_in
from pathlib import Path
run_in(Path(sys.argv[2]), Path(sys.argv[3]), "SimPO()", sample_prompts=2)
os._exit(0)  # see tests/ranks.py
"""


def test_two_processes_carry_a_whole_run_to_the_same_end_as_one(tmp_path: Path, tiny_folder: Path):
    script = tmp_path / "rank.py"
    script.write_text(RANK)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--rdzv-backend=c10d"]
    command += ["--rdzv-endpoint=127.0.0.1:0", str(script), str(Path(__file__).parent), str(tmp_path / "two")]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    env |= {"PENCHANT_CACHE": str(tmp_path / "cache"), "ACCELERATE_USE_CPU": "true"}
    done = subprocess.run([*command, str(tiny_folder)], env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
    two, one = Run.open(tmp_path / "two"), run_in(tmp_path / "one", tiny_folder, "SimPO()", sample_prompts=2)
    assert two.evidence.choices["processes"] == 2 and two.verdict.word == one.verdict.word
    # AdamW turns a last digit of a gradient near 0 into a whole step, so that weights agree but for a few such steps.
    a, b = (torch.cat([x.flatten() for x in weights(run).values()]) for run in (two, one))
    assert (a - b).abs().mean() < 1e-5
    for x, y in zip(two.history, one.history, strict=True):
        assert x["kind"] == y["kind"] and x.get("loss", 0.0) == pytest.approx(y.get("loss", 0.0), rel=1e-3)


def test_processes_that_do_not_know_of_each_other_are_refused(
    tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(Refusal, match=r"2 processes were launched.*ACCELERATE_USE_CPU=true torchrun"):
        run_in(tmp_path / "x", tiny_folder)


# --- the numbers


def test_a_run_that_was_stopped_leaves_its_report_and_is_not_finished(
    tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
):
    step = Step.__call__

    def broken(self: Step, material: Any, rows: Any, state: Any, seed: int) -> Any:
        if self.optimiser.param_groups[0]["lr"] >= 3e-3:  # the peak
            raise BrokenStep("the loss is not finite (loss nan).", list(rows))
        return step(self, material, rows, state, seed)

    monkeypatch.setattr(Step, "__call__", broken)
    with pytest.raises(StoppedRun, match="not finite"):
        run_in(tmp_path / "x", tiny_folder, warmup=0.5, sample_prompts=1)
    assert json.loads((tmp_path / "x" / "verdict.json").read_text())["word"] == "stopped"
    assert "the loss is not finite" in (tmp_path / "x" / "report.html").read_text()
    assert not (tmp_path / "x" / "model").exists()
    with pytest.raises(Refusal, match="no finished run"):
        Run.open(tmp_path / "x")


def test_the_cache_of_reference_log_probs_knows_model_options_number_format_reading_and_code(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from tiny import tiny_model

    def cache(model: str, precision: Precision, device: torch.device = CPU, path: str = "tree", said: str = "") -> Path:
        return measure.text_cache(model, precision, device, ScoringPath(path, "hidden", said=said))  # pyright: ignore

    loaded, fp32 = load(tiny_folder), Precision("fp32", "highest", {})
    key = cache(loaded.source["fingerprint"], fp32)
    assert cache(load(tiny_folder).source["fingerprint"], fp32, said="why") == key
    others = [
        cache(load(tiny_model(tmp_path / "other", seed=1)).source["fingerprint"], fp32),
        cache(load(tiny_folder, max_length=99).source["fingerprint"], fp32),
        cache(load(tiny_folder, template="none").source["fingerprint"], fp32),
        cache(loaded.source["fingerprint"], Precision("bf16", "highest", {})),
        cache(loaded.source["fingerprint"], Precision("fp32", "medium", {})),
        cache(loaded.source["fingerprint"], fp32, torch.device("cuda")),
        cache(loaded.source["fingerprint"], fp32, path="packed"),
    ]
    code = tmp_path / "policy.py"
    code.write_text(Path(policy.__file__).read_text() + "\n# changed\n")
    monkeypatch.setattr(policy, "__file__", str(code))
    others.append(cache(loaded.source["fingerprint"], fp32))
    monkeypatch.setattr(measure, "__version__", "999")
    others.append(cache(loaded.source["fingerprint"], fp32))
    assert len({key, *others}) == 10


# --- what was asked


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"lora_alpha": 8}, "lora_alpha=8 does nothing without lora"),
        ({"samples": 8}, "samples=8 does nothing without rounds"),
        ({"pairing": "all"}, "pairing='all' does nothing without rounds"),
        ({"trackers": ("wandb",)}, "'wandb' is not installed: pip install wandb"),
    ],
)
def test_a_setting_that_would_do_nothing_is_refused(
    settings: dict[str, Any], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(Refusal, match=said):
        penchant.align("nowhere", pairs(), output=tmp_path / "x", quiet=True, **settings)


def test_evaluating_what_cannot_be_evaluated_is_refused(tmp_path: Path, tiny_folder: Path):
    with pytest.raises(Refusal, match=r"NLL\(\) on held-out pairs, but it has no reward"):
        run_in(tmp_path / "x", tiny_folder, NLL(), evaluate_every=2)
    labelled = [{"prompt": x["prompt"], "completion": x["chosen"], "label": i % 2 == 0} for i, x in enumerate(pairs())]
    with pytest.raises(Refusal, match="but none are held out"):
        run_in(tmp_path / "x", tiny_folder, KTO(), data=labelled, evaluate_every=2)
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("flag", "value", "said"),
    [
        ("--objective", "DPOO()", "there is no objective 'DPOO'; did you mean 'DPO'?"),
        ("--objective", "DPO(bta=0.1)", "DPO has no field 'bta'; did you mean 'beta'?"),
        ("--objective", "CDPO(flip=0.5)", "flip=0.5"),
        ("--objective", "DPO(beta=0)", "beta=0"),
        ("--objective", "DPO(beta=-1)", "beta=-1"),
        ("--data", "pears.jsonl", "pears.jsonl"),
        ("--data", "empty.jsonl", "empty.jsonl"),
        ("--model", "./nowhere", "no such folder"),
        ("--judge", "vadre", "did you mean 'vader'?"),
        ("--seed", "4294967296", "seed='4294967296'"),
        ("--held-out", "inf", "held_out='inf'"),
        ("--held-out", "0", "held_out='0'"),
    ],
)
def test_bad_input_from_the_shell_is_one_sentence_and_makes_no_folder(
    flag: str,
    value: str,
    said: str,
    asked: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.chdir(tmp_path)
    Path("empty.jsonl").write_text("")
    assert cli.main([*asked, flag, value]) == 2
    err = capsys.readouterr().err
    assert said in err and "Traceback" not in err
    assert not (tmp_path / "run").exists()


# --- what stays private


def test_a_run_sends_nothing_and_loads_no_tracker(tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch):
    def connect(*_: Any) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", connect)
    monkeypatch.setattr(socket, "getaddrinfo", connect)
    monkeypatch.setattr("accelerate.Accelerator.init_trackers", connect)
    run_in(tmp_path / "x", tiny_folder, sample_prompts=1)
    assert not {"wandb", "trackio"} & set(sys.modules)


def test_no_samples_is_a_flag_and_leaves_no_text_of_data_or_model(
    asked: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert cli.main([*asked, "--no-samples"]) in (0, 1)
    capsys.readouterr()
    texts = [path for path in (tmp_path / "run").rglob("*") if path.suffix in (".json", ".jsonl", ".html", ".md")]
    assert {"before.json", "evidence.json", "report.html", "README.md"} <= {path.name for path in texts}
    for path in texts:
        if path.name != "tokenizer.json":
            assert "what is it" not in path.read_text(), path


def test_a_tracker_is_told_the_metrics_where_it_is_asked_for(tmp_path: Path, tiny_folder: Path):
    pytest.importorskip("tensorboard")
    run_in(tmp_path / "x", tiny_folder, trackers=("tensorboard",), sample_prompts=0)
    assert any(b"step/loss" in events.read_bytes() for events in (tmp_path / "x").rglob("events.out.tfevents.*"))

"""A limit of memory: what fits in it is measured before the first step, chosen once and said; a device that has no memory left
gets smaller micro-batches and the same results."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from penchant.domains.base import Encoded, Want
from penchant.engine import budget, precision
from penchant.engine.budget import GIB, SPARE, Budget, fitted, halved
from penchant.engine.loop import train
from penchant.errors import Refusal, StoppedRun
from penchant.objectives import DPO, KTO, Labelled, Objective, Pairs, SimPO
from penchant.objectives.scored import Scored
from penchant.running import ceiling
from test_align import run_in
from test_engine import Sorted, make_job
from test_run_promises import killed_at
from toy import PLAIN, Numbers, Table, rows

CPU = torch.device("cpu")


class Narrow(Numbers):
    """A device on which more than so many tokens at once do not fit."""

    def __init__(self, room: int) -> None:
        self.room = room

    def score(self, policy: nn.Module, encoded: Encoded, want: Want = PLAIN) -> Scored:
        if torch.is_grad_enabled() and len(encoded) * max(encoded.sizes) > self.room:
            raise torch.OutOfMemoryError("out of memory")
        return super().score(policy, encoded, want)


@pytest.mark.parametrize("objective", [DPO(), KTO(), Sorted(), SimPO()], ids=repr)
def test_a_step_that_finds_no_memory_begins_anew_with_half_and_ends_as_if_it_had_begun_so(
    objective: Objective, tmp_path: Path
):
    encoded = rows(20, Labelled if isinstance(objective, KTO) else Pairs)
    said: list[str] = []
    job = make_job(Table(), objective, encoded, tmp_path / "a", tokens=96, batch=20)
    job.domain, job.say = Narrow(24), said.append
    assert train(job) is None
    shrunk = [line for line in job.folder.history() if line["kind"] == "memory"]
    assert [line["step"] for line in shrunk] == [0] * len(shrunk) and shrunk[-1]["tokens"] == 24
    assert len(said) == len(shrunk) and "no memory left for micro-batches of 96 tokens" in said[0]
    plain = make_job(Table(), objective, encoded, tmp_path / "b", tokens=24, batch=20)
    assert train(plain) is None
    assert torch.equal(job.bare.table, plain.bare.table)
    numbers = lambda job: [{**x, "seconds": 0} for x in job.folder.history() if x["kind"] == "step"]  # noqa: E731
    assert numbers(job) == numbers(plain)


def test_a_resumed_run_begins_with_the_budget_it_had_come_to(tmp_path: Path):
    encoded = rows(20)
    job = make_job(Table(), DPO(), encoded, tmp_path, tokens=96)
    job.domain = Narrow(24)

    def killed(position: Any, *rest: Any) -> None:
        if position.step == 5:
            raise MemoryError("killed")

    job.report = killed
    with pytest.raises(MemoryError):
        train(job)
    again, said = make_job(Table(), DPO(), encoded, tmp_path, tokens=96), []
    again.domain, again.say = Narrow(24), said.append
    train(again)
    assert said == []


def test_a_row_that_does_not_fit_alone_stops_the_run_with_a_sentence(tmp_path: Path):
    job = make_job(Table(), DPO(), rows(6), tmp_path, tokens=96)
    job.domain = Narrow(1)
    before = job.bare.table.detach().clone()
    with pytest.raises(StoppedRun, match=r"no memory left for the longest of rows .* alone; no weight was changed"):
        train(job)
    assert torch.equal(job.bare.table, before)


def test_with_several_ranks_there_is_nobody_to_agree_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    job = make_job(Table(), SimPO(), rows(6), tmp_path, tokens=96)
    job.domain = Narrow(1)
    monkeypatch.setattr(type(job.accelerator), "num_processes", property(lambda self: 2))
    monkeypatch.setattr(type(job.accelerator), "reduce", lambda self, x, how: x)
    with pytest.raises(StoppedRun, match=r"rank 0 has no memory left .* Start again with --max-memory, or --tokens 48"):
        train(job)


def test_halving_ends_where_every_row_is_alone():
    groups = lambda n: [[0, 1], [2]] if n >= 30 else [[0], [1], [2]]  # noqa: E731
    assert halved(200, groups) == 25
    assert halved(25, groups) is None


# a limit --------------------------------------------------------------------------------------------


def measured(base: int, slope: int, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Budget]:
    """A machine on which a row of 100 tokens takes base + 100 · slope bytes."""

    def peak(work: Callable[[], None], device: torch.device) -> int:
        held.clear()
        work()
        return base + 100 * slope * held[0]

    held: list[int] = []
    monkeypatch.setattr(budget, "_peak", peak)
    return lambda limit, later=0, rows=64: fitted(limit, 100, rows, held.append, held.clear, later, CPU)


def test_the_budget_is_what_base_and_slope_leave_of_the_limit(monkeypatch: pytest.MonkeyPatch):
    fit = measured(GIB, 2**20, monkeypatch)
    found = fit(4.0, later=GIB)
    assert (found.base, found.slope) == (2.0, 1.0)
    assert found.tokens == int((4 * (1 - SPARE) - 2) * 1024)
    assert fit(4.0, later=GIB, rows=3).tokens == 300
    with pytest.raises(Refusal, match=r"longest row has 100 tokens, and a step on it alone needs 2\.47 GiB"):
        fit(2.2, later=GIB)
    assert fit(2.47, later=GIB).tokens >= 100  # what the sentence names is enough


def test_what_is_yet_to_come_is_counted_in_bytes(tiny_folder: Path):
    from penchant.domains.text.models import LoRA, load
    from penchant.engine.settings import Settings

    whole, adapter = load(tiny_folder), load(tiny_folder, lora=LoRA(4, 8))
    size = sum(p.numel() for p in whole.policy.parameters()) * 4
    small = sum(p.numel() for _, p in adapter.policy.named_trainable()) * 4
    assert ceiling.held_later(whole, DPO(), Settings(), 1) == 2 * size
    assert ceiling.held_later(whole, DPO(), Settings(), 2) == 3 * size
    assert ceiling.held_later(whole, DPO(), Settings(rounds=2), 1) == 3 * size
    assert ceiling.held_later(adapter, DPO(), Settings(rounds=2), 1) == 2 * small


def test_a_runs_limit_is_measured_once_said_and_kept(
    tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    how: dict[str, Any] = {"max_memory": 64, "save_every": 2, "sample_prompts": 0, "quiet": False}
    killed_at(5, monkeypatch, lambda: run_in(tmp_path / "x", tiny_folder, **how))
    said = " ".join(capsys.readouterr().out.split())
    with monkeypatch.context() as patch:
        patch.setattr(ceiling, "fitted", None)  # a resumed run would fail if it measured again
        run = run_in(tmp_path / "x", tiny_folder, **how)
    found = Budget(**run.evidence.choices["budget"])
    assert found.limit == 64 and found.tokens == run.evidence.choices["tokens"] > 0
    assert f"{found.tokens:,} tokens at once for 64 GiB" in said
    assert 0.1 < found.base < 10, "the process itself is in it"
    assert run.evidence.settings["max_memory"] == 64 and run.evidence.settings["tokens"] == 4096
    with pytest.raises(Refusal, match=r"max_memory=0\.05: the longest row has \d+ tokens, and a step on it alone needs"):
        run_in(tmp_path / "y", tiny_folder, max_memory=0.05)
    with pytest.raises(Refusal, match="tokens=512 does nothing with max_memory"):
        run_in(tmp_path / "z", tiny_folder, max_memory=4, tokens=512)


RUN = """
import sys
sys.path[:0] = sys.argv[1:3]
import data
from penchant.feedback import open_source
from penchant.run import align
align("smollm2", data.hh_harmless()[:80], "DPO()", output=sys.argv[3], steps=3, batch=16, held_out=8, sample_prompts=2,
      save_every=2, max_length=512, threads=1, quiet=True, bad_rows="drop", limit=16, allow_lost=1.0,
      max_memory=float(sys.argv[4]), lora=int(sys.argv[5]))
"""


def peak_of(command: list[str], env: dict[str, str]) -> float:
    """The most GiB a process held, seen from outside, for it sets its own mark back when it measures."""
    with subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True) as child:
        status, most = Path(f"/proc/{child.pid}/status"), 0
        while child.poll() is None:
            lines = [line for line in status.read_text().splitlines() if line.startswith("VmHWM:")]
            most = max([most, *(int(line.split()[1]) for line in lines)])
            time.sleep(0.02)
        assert child.stderr is not None
        assert child.returncode == 0, child.stderr.read()
    return most / 2**20


@pytest.mark.claims
@pytest.mark.parametrize(("limit", "lora"), [(4.5, 0), (2.6, 16)])
def test_a_real_run_keeps_to_its_limit(limit: float, lora: int, tmp_path: Path):
    root = Path(__file__).resolve().parents[1]
    paths = [str(root / "src"), str(root / "recipes")]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PENCHANT_CACHE": str(tmp_path / "cache")}
    script = [sys.executable, "-c", RUN, *paths, str(tmp_path / "run"), str(limit), str(lora)]
    peak = peak_of(script, env)
    print(f"{peak:.3f} GiB of {limit}")
    assert peak <= limit


# number formats -------------------------------------------------------------------------------------


def test_on_gpu_float32_is_never_tf32(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: False)
    before = torch.get_float32_matmul_precision()
    try:
        for asked in ("fp32", "auto"):
            torch.set_float32_matmul_precision("high")  # as a user's own code may have left it: TF32 on a GPU
            found = precision.choose(asked, torch.device("cuda"))
            found.apply()
            assert (found.name, found.matmul) == ("fp32", "highest")
            assert torch.get_float32_matmul_precision() == "highest" and not torch.backends.cuda.matmul.allow_tf32
    finally:
        torch.set_float32_matmul_precision(before)

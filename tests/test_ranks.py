"""Accumulation and ranks: however a step is cut into micro-batches and spread over processes, it is the same step, and a
process that is lost does not leave the others waiting. Real processes over gloo, on the CPU."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from accelerate import Accelerator
from safetensors.torch import load_file
from torch import Tensor

import ranks
from penchant.engine.spread import Spread
from penchant.errors import Refusal
from penchant.run import Run
from test_align import run_in

HERE = Path(__file__).parent
EXACT = 1e-6
"""Largest difference, as a share of the largest entry: float32 rounds to 6e-8, and sums are added in another order."""


def launched(script: Path, *words: Any, world: int = 2, timeout: float = 240, **env: str) -> None:
    """Runs a script on so many ranks."""
    command = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={world}", "--rdzv-backend=c10d"]
    command += ["--rdzv-endpoint=127.0.0.1:0", str(script), *map(str, words)]
    here = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path), "ACCELERATE_USE_CPU": "true"}
    done = subprocess.run(command, env=here | env, capture_output=True, text=True, timeout=timeout)
    assert done.returncode == 0, done.stderr[-3000:]


def same(found: dict[str, Tensor], sizes: dict[str, Tensor]) -> None:
    """Whatever the size of micro-batches, each number is that of the step in one."""
    assert found
    for name, x in found.items():
        case, _, what = name.rsplit("/", 2)
        one = sizes[f"{case.partition('/')[2] if case.partition('/')[0] in KINDS else case}/8/{what}"]
        bound = EXACT * max(float(one.abs().max()), 1e-3) if one.numel() else 0.0
        off = float((x - one).abs().max()) if one.numel() else 0.0
        assert off <= bound, f"{name}: off by {off:.3g}, allowed {bound:.3g}"


KINDS = ("numbers", "copies", "shards")


@pytest.fixture(scope="module")
def alone() -> dict[str, dict[str, Tensor]]:
    """One process: every objective on numbers, one of each family on text."""
    accelerator = Accelerator(cpu=True)
    scores = [case for case in ranks.families() if case[1].needs.head == "reward"]
    return {
        "numbers": ranks.on_numbers(accelerator, list(ranks.every()), (8, 4, 2, 1)),
        "text": ranks.on_text(accelerator, list(ranks.families()), (8, 2)) | ranks.on_text(accelerator, scores, (4, 1)),
    }


@pytest.mark.parametrize("where", ["numbers", "text"])
def test_one_times_eight_is_two_times_four_for_every_objective(alone: dict[str, dict[str, Tensor]], where: str):
    assert all(float(x.abs().max()) > 1e-4 for name, x in alone[where].items() if name.endswith("gradient"))
    same(alone[where], alone[where])


def test_one_rank_is_two_for_every_objective_by_copies_and_by_shards(alone: dict[str, dict[str, Tensor]], tmp_path: Path):
    """DDP through accelerate and FSDP2 through fully_shard; each rank also finds its gradient equal to the other's."""
    launched(HERE / "ranks.py", tmp_path / "found.safetensors")
    found = load_file(tmp_path / "found.safetensors")
    for kind in KINDS:
        mine = {name: x for name, x in found.items() if name.startswith(f"{kind}/")}
        same(mine, alone["numbers" if kind == "numbers" else "text"])


@pytest.mark.claims
def test_one_rank_is_two_for_every_objective_on_text(tmp_path: Path):
    """The long form of the test above: no objective is left out on text."""
    accelerator = Accelerator(cpu=True)
    alone = ranks.on_text(accelerator, list(ranks.every()), (8,))
    launched(HERE / "ranks.py", tmp_path / "found.safetensors", "long", timeout=1800)
    found = load_file(tmp_path / "found.safetensors")
    for kind in ("copies", "shards"):
        same({name: x for name, x in found.items() if name.startswith(f"{kind}/")}, alone)


RUN = """
import os, sys
sys.path.insert(0, sys.argv[1])
import torch
torch.set_num_threads(1)
from pathlib import Path
from penchant import cli, run
from penchant.errors import LostRank
from test_align import run_in
try:
    run_in(Path(sys.argv[2]), Path(sys.argv[3]), "TDPO()", tokens=150, sample_prompts=2, save_every=4, **eval(sys.argv[4]))
except LostRank as lost:
    print(f"penchant: {lost}", file=sys.stderr, flush=True)
    os._exit(lost.exit_code)
os._exit(0)  # see tests/ranks.py
"""


def test_a_whole_run_split_over_two_ranks_ends_as_on_one_and_goes_on_with_any_number(tmp_path: Path, tiny_folder: Path):
    """FSDP2 as accelerate was told: reference by a copy that is split as well, sampling, checkpoints, the saved model. The
    same run is begun by one process, and gone on with by two."""
    script = tmp_path / "run.py"
    script.write_text(RUN)
    how = {"tokens": 150, "sample_prompts": 2, "save_every": 4}
    one = run_in(tmp_path / "one", tiny_folder, "TDPO()", **how)
    env = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", "PENCHANT_CACHE": str(tmp_path / "cache")}
    launched(script, HERE, tmp_path / "two", tiny_folder, {}, **env)
    assert not (tmp_path / ".two.processes").exists()
    two = Run.open(tmp_path / "two")
    assert two.evidence.choices["spread"] == "2 processes, FSDP2" and two.verdict.word == one.verdict.word
    a, b = (load_file(run.model / "model.safetensors") for run in (two, one))
    assert a.keys() == b.keys()
    # AdamW turns a last digit of a gradient near 0 into a whole step, so that weights agree but for a few such steps.
    assert sum(float((a[name] - b[name]).abs().sum()) for name in a) / sum(x.numel() for x in a.values()) < 1e-5
    for x, y in zip(two.history, one.history, strict=True):
        assert x["kind"] == y["kind"] and x.get("loss", 0.0) == pytest.approx(y.get("loss", 0.0), rel=1e-3)
    for part in (
        "policy",
        "optimiser",
    ):  # what one process wrote and what two put together is the same file but for rounding
        x, y = (load_file(run.folder / "checkpoints" / "step-00000008" / f"{part}.safetensors") for run in (two, one))
        assert {name: t.shape for name, t in x.items()} == {name: t.shape for name, t in y.items()}
    for name in ("evidence.json", "checkpoints/step-00000009"):  # back to the eighth step, which one process takes up
        path = two.folder / name
        path.unlink() if path.is_file() else subprocess.run(["rm", "-r", str(path)], check=True)
    again = run_in(two.folder, tiny_folder, "TDPO()", **how)
    c = load_file(again.model / "model.safetensors")
    assert max(float((c[name] - a[name]).abs().max()) for name in a) < 1e-3


def test_a_rank_that_is_killed_is_named_with_its_phase_by_the_other(tmp_path: Path, tiny_folder: Path):
    """kill -9 in the middle of a run; nobody else ends the one that is left."""
    script = tmp_path / "run.py"
    script.write_text(RUN)
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path), "ACCELERATE_USE_CPU": "true"}
    env |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0", "WORLD_SIZE": "2", "PENCHANT_CACHE": str(tmp_path / "cache")}
    env["MASTER_PORT"] = str(_free_port())
    words = [sys.executable, str(script), str(HERE), str(tmp_path / "out"), str(tiny_folder), "{'steps': 10**6}"]
    both = [
        subprocess.Popen(words, env=env | {"RANK": str(k), "LOCAL_RANK": str(k)}, stderr=subprocess.PIPE, text=True)
        for k in range(2)
    ]
    try:
        metrics, began = tmp_path / "out" / "metrics.jsonl", time.monotonic()
        while not (metrics.exists() and '"step": 3' in metrics.read_text()):
            assert time.monotonic() - began < 200 and both[0].poll() is None, "the run did not begin"
            time.sleep(0.05)
        both[1].send_signal(signal.SIGKILL)
        said = both[0].communicate(timeout=60)[1]
    finally:
        for process in both:
            process.kill()
            process.communicate()
    assert both[0].returncode == 6, said[-3000:]
    assert re.search(r"penchant: rank 1 of 2 was lost in phase '(saving )?step \d+'", said), said[-3000:]
    assert "the same command goes on from the last checkpoint" in said


def _free_port() -> int:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return held.getsockname()[1]


@pytest.mark.parametrize(
    ("env", "said"),
    [
        ({"ACCELERATE_USE_DEEPSPEED": "true"}, "DeepSpeed decides by itself.*--use_fsdp"),
        ({"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", "FSDP_OFFLOAD_PARAMS": "true"}, "fsdp_offload_params: true"),
        ({"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", "FSDP_RESHARD_AFTER_FORWARD": "false"}, "reshard_after_for"),
        ({"WORLD_SIZE": "2"}, "2 processes were launched.*ACCELERATE_USE_CPU=true torchrun"),
    ],
    ids=lambda x: " ".join(x) if isinstance(x, dict) else "",
)
def test_a_launch_that_would_not_be_carried_out_is_refused(env: dict[str, str], said: str, monkeypatch: pytest.MonkeyPatch):
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(Refusal, match=said):
        Spread(1.0, [], "unused")

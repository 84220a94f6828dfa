"""What the engine keeps when things go wrong: a killed, interrupted or cleared run, a full disk, ranks that see different
files. The arithmetic of a step is tested in test_engine.py."""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from penchant.engine import checkpoint
from penchant.engine.folder import RunFolder
from penchant.engine.loop import train
from penchant.errors import Refusal
from penchant.files import whole_folder
from penchant.objectives import DPO
from penchant.references.store import Store, fill
from test_engine import make_job
from toy import Numbers, Table, rows


def test_a_second_ctrl_c_within_a_step_is_obeyed_and_saves_no_half_update(tmp_path: Path):
    job = make_job(Table(), DPO(), rows(20), tmp_path, save_every=2)
    domain = Numbers()

    def impatient(*args):
        if any(line["step"] == 3 for line in job.folder.history()):
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
        return domain.score(*args)

    job.domain = Numbers()
    job.domain.score = impatient  # pyright: ignore[reportAttributeAccessIssue]
    assert train(job) == "interrupted"
    assert [path.name for path in job.folder.checkpoints.iterdir()] == [checkpoint.name_of(2)]
    job.domain = domain
    assert train(job) is None
    plain = make_job(Table(), DPO(), rows(20), tmp_path / "plain", save_every=2)
    train(plain)
    assert torch.equal(plain.bare.table, job.bare.table)


def test_a_run_killed_before_its_first_checkpoint_begins_its_history_anew(tmp_path: Path):
    job = make_job(Table(), DPO(), rows(20), tmp_path, save_every=0)
    job.folder.add({"kind": "start", "step": 0, "drift": 0.0})
    job.folder.add({"kind": "step", "step": 1})
    train(job)
    assert [x["step"] for x in job.folder.history()] == list(range(9))


def test_what_a_kill_left_half_written_is_swept_away(tmp_path: Path):
    job = make_job(Table(), DPO(), rows(20), tmp_path)
    identity = {"objective": "DPO()"}
    job.folder.record(identity, {})
    for half in (".model.ab12cd_9", ".old.model.ab12cd_9", "checkpoints/.step-00000004.ab12cd_9"):
        (job.folder.path / half).mkdir(parents=True)
        (job.folder.path / half / "policy.safetensors").write_text("half")
    (job.folder.path / ".run.json.ab12cd_9").write_text("{")
    (job.folder.path / ".model.mine").write_text("not ours")
    assert job.folder.claim(identity, overwrite=False)
    assert checkpoint.settle(job.folder.checkpoints) == []
    train(job)
    left = {path.name for path in job.folder.path.rglob("*") if path.name.startswith(".")}
    assert left == {".model.mine"}


def test_a_folder_cleared_half_way_gives_a_new_run_nothing_of_the_old_one(tmp_path: Path):
    folder = RunFolder(tmp_path / "x")
    folder.claim({"seed": 0}, overwrite=False)
    for name in ("checkpoints", "model"):
        (folder.path / name).mkdir()
    (folder.path / "run.json").unlink()
    with pytest.raises(Refusal, match="holds no run"):
        folder.claim({"seed": 1}, overwrite=False)
    folder.claim({"seed": 1}, overwrite=True)
    assert [path.name for path in folder.path.iterdir()] == ["run.json"]


@contextmanager
def full_disk() -> Iterator[None]:
    """No file may grow beyond 4 kB: the system refuses the write itself, whoever asks."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


CAP_DAC_OVERRIDE = 1 << 1


@contextmanager
def bound_by_permissions() -> Iterator[None]:
    """Root is bound as well: it puts the capability aside that no permission holds against (capabilities(7))."""
    if os.geteuid() != 0:
        yield
        return
    system = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # version 3, this thread
    held = (ctypes.c_uint32 * 6)()  # effective, permitted and inheritable, 32 bits each, twice
    assert system.capget(header, held) == 0
    less = (ctypes.c_uint32 * 6)(held[0] & ~CAP_DAC_OVERRIDE, *held[1:])
    assert system.capset(header, less) == 0
    try:
        yield
    finally:
        assert system.capset(header, held) == 0


def test_tensors_that_do_not_fit_on_the_disk_are_an_error_of_the_system_and_leave_what_was_there(tmp_path: Path):
    for size in (10, 100_000):
        try:
            with full_disk(), whole_folder(tmp_path / "x") as draft:
                save_file({"a": torch.zeros(size)}, draft / "a.safetensors")
        except OSError as error:
            assert (size, error.errno, error.filename) == (100_000, errno.EFBIG, str(tmp_path / "x"))
        else:
            assert size == 10
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")] == ["x", "x/a.safetensors"]
    assert load_file(tmp_path / "x" / "a.safetensors")["a"].numel() == 10


def test_a_full_disk_under_the_metrics_or_the_reference_names_the_file_and_loses_nothing(tmp_path: Path):
    plain, job = (make_job(Table(), DPO(), rows(20), tmp_path / name, save_every=2) for name in ("plain", "full"))
    train(plain)
    metrics = job.folder.metrics

    def fills(position: checkpoint.Position, *rest: object) -> None:
        if position.step == 5:
            metrics.rename(tmp_path / "held")
            metrics.symlink_to("/dev/full")

    job.report = fills
    with pytest.raises(OSError, match="No space left") as error:
        train(job)
    assert error.value.filename == str(metrics)
    (tmp_path / "held").replace(metrics)
    again = make_job(Table(), DPO(), rows(20), tmp_path / "full", save_every=2)
    train(again)
    assert torch.equal(again.bare.table, plain.bare.table) and len(again.folder.history()) == len(plain.folder.history())

    encoded, cache = rows(400), tmp_path / "shards"
    store = Store(encoded.counts, encoded.lengths, encoded.keys)
    score = lambda picked: Numbers().score(Table(), encoded.select(picked)).logp.detach()  # noqa: E731
    with full_disk(), pytest.raises(OSError, match="File too large") as error:
        fill(store, score, [list(range(400))], folder=cache)
    assert Path(error.value.filename).parent == cache and list(cache.iterdir()) == []


def test_ranks_that_find_different_parts_of_the_reference_share_the_same_work(tmp_path: Path):
    encoded, domain, other = rows(400), Numbers(), Table(seed=4)
    score = lambda picked: domain.score(other, encoded.select(picked)).logp.detach()  # noqa: E731
    groups = [list(range(i, i + 100)) for i in range(0, 400, 100)]
    stores = [Store(encoded.counts, encoded.lengths, encoded.keys) for _ in range(2)]
    first, second = groups[:2], groups[2:]  # two files
    fill(Store(encoded.counts, encoded.lengths, encoded.keys), score, first, folder=tmp_path / "1")
    meeting, slots = threading.Barrier(2, timeout=20), [torch.empty(0)] * 2

    def rank(me: int) -> list[list[int]]:
        scored: list[list[int]] = []

        def gather(x: torch.Tensor) -> torch.Tensor:
            slots[me] = x
            meeting.wait()
            total = slots[0] + slots[1]
            meeting.wait()
            return total

        def noted(picked: Sequence[int]) -> torch.Tensor:
            scored.append(list(picked))
            return score(picked)

        fill(stores[me], noted, groups, folder=tmp_path / str(me), gather=gather, rank=me, world=2)
        return scored

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(rank, range(2))) == [first, second]
    for store in stores:
        torch.testing.assert_close(store(range(400)), domain.score(other, encoded).logp.detach())


def test_two_runs_do_not_write_into_one_folder_and_a_dead_one_does_not_block(tmp_path: Path):
    first, second = RunFolder(tmp_path / "x"), RunFolder(tmp_path / "x")
    assert first.claim({"seed": 0}, overwrite=False) is False
    with pytest.raises(Refusal, match="another process is writing into output"):
        second.claim({"seed": 0}, overwrite=False)
    with pytest.raises(Refusal, match="another process"):
        second.claim({"seed": 1}, overwrite=True)
    first.release()
    assert second.claim({"seed": 0}, overwrite=False) is True
    holder = (
        "import os, sys; from penchant.engine.folder import RunFolder; "
        "folder = RunFolder(sys.argv[1]); folder.claim({}, False); os._exit(9)"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    gone = subprocess.run([sys.executable, "-c", holder, str(tmp_path / "y")], env=environment, timeout=120)
    assert gone.returncode == 9
    assert RunFolder(tmp_path / "y").claim({}, overwrite=False) is True

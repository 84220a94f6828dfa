"""Runs that are killed with SIGKILL again and again and gone on with by the same command: what they leave is what an
undisturbed run leaves, to the last bit. What is said of damage and of changes is tested in test_keeping.py and test_resume.py."""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kills import Ended, Moment, Runs
from test_align import pairs

TIMES = {"seconds", "sampling", "seconds/sample", "seconds/judge", "seconds/pair"}
"""What a clock decided: how long things took, and the share of sampling in it."""
ONLINE = [
    "--rounds",
    "3",
    "--judge",
    "rules",
    "--prompts-per-round",
    "24",
    "--samples",
    "2",
    "--limit",
    "6",
    "--batch",
    "8",
]
RUNS = {
    "whole model": ["--objective", "DPO(beta=0.5)", "--evaluate-every", "3"],
    "adapter": ["--objective", "IPO()", "--lora", "4", "--learning-rate", "2e-2", "--evaluate-every", "2"],
    "rounds": ["--objective", "INPO()", *ONLINE],
    "rounds of an adapter, two epochs each": ["--objective", "MNPO()", *ONLINE, "--lora", "4", "--epochs", "2"],
    "memory": ["--objective", "KTO()", "--batch", "64"],
    "memory and epochs": ["--objective", "BCO() + 0.1 * NLL()", "--epochs", "3", "--batch", "64"],
}


@pytest.fixture
def runs(tmp_path: Path) -> Iterator[Runs]:
    with Runs(tmp_path) as runs:
        assert runs.threads == 1, "a parent with several threads may not fork"
        yield runs


@pytest.fixture
def words(tmp_path: Path, tiny_folder: Path) -> Callable[[str, str], list[str]]:
    """A run as the shell is asked for it, by its name in RUNS and its folder."""
    data = tmp_path / "pairs.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in pairs(200)))  # 150 train: two shards

    def of(name: str, folder: str) -> list[str]:
        asked = ["align", "--model", str(tiny_folder), "--data", str(data), "--output", str(tmp_path / folder)]
        asked += ["--precision", "fp32", "--threads", "1", "--held-out", "0.25", "--sample-prompts", "2", "--limit", "4"]
        return [*asked, "--batch", "32", "--learning-rate", "3e-3", "--save-every", "2", *RUNS[name]]

    return of


def left(folder: Path, cache: Path) -> dict[str, Any]:
    """Everything a run left, by file, without what a clock decided; the page, which shows it, is left out."""
    found: dict[str, Any] = {}
    for path in sorted([*folder.rglob("*"), *(cache / "references").rglob("*")]):
        if path.is_dir() or path.name == "report.html" or (path.name[0] == "." and not path.is_relative_to(folder)):
            continue  # a draft in the cache may be another run's
        name = str(path.relative_to(folder if path.is_relative_to(folder) else cache))
        if path.suffix == ".jsonl":
            found[name] = [timeless(json.loads(line)) for line in path.read_text().splitlines()]
        elif name in ("run.json", "evidence.json"):
            found[name] = timeless(json.loads(path.read_text()))
        elif name == "model/README.md":
            found[name] = re.sub(r"steps in .*|--output .*", "", path.read_text())
        else:
            found[name] = path.read_bytes()
    return found


def timeless(told: dict[str, Any]) -> dict[str, Any]:
    told = {key: value for key, value in told.items() if key not in TIMES}
    if "history" in told:
        told["history"] = [timeless(line) for line in told["history"]]
        told["settings"].pop("output")
    if "choices" in told:
        told["choices"]["precision"].pop("measured")
    return told


def same(ours: dict[str, Any], theirs: dict[str, Any]) -> bool:
    """Whether two runs left the same; pytest would take minutes to show how tensors differ."""
    differ = sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))
    assert not differ, f"not the same after the kills: {', '.join(differ)}"
    return True


def done(end: Ended) -> bool:
    """Whether a run came to its own end, with whichever verdict."""
    assert end.killed or end.code in (0, 1), end.said
    return not end.killed


def test_kill_resume(runs: Runs, words: Callable[[str, str], list[str]], tmp_path: Path):
    """Five kills: with the reference cache half written, with a round sampled and not yet kept, with its start half scored,
    within a checkpoint, and with the model written and not yet in its place."""
    assert done(runs(words("rounds", "plain"), tmp_path / "a"))
    moments: list[Moment] = [
        ("open references/.shard.safetensors", 2),
        ("os.rename rounds/round.jsonl", 2),
        ("os.rename rounds/prev/shard.safetensors", 1),
        ("os.rename checkpoints/.step/state.json", 1),
        ("os.rename model", 1),
    ]
    for moment in moments:
        assert not done(runs(words("rounds", "cut"), tmp_path / "b", moment)), f"never came to {moment}"
    assert done(runs(words("rounds", "cut"), tmp_path / "b"))
    assert same(left(tmp_path / "plain", tmp_path / "a"), left(tmp_path / "cut", tmp_path / "b"))


@pytest.mark.claims
@pytest.mark.parametrize("name", RUNS)
def test_runs_killed_at_random_leave_what_an_undisturbed_one_leaves(
    name: str, runs: Runs, words: Callable[[str, str], list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """Twelve kills of each kind of run: every third after a random time, the others just before a random change to a random
    kind of file. The undisturbed run is a process of its own, `python -m penchant`."""
    environment = {"PENCHANT_CACHE": str(tmp_path / "a"), "OMP_NUM_THREADS": "1", "PYTHONPATH": ":".join(sys.path)}
    told = subprocess.run([sys.executable, "-m", "penchant", *words(name, "plain")], env=environment, capture_output=True)
    assert told.returncode in (0, 1), told.stderr
    plain = left(tmp_path / "plain", tmp_path / "a")
    first = runs(words(name, "forked"), tmp_path / "f")
    assert done(first) and same(plain, left(tmp_path / "forked", tmp_path / "f"))

    draw, hit, ended = random.Random(name), Counter[str](), 0
    while sum(hit.values()) < 12 or not done(runs(words(name, f"cut-{ended}"), tmp_path / f"b-{ended}")):
        if sum(hit.values()) % 3 == 2:
            moment, after = None, draw.uniform(0, first.seconds)
            kind = "a random time"
        else:
            kind = draw.choice(sorted(first.counts))
            moment, after = (kind, draw.randint(1, first.counts[kind])), None
        if done(runs(words(name, f"cut-{ended}"), tmp_path / f"b-{ended}", moment, after)):
            assert same(plain, left(tmp_path / f"cut-{ended}", tmp_path / f"b-{ended}"))
            ended += 1
        else:
            hit[kind] += 1
    assert same(plain, left(tmp_path / f"cut-{ended}", tmp_path / f"b-{ended}"))
    with capsys.disabled():
        print(f"\n{name}: {sum(hit.values())} kills over {ended + 1} runs, at {len(hit)} kinds of moment: {dict(hit)}")

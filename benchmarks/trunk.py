"""What training the upper six layers over a frozen trunk saves on real pairs: CPU seconds of an epoch, what the trunk's one
pass costs, what it leaves on disk, and peak memory, against training everything. No other library is measured here.

    python benchmarks/trunk.py [ROUNDS]
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "recipes"))

import data
from accelerate import Accelerator

from penchant.domains.base import Encoded
from penchant.domains.text.models import Loaded, load
from penchant.engine.batching import order
from penchant.engine.precision import choose
from penchant.engine.settings import Settings
from penchant.engine.step import Material, Step
from penchant.feedback import open_source
from penchant.objectives import DPO

PAIRS, BATCH, TOP, MAX_LENGTH = 32, 8, 6, 512
CPU = torch.device("cpu")


class Epochs:
    """One model and its optimiser, ready for epochs of DPO on the same pairs, in bf16."""

    def __init__(self, top: int | None, cache: Path) -> None:
        torch.set_num_threads(1)
        self.precision = choose("bf16", CPU)
        self.precision.apply()
        self.model: Loaded = load("smollm2", top=top, max_length=MAX_LENGTH)
        rows = list(open_source(data.hh_harmless(), bad_rows="drop"))
        encoded = self.model.domain.encode([rows[i] for i in order(len(rows), 0, 0)[: 2 * PAIRS]])
        self.rows: Encoded = encoded.select(range(PAIRS))
        policy, domain = self.model.policy, self.model.domain
        parameters = [p for _, p in policy.named_trainable()]
        self.optimiser = torch.optim.AdamW(parameters, lr=1e-6, weight_decay=0.0, fused=True)
        budget = Settings().tokens
        self.step = Step(
            policy, domain, DPO(), self.optimiser, Accelerator(cpu=True), self.precision, tokens=budget, clip=1.0
        )
        os.environ["PENCHANT_CACHE"] = str(cache)
        with self.precision.forward(CPU):
            policy.follow(policy.scoring_path)

    def reference(self) -> tuple[torch.Tensor, float]:
        """log π_ref of all responses, and the CPU seconds it took."""
        out = torch.zeros(len(self.rows.lengths), max(self.rows.lengths))
        started = time.process_time()
        for group in self.model.domain.cost(self.model.policy, self.rows).micro_batches(Settings().tokens):
            with torch.no_grad(), self.precision.forward(CPU):
                found = self.model.domain.score(self.model.policy, self.rows.select(group)).logp
            out[self.rows.places(group), : found.shape[1]] = found
        return out, time.process_time() - started

    def epoch(self, ref: torch.Tensor) -> float:
        """CPU seconds of all steps of an epoch."""
        rows = self.rows
        material = Material(rows, {"ref": lambda some: ref[rows.places(some), : max(rows.select(some).lengths)]})
        started = time.process_time()
        for i in range(0, PAIRS, BATCH):
            self.step(material, range(i, i + BATCH), {})
        self.optimiser.zero_grad(set_to_none=True)
        return time.process_time() - started


def peak(top: int | None) -> float:
    """GiB that a process of its own takes at most for the reference and one epoch; loading is in it."""
    said = subprocess.run(
        [sys.executable, __file__, "peak", str(top or 0)], capture_output=True, text=True, check=True, timeout=600
    )
    return float(said.stdout.splitlines()[-1])


def measure(rounds: int) -> dict[str, Any]:
    """Epochs of both in turn, in one process on one thread; the first of each warms up and is not counted."""
    home = os.environ.get("PENCHANT_CACHE")
    with tempfile.TemporaryDirectory(prefix="bench-trunk-") as folder:
        both: dict[str, Epochs] = {}
        for name, top in (("all", None), ("top", TOP)):
            both[name] = Epochs(top, Path(folder))
            _restore(home)
        os.environ["PENCHANT_CACHE"] = folder
        whole, first = both["all"].reference()
        upper, caching = both["top"].reference()
        again, found = both["top"].reference()
        assert torch.equal(upper, again), "what is looked up is not what was computed"
        seconds: dict[str, list[float]] = {"all": [], "top": []}
        for k in range(rounds + 1):
            for name, ref in (("all", whole), ("top", upper)):
                took = both[name].epoch(ref)
                if k:
                    seconds[name].append(took)
        disk = sum(path.stat().st_size for path in Path(folder, "trunks").rglob("*.safetensors"))
    _restore(home)
    rows = both["top"].rows
    tokens = sum(both["top"].model.domain.cost(both["top"].model.policy, rows).sizes)
    ratios = [a / b for a, b in zip(seconds["all"], seconds["top"], strict=True)]
    return {
        "pairs": PAIRS,
        "top": TOP,
        "rounds": rounds,
        "tokens": tokens,
        "epoch_all_cpu_seconds": statistics.median(seconds["all"]),
        "epoch_top_cpu_seconds": statistics.median(seconds["top"]),
        "all_over_top": statistics.median(ratios),
        "all_over_top_low": min(ratios),
        "all_over_top_high": max(ratios),
        "reference_all_cpu_seconds": first,
        "reference_and_caching_cpu_seconds": caching,
        "reference_cached_cpu_seconds": found,
        "disk_bytes_per_token": disk / tokens,
        "largest_difference_nats": float((whole - upper).abs().max()),
        "peak_all_gib": peak(None),
        "peak_top_gib": peak(TOP),
    }


def _restore(home: str | None) -> None:
    os.environ.pop("PENCHANT_CACHE")
    if home is not None:
        os.environ["PENCHANT_CACHE"] = home


def main() -> None:
    given = sys.argv[1:]
    if given[:1] == ["peak"]:
        with tempfile.TemporaryDirectory(prefix="bench-trunk-") as folder:
            one = Epochs(int(given[1]) or None, Path(folder))
            one.epoch(one.reference()[0])
        # Not getrusage's, which remembers the process that started this one.
        status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines())
        print(int(status["VmHWM"].split()[0]) / 2**20)
    else:
        print(json.dumps(measure(int(given[0]) if given else 3), indent=1))


if __name__ == "__main__":
    main()

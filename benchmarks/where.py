"""Where the time of a step and of an epoch goes, by kind of work: what stands under "Where the time goes" in
docs/performance.md comes from here. It compares with nobody and is no row of the table.

    .venv-bench/bin/python benchmarks/where.py
"""

from __future__ import annotations

import json
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest import mock

import epochs
import torch
from torch.profiler import ProfilerActivity, profile
from workload import as_chat, loaded, pairs, precision, step_on

from penchant.domains.text.policy import TextPolicy
from penchant.engine import loop
from penchant.engine.sources import Anchors
from penchant.engine.step import Step

KINDS = {
    "products with weights": ("mm", "addmm", "addmm_", "mkldnn_linear", "linear"),
    "attention": ("bmm", "baddbmm", "_softmax", "_softmax_backward_data", "_attend", "_attendbackward", "masked_fill_"),
    "filling new memory with zeros": ("fill_", "zero_", "zeros"),
    "conversions and copies": ("copy_", "cat", "index", "index_select", "gather", "embedding_dense_backward", "index_put_"),
    "AdamW and clipping": ("_fused_adamw_", "linalg_vector_norm", "_foreach_norm", "_foreach_mul_"),
}
"""Operators of torch's by kind of work."""


def kind(name: str) -> str:
    said = name.split("::")[-1].lower()
    return next((what for what, names in KINDS.items() if said in names), "norms, activations, rotations, sums, the rest")


def of_step(what: Any, count: int) -> dict[str, float]:
    """Shares of a step's own CPU time by kind, the second of two steps."""
    model, how = loaded(), precision(what)
    step = step_on(model, model.domain.encode(pairs(count)), how)
    step()
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        step()
    spent: Counter[str] = Counter()
    for event in seen.key_averages():
        spent[kind(event.key)] += event.self_cpu_time_total
    whole = sum(spent.values())
    return {name: took / whole for name, took in spent.most_common()}


def of_epoch() -> dict[str, float]:
    """CPU seconds of the parts of `epochs.ours`, whose calls are timed from outside."""
    spent: Counter[str] = Counter()

    def timed(what: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def act(*given: Any, **named: Any) -> Any:
            started = time.process_time()
            try:
                return real(*given, **named)
            finally:
                spent[what] += time.process_time() - started

        return act

    parts = (
        (epochs, "prepare", "reading, encoding, duplicates, the split"),
        (TextPolicy, "probed", "the probe of the scoring path"),
        (Anchors, "_filled", "the reference's log-probs"),
        (Step, "__call__", "the steps"),
        (loop.checkpoint, "save", "the checkpoint"),
    )
    rows = as_chat(pairs(epochs.PAIRS + epochs.UNSEEN))
    with tempfile.TemporaryDirectory(prefix="bench-where-") as made, ExitStack() as undone:
        folder = Path(made)
        for name, some in (("train", rows[: epochs.PAIRS]), ("unseen", rows[epochs.PAIRS :])):
            lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in some)
            (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")
        for owner, name, what in parts:
            undone.enter_context(mock.patch.object(owner, name, timed(what, getattr(owner, name))))
        whole = epochs.ours(folder, folder / "run")
    return {**spent, "everything else": whole - sum(spent.values())}


def main() -> None:
    torch.set_num_threads(1)
    for what, count in (("bf16", 8), ("fp32", 4)):
        print(f"DPO step, {count} real pairs, {what}")
        for name, share in of_step(what, count).items():
            print(f"  {share:6.1%}  {name}")
    print(f"epoch on {epochs.PAIRS} real pairs")
    for name, seconds in of_epoch().items():
        print(f"  {seconds:6.1f} CPU s  {name}")


if __name__ == "__main__":
    main()

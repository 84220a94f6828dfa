"""Peak memory of a process that trains, model, optimiser and libraries in it: ours and the peer's, each in a process of its
own, the highest resident size that the kernel has seen."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from figures import Figure

PAIRS, STEPS, RANK = 8, 2, 16
SMALL = 512
"""A budget of tokens that makes several micro-batches of eight pairs."""
TARGETS = {"full": ("all weights train", 0.45, 0.35), "lora": (f"LoRA of rank {RANK}", 0.35, 0.27)}


def measure(rounds: int) -> list[Figure]:
    """One round: memory hardly varies. Ours with the default budget of a micro-batch, which holds all eight pairs, and with
    a small one; results do not hang on it, and the peer's micro-batches are as large as its user says too."""
    import peer

    figures = []
    for what, (said, at_most, stretch) in TARGETS.items():
        theirs = apart("peer", what, 0)
        for budget, name in ((0, "the default budget"), (SMALL, f"--tokens {SMALL}")):
            ours = apart("ours", what, budget)
            print(f"  {what}, {name}: {ours:.3g} and {theirs:.3g} GiB", flush=True)
            figures.append(
                Figure(
                    f"peak memory, {PAIRS} real pairs a step, {said}, {name}, against {peer.NAME}'s defaults",
                    ours / theirs,
                    at_most=at_most,
                    stretch=stretch,
                    ours=ours,
                    peer=theirs,
                    sides="GiB",
                )
            )
    return figures


def apart(who: str, what: str, budget: int) -> float:
    """The peak of a process of its own, in GiB."""
    run = [sys.executable, "-W", "ignore", __file__, who, what, str(budget)]
    return float(subprocess.run(run, check=True, stdout=subprocess.PIPE, text=True).stdout.split()[-1])


def highest() -> float:
    """This process's largest resident size so far, in GiB."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 2**20


def of_peer(what: str) -> None:
    from peer import trainer
    from peft import LoraConfig
    from workload import pairs

    lora = LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules="all-linear", task_type="CAUSAL_LM")
    given = lora if what == "lora" else None
    trainer(pairs(PAIRS), PAIRS, peft=given, max_steps=STEPS, save_strategy="no").train()


def of_ours(what: str, budget: int) -> None:
    from workload import loaded, pairs, precision, step_on

    from penchant.domains.text.models import LoRA

    rows = pairs(PAIRS)
    model = loaded(LoRA(RANK, 2 * RANK) if what == "lora" else None)
    step = step_on(model, model.domain.encode(rows), precision("bf16"), budget or None)
    for _ in range(STEPS):
        step()


if __name__ == "__main__":
    import torch

    torch.set_num_threads(1)
    if sys.argv[1] == "peer":
        of_peer(sys.argv[2])
    else:
        of_ours(sys.argv[2], int(sys.argv[3]))
    print(highest())

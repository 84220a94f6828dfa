"""Peak memory of a process that trains, model, optimiser and libraries in it: ours and the peer's, each in a process of its
own, the highest resident size the kernel has seen."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from figures import Figure

PAIRS, STEPS, RANK = 8, 2, 16
HERE = Path(__file__).resolve().parent


def measure(rounds: int) -> list[Figure]:
    """One round: memory hardly varies."""
    import memory
    import peer

    ours = memory.measure()
    figures = []
    for name, said, at_most, stretch in (
        ("full", "all weights train", 0.45, 0.35),
        ("lora", f"LoRA of rank {RANK}", 0.35, 0.27),
    ):
        theirs = float(
            subprocess.run([sys.executable, __file__, name], check=True, capture_output=True, text=True).stdout.split()[-1]
        )
        print(f"  {name}: {ours[name]:.3g} and {theirs:.3g} GiB", flush=True)
        figures.append(
            Figure(
                f"peak memory, {PAIRS} real pairs a step, {said}, against {peer.NAME}'s defaults",
                ours[name] / theirs,
                at_most=at_most,
                stretch=stretch,
                ours=ours[name],
                peer=theirs,
                sides="GiB",
            )
        )
    return figures


def highest() -> float:
    """This process's largest resident size so far, in GiB."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 2**20


def peak_of_peer(name: str) -> float:
    import torch
    from peer import trainer
    from peft import LoraConfig
    from workload import pairs

    torch.set_num_threads(1)
    lora = LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules="all-linear", task_type="CAUSAL_LM")
    rows = pairs(PAIRS)
    trainer(rows, PAIRS, peft=lora if name == "lora" else None, max_steps=STEPS, save_strategy="no").train()
    return highest()


if __name__ == "__main__":
    print(peak_of_peer(sys.argv[1]))

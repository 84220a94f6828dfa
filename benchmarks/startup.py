"""How long a shell waits for `penchant --help`: fresh processes, nothing else."""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
from pathlib import Path

from figures import Figure


def measure(rounds: int) -> list[Figure]:
    command = Path(sys.executable).with_name("penchant")
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    took = []
    for k in range(3 * rounds + 1):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([command, "--help"], check=True, stdout=subprocess.DEVNULL, env=environment)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        if k:  # the first writes byte code and fills the disk's cache
            took.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    middle = statistics.median(took)
    return [
        Figure(
            "start-up of `penchant --help`",
            middle,
            "CPU s",
            at_most=0.5,
            stretch=0.2,
            low=min(took),
            high=max(took),
            rounds=len(took),
        )
    ]

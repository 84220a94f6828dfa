"""How many tokens are scored at once, so that a run keeps to a limit of memory: the peak is measured with the run's own model
on its own longest row, never guessed. What cannot be measured here, what has yet to come, is counted in bytes."""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from penchant.errors import Refusal

SPARE = 0.15
"""Share of the limit that is left for what the allocator cannot use again and kernels keep: with a tenth, a run of the packaged
model was seen to go 3 % over 2.6 GiB."""
KEPT = 64
"""Kernels that oneDNN keeps, each with memory of its own. By itself it keeps 1,024, and makes new ones for every number of tokens:
20 MiB for a micro-batch of a new size. A micro-batch needs about twenty."""
GIB = 2**30
_PEAK, _FORGET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class Budget:
    """A limit of memory and what fits in it."""

    limit: float
    """GiB that one process may hold."""
    tokens: int
    """Token budget of a micro-batch."""
    base: float
    """GiB of the process beside a micro-batch: weights, gradients, libraries, and all that is yet to come."""
    slope: float
    """MiB more for every token of a micro-batch."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        return (
            f"{self.tokens:,} tokens at once for {self.limit:g} GiB ({self.base:.2f} GiB and {self.slope:.2f} MiB a token)"
        )


def fitted(
    limit: float,
    longest: int,
    rows: int,
    work: Callable[[int], None],
    free: Callable[[], None],
    later: int,
    device: torch.device,
) -> Budget:
    """The largest token budget that keeps to the limit, and at most what a step's `rows` can fill.

    longest: tokens of the longest row. work: forward and backward of that row, so many times at once; the gradients stay.
    free: lets the gradients go. later: bytes that a run will hold besides, such as an optimiser's moments. Raises Refusal
    where the longest row alone does not fit, naming what it needs.
    """
    try:
        work(1)  # gradients and work space are there from now on, as they are in all but a step's first micro-batch
        one, two = (_peak(lambda n=n: work(n), device) for n in (1, 2))
    except torch.OutOfMemoryError:
        raise Refusal(
            f"max_memory={limit:g}: one or two of the longest rows ({longest:,} tokens) do not fit on {device}. Lower "
            "--max-length, train an adapter with --lora, or take a larger device."
        ) from None
    finally:
        free()
    slope = max(two - one, 1) / longest
    base = one - slope * longest + later
    tokens = int((limit * GIB * (1 - SPARE) - base) / slope)
    if tokens < longest:
        needed = (base + slope * longest) / (1 - SPARE) / GIB
        raise Refusal(
            f"max_memory={limit:g}: the longest row has {longest:,} tokens, and a step on it alone needs {needed + 0.005:.2f} "
            "GiB. Give that much, lower --max-length, or train an adapter with --lora."
        )
    return Budget(limit, min(tokens, rows * longest), round(base / GIB, 4), round(slope / 2**20, 4))


def halved(budget: int, groups: Callable[[int], Sequence[Sequence[int]]]) -> int | None:
    """The next half of a budget under which a step is cut otherwise than now; None where every row is alone already."""
    now = groups(budget)
    if all(len(group) <= 1 for group in now):
        return None
    while groups(budget) == now:
        budget = max(budget // 2, 1)
    return budget


def returning() -> None:
    """Has the C library give large blocks back to the system as they are freed, where it is glibc: by itself it soon keeps
    blocks of up to 32 MiB, and what it keeps is in pieces. And has oneDNN keep few kernels, if none was made yet and nobody
    has said how many."""
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", str(KEPT))
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).mallopt(-3, 2**17)  # M_MMAP_THRESHOLD


def _peak(work: Callable[[], None], device: torch.device) -> int:
    """The most bytes that are held while the work is done."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        work()
        return torch.cuda.max_memory_allocated(device)
    try:
        _FORGET.write_text("5")  # the high-water mark begins anew
    except OSError:
        raise Refusal(
            f"max_memory is kept by measuring, which on {device} takes {_FORGET}, and this system has none that can be "
            "written. Leave it out and set --tokens."
        ) from None
    work()
    line = next(line for line in _PEAK.read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024

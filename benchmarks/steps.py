"""One optimiser step on eight real pairs, taken in turns with the peer; how much of the peer's time is its head's way on a
CPU; and how near a step comes to the machine's peak."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import peer
import torch
from figures import Figure, in_turns, ratio
from workload import loaded, needed, pairs, precision, step_on

PAIRS = 8
PAIRS_FP32 = 4


def held(step: Callable[[], None], around: Any = nullcontext, matmul: str = "highest") -> Callable[[], None]:
    """A peer's step with torch's default for float32 products, unless said otherwise."""

    def act() -> None:
        torch.set_float32_matmul_precision(matmul)
        with around():
            step()

    return act


def autocast(rounds: int) -> list[Figure]:
    """Both under autocast to bf16, the peer's default."""
    rows, how = pairs(PAIRS), precision("bf16")
    default, best = peer.stepped(rows), peer.stepped(rows, **peer.BEST)
    model = loaded()
    contestants: dict[str, Callable[[], object]] = {
        "default": held(default),
        "best": held(best),
        "head on completions": held(best, peer.head_on_completions),
        "head products in bf16": held(best, peer.head_products_in_bf16),
        "ours": step_on(model, model.domain.encode(rows), how),
    }
    seconds = in_turns(contestants, rounds, warm=("default", "best", "ours"))
    default.stop()
    best.stop()
    what = f"DPO step, {PAIRS} real pairs, autocast to bf16 in both"
    median = {name: statistics.median(x) for name, x in seconds.items()}
    fallback = ratio(seconds, "best", "head products in bf16", f"{peer.NAME}, best options: its head's way on a CPU")
    return [
        ratio(seconds, "default", "ours", f"{what}, against {peer.NAME}'s defaults", at_least=6.5, stretch=10),
        ratio(seconds, "best", "ours", f"{what}, against its best options", at_least=5, stretch=9),
        ratio(
            seconds, "head on completions", "ours", f"{what}, against its best options with its head on completions only"
        ),
        ratio(
            seconds,
            "head products in bf16",
            "ours",
            f"{what}, against the same and its head's backward products in bf16",
        ),
        Figure(
            fallback.name,
            fallback.value,
            peer=median["best"],
            ours=median["head products in bf16"],
            low=fallback.low,
            high=fallback.high,
            rounds=rounds,
            note="the peer as it is, over the peer with its head as it works on a GPU: not ours at all",
        ),
    ]


def float32(rounds: int) -> list[Figure]:
    """Both in float32, with the setting of float32 products that penchant's probe chose here for both: anybody can set it."""
    rows, how = pairs(PAIRS_FP32), precision("fp32")
    default = peer.stepped(rows, bf16=False)
    best = peer.stepped(rows, bf16=False, **peer.BEST)
    model = loaded()
    contestants: dict[str, Callable[[], object]] = {
        "default": held(default, matmul=how.matmul),
        "best": held(best, matmul=how.matmul),
        "ours": step_on(model, model.domain.encode(rows), how),
    }
    seconds = in_turns(contestants, rounds)
    default.stop()
    best.stop()
    what = f"DPO step, {PAIRS_FP32} real pairs, float32 in both"
    return [
        ratio(seconds, "default", "ours", f"{what}, against {peer.NAME}'s defaults", at_least=5, stretch=6),
        ratio(seconds, "best", "ours", f"{what}, against its best options", at_least=3.8, stretch=4.5),
    ]


def peak(rounds: int) -> list[Figure]:
    """What a step needs, over what the machine's bf16 products could do in its time."""
    how, model = precision("bf16"), loaded()
    rows = model.domain.encode(pairs(PAIRS))
    step, operations, shares, speeds = step_on(model, rows, how), needed(model, rows), [], []
    step()
    for k in range(rounds):
        speeds.append(fastest_product())
        started = time.process_time()
        step()
        took = time.process_time() - started
        shares.append(100 * operations / took / speeds[-1])
        print(f"  round {k + 1}: {took:.3g} CPU s, {speeds[-1] / 1e9:.0f} GFLOP/s at most, {shares[-1]:.0f} %", flush=True)
    return [
        Figure(
            f"share of the machine's measured bf16 peak, DPO step of {PAIRS} real pairs",
            statistics.median(shares),
            "%",
            at_least=40,
            stretch=50,
            ours=operations / 1e12,
            peer=statistics.median(speeds) / 1e12,
            sides="TFLOP(/s)",
            low=min(shares),
            high=max(shares),
            rounds=rounds,
            note="operations needed, and the fastest product of two matrices",
        )
    ]


def fastest_product() -> float:
    """Operations a second of the fastest bf16 product found: a large square one, and those a layer of the model makes."""
    best = 0.0
    for m, k, n in ((2048, 2048, 2048), (1024, 576, 1536), (1024, 1536, 576)):
        a, b = torch.randn(m, k).bfloat16(), torch.randn(k, n).bfloat16()
        for _ in range(8):
            started = time.process_time()
            a @ b
            best = max(best, 2 * m * k * n / (time.process_time() - started))
    return best

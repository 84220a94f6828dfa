"""Which number format the forward pass runs in, measured on this machine, never assumed. The choice is kept in the
checkpoint: a resumed run computes as the first one did."""

from __future__ import annotations

import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from penchant.errors import Refusal
from penchant.files import cache_folder, fingerprint, read_json, write_json

FASTER = 1.5
"""bf16 must beat the best exact float32 product by this factor to be worth its rounding."""
EXACT = 4.0
"""A faster float32 product is exact if it errs at most this many times the plain one; bf16 errs 1,000 times more."""

TOLERANCE = {"fp32": 2e-4, "bf16": 0.5}
"""Largest |log π − log π_ref| of any token while the policy is still its reference: rounding of differently padded batches.
Measured on the packaged model: see docs/architecture.md."""


@dataclass(frozen=True)
class Precision:
    """How forward passes compute."""

    name: Literal["fp32", "bf16"]
    matmul: Literal["highest", "high", "medium"]
    """torch.set_float32_matmul_precision; "medium" on a CPU is the faster library where the probe found it exact."""
    measured: dict[str, float]
    """Seconds and errors the probe saw."""

    @property
    def tolerance(self) -> float:
        return TOLERANCE[self.name]

    def apply(self) -> None:
        torch.set_float32_matmul_precision(self.matmul)

    @contextmanager
    def forward(self, device: torch.device) -> Iterator[None]:
        """The context every scoring runs in."""
        with torch.autocast(device.type, torch.bfloat16, enabled=self.name == "bf16"):
            yield

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        if not self.measured:
            return self.name
        gain = self.measured[f"{self.matmul}_seconds"] / self.measured["bf16_seconds"]
        why = f"bf16 products are {gain:.1f} times as fast as float32 here"
        return f"{self.name} ({why}; float32 products: {self.matmul!r})"


def choose(asked: Literal["auto", "fp32", "bf16"], device: torch.device) -> Precision:
    """Measures float32 and bf16 products on the device and takes the faster one that is right. What was found on a machine is
    kept, so that two runs on it compute alike however busy it is."""
    if device.type != "cpu":
        if asked == "bf16" or (asked == "auto" and device.type == "cuda" and torch.cuda.is_bf16_supported()):
            return Precision("bf16", "highest", {})
        return Precision("fp32", "highest", {})
    measured = _measured()
    matmul = "medium" if _medium_is_exact(measured) else "highest"
    fast = measured[f"{matmul}_seconds"] >= FASTER * measured["bf16_seconds"]
    return Precision(asked if asked != "auto" else ("bf16" if fast else "fp32"), matmul, measured)


def still_right(kept: Precision, device: torch.device) -> None:
    """Refuses a device on which a choice made elsewhere would compute something else under the same name."""
    if kept.name == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported():
        raise Refusal(
            "this run began in bf16, which this device cannot compute. Go on where it began or on a device that can, or start "
            "it anew with --overwrite."
        )
    if kept.matmul == "medium" and device.type == "cpu" and not _medium_is_exact(_measured()):
        raise Refusal(
            "this run began with the float32 products that torch calls 'medium', which were exact on that machine and are "
            "rounded to 16 bits on this one. Go on where it began, or start it anew with --overwrite."
        )


def _medium_is_exact(measured: dict[str, float]) -> bool:
    """Some library's float32 is twice as fast as the default's where the setting is called "medium"; where it errs more, it
    really is bf16 and is not taken."""
    return measured["medium_error"] <= EXACT * measured["highest_error"]


def _measured() -> dict[str, float]:
    """What the probe says of this machine's processor, once for all runs."""
    name = fingerprint(platform.processor(), torch.__version__, torch.__config__.show())
    kept = cache_folder() / f"precision-{name}.json"
    if not kept.exists():
        write_json(kept, _probe())
    return read_json(kept)


def _probe() -> dict[str, float]:
    before = torch.get_float32_matmul_precision()
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(512, 576, generator=generator), torch.randn(576, 1536, generator=generator)
    exact = a.double() @ b.double()
    measured: dict[str, float] = {}
    for matmul in ("highest", "medium"):
        torch.set_float32_matmul_precision(matmul)
        measured[f"{matmul}_seconds"] = _seconds(a, b)
        measured[f"{matmul}_error"] = float(((a @ b).double() - exact).abs().mean() / exact.abs().mean())
    torch.set_float32_matmul_precision(before)
    measured["bf16_seconds"] = _seconds(a.bfloat16(), b.bfloat16())
    return {k: float(f"{v:.3g}") for k, v in measured.items()}


def _seconds(a: Tensor, b: Tensor) -> float:
    """The best of several products: other programs can only make one slower."""
    best = float("inf")
    for _ in range(12):
        start = time.perf_counter()
        torch.mm(a, b)
        best = min(best, time.perf_counter() - start)
    return best

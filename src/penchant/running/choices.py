"""How a run computes on this machine: number format, the way responses are read, threads. Chosen once, by trying, and kept in
the run's folder; a resumed run follows what is written there, and where its surroundings have changed says so."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

import penchant
from penchant.engine import precision as number_format
from penchant.engine.budget import Budget
from penchant.engine.precision import Precision
from penchant.engine.ranks import first, shared, told
from penchant.engine.settings import Settings
from penchant.engine.spread import Spread
from penchant.errors import Refusal
from penchant.files import fingerprint
from penchant.running.subject import Ready
from penchant.version import versions


def choose(
    loaded: Ready, settings: Settings, spread: Spread, more: Callable[[Precision], Mapping[str, Any]]
) -> dict[str, Any]:
    """Everything that is chosen, and what it was chosen for, ready to be written. more: what only this kind of policy has to
    choose. All processes come: what is measured, the first measures alone."""
    accelerator, device = spread.accelerator, spread.accelerator.device
    measured = number_format.choose(settings.precision, device).to_json() if accelerator.is_main_process else {}
    precision = Precision(**json.loads(shared(accelerator, json.dumps(measured))))
    precision.apply()
    return {
        "precision": precision.to_json(),
        "tokens": settings.tokens,
        "budget": None,
        **more(precision),
        "spread": str(spread),
        "threads": torch.get_num_threads(),
        "model": loaded.source,
        "domain": loaded.domain.name,
        "head": loaded.policy.head,
        "parameters": sum(p.numel() for p in loaded.policy.parameters()),
        "trained_parameters": sum(p.numel() for _, p in loaded.policy.named_trainable()),
        **surroundings(device, accelerator.num_processes),
    }


def surroundings(device: torch.device, processes: int) -> dict[str, Any]:
    """What nobody chose and numbers may hang on in their last digits."""
    machine = f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"
    if device.type == "cuda":
        machine += f", {torch.cuda.get_device_name(device)}"
    files = sorted(Path(penchant.__file__).parent.rglob("*.py"))
    code = fingerprint(*(file.read_bytes() for file in files))[:12]
    return {
        "device": str(device),
        "processes": processes,
        "machine": machine,
        "code": code,
        "versions": versions(),
    }


def still(
    choices: dict[str, Any], spread: Spread, step: int, wrong: Callable[[Precision], str]
) -> tuple[dict[str, Any], str]:
    """The choices of a run that goes on after `step`, with its surroundings as they are now, and what has changed in them, in
    words. The choices stay; refuses surroundings in which they are wrong. wrong: what of this kind of policy's own choices is no
    longer right, in words. All processes come, and go by what the first finds."""
    accelerator, device = spread.accelerator, spread.accelerator.device
    here = surroundings(device, accelerator.num_processes)
    changed = ", ".join(
        f"{name} {before} → {now}"
        for (name, now), (_, before) in zip(_flat(here), _flat(choices, here), strict=True)
        if before != now
    )
    if not told(accelerator, bool(changed)):
        return choices, ""
    precision = Precision(**choices["precision"])
    first(accelerator, lambda: number_format.still_right(precision, device))
    precision.apply()
    found = wrong(precision)
    if told(accelerator, bool(found)):
        raise Refusal(
            f"this run began with {found}; since then: {changed}. Go on with what it began with, or start it anew with "
            "--overwrite."
        )
    log = {**choices.get("changed", {}), f"after step {step}": changed}
    return {**choices, **here, "changed": log}, changed


def _flat(values: Mapping[str, Any], names: Mapping[str, Any] | None = None) -> list[tuple[str, Any]]:
    """Names and values, of a table within as well; only and all of those in `names`."""
    names = values if names is None else names
    out: list[tuple[str, Any]] = []
    for name, inner in names.items():
        value = values.get(name)
        if isinstance(inner, Mapping):
            out += _flat(value if isinstance(value, Mapping) else {}, inner)
        else:
            out.append((name, value))
    return out


def follow(choices: Mapping[str, Any]) -> Precision:
    """Computes from now on as is written."""
    precision = Precision(**choices["precision"])
    precision.apply()
    torch.set_num_threads(choices["threads"])
    return precision


def line(choices: Mapping[str, Any], precision: Precision, reads: str) -> str:
    """The choices in a line. reads: how responses are read."""
    budget = "" if choices["budget"] is None else f"; {Budget(**choices['budget'])}"
    return (
        f"precision {precision}; {choices['trained_parameters']:,} of {choices['parameters']:,} parameters train; "
        f"device {choices['device']}, {choices['threads']} threads; {choices['spread']}; {reads}{budget}"
    )

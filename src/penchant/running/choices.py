"""How a run computes on this machine: number format, the way responses are read, threads. Chosen once, by trying, and kept in
the run's folder; a resumed run follows what is written there and tries nothing."""

from __future__ import annotations

from typing import Any

import torch

from penchant.domains.models import Loaded
from penchant.domains.paths import ScoringPath, probe
from penchant.engine import precision as number_format
from penchant.engine.precision import Precision
from penchant.engine.settings import Settings
from penchant.version import versions


def choose(loaded: Loaded, settings: Settings, device: torch.device, processes: int) -> dict[str, Any]:
    """Everything that is chosen, and what it was chosen for, ready to be written."""
    precision = number_format.choose(settings.precision, device)
    precision.apply()
    with precision.forward(device):
        scoring = probe(loaded.policy)
    return {
        "precision": precision.to_json(),
        "scoring": scoring.to_json(),
        "device": str(device),
        "processes": processes,
        "threads": torch.get_num_threads(),
        "model": loaded.source,
        "parameters": sum(p.numel() for p in loaded.policy.parameters()),
        "trained_parameters": sum(p.numel() for _, p in loaded.policy.named_trainable()),
        "versions": versions(),
    }


def follow(choices: dict[str, Any], loaded: Loaded) -> tuple[Precision, ScoringPath]:
    """Computes from now on as is written."""
    precision = Precision(**choices["precision"])
    precision.apply()
    torch.set_num_threads(choices["threads"])
    return precision, loaded.policy.follow(ScoringPath(**choices["scoring"]))


def told(choices: dict[str, Any], precision: Precision, scoring: ScoringPath) -> str:
    """The choices in a line."""
    return (
        f"precision {precision}; {choices['trained_parameters']:,} of {choices['parameters']:,} parameters train; "
        f"device {choices['device']}, {choices['threads']} threads; {scoring}"
    )

"""Checkpoints of our own format: tensors in safetensors, the rest in JSON, each whole or not there, and known by its sums.
Nothing is pickled, so a checkpoint can be read by anyone and harm no one."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from penchant.domains.sharding import placed_like
from penchant.errors import Refusal
from penchant.files import read_json, whole_folder, write_json

FORMAT = 2
SUMS = "sums.json"
"""The format, and the SHA-256 of every other file of a checkpoint: a disk may give back other bytes than it was given."""


@dataclass(frozen=True)
class Position:
    """Where a run stands: everything before it is done."""

    step: int = 0
    """Optimiser steps taken, over all phases."""
    phase: int = 0
    """Round of an on-policy run; 0 for a run on a file."""
    place: int = 0
    """Steps taken within the phase."""


def name_of(step: int) -> str:
    return f"step-{step:08d}"


def save(
    folder: Path,
    position: Position,
    weights: Mapping[str, Tensor],
    moments: Mapping[str, Tensor],
    memory: Mapping[str, Tensor],
    best: Mapping[str, Any],
) -> Path:
    """Writes a checkpoint under `folder`, of whole tensors. moments: what `moments` gave; memory: the objective's state."""
    with whole_folder(folder / name_of(position.step)) as draft:
        for name, tensors in (("policy", weights), ("optimiser", moments), ("objective", memory)):
            # clone: safetensors refuses tensors that share memory
            apart = {key: x.detach().cpu().clone().contiguous() for key, x in tensors.items()}
            save_file(apart, draft / f"{name}.safetensors")
        save_file(_random(), draft / "random.safetensors")
        state = {"position": asdict(position), "best": dict(best), "python": _python_random()}
        write_json(draft / "state.json", state)
        write_json(draft / SUMS, {"format": FORMAT, "files": {path.name: _sum(path) for path in sorted(draft.iterdir())}})
    return folder / name_of(position.step)


def restore(
    folder: Path, policy: Any, optimiser: torch.optim.Optimizer, names: Mapping[str, torch.nn.Parameter]
) -> tuple[Position, dict[str, Tensor], dict[str, Any]]:
    """Puts a checkpoint's weights, optimiser and random state in place; gives its position, the objective's state and the
    best evaluation so far. `policy.load_state` takes tensors by name. The checkpoint must be whole, see `settle`."""
    state = read_json(folder / "state.json")
    policy.load_state(load_file(folder / "policy.safetensors"))
    _put_optimiser(load_file(folder / "optimiser.safetensors"), optimiser, names)
    randomness = load_file(folder / "random.safetensors")
    torch.set_rng_state(randomness["torch"])
    if "cuda" in randomness and torch.cuda.is_available():
        torch.cuda.set_rng_state(randomness["cuda"])
    position, gauss = randomness["numpy_position"].tolist()
    key = randomness["numpy"].numpy().astype(np.uint32)
    np.random.set_state(("MT19937", key, position, gauss, float(randomness["numpy_gauss"])))
    version, numbers, cached = state["python"]
    random.setstate((version, tuple(numbers), cached))
    memory = load_file(folder / "objective.safetensors")
    return Position(**state["position"]), memory, state["best"]


def latest(folder: Path) -> Path | None:
    """The newest checkpoint; a draft that a kill left behind has another name and is never taken."""
    found = sorted(folder.glob("step-*"))
    return found[-1] if found else None


def reached(folder: Path) -> int:
    """The step of the newest checkpoint; 0 where there is none."""
    newest = latest(folder)
    return 0 if newest is None else int(newest.name.removeprefix("step-"))


def settle(folder: Path) -> list[str]:
    """Clears what cannot be gone on from: drafts that a kill left behind, and the newest checkpoints as far as they are
    damaged; the steps after the newest whole one are taken again, to the same result. What was found, in sentences. Refuses
    checkpoints of another format."""
    for path in folder.glob(".*step-*"):
        shutil.rmtree(path)
    said = []
    while (path := latest(folder)) is not None and (wrong := _wrong(path)) is not None:
        shutil.rmtree(path)
        said.append(f"{path} is damaged ({wrong}): it was removed, and the steps since the one before it are taken again.")
    return said


def _wrong(folder: Path) -> str | None:
    """What is not as it was written."""
    try:
        told = json.loads((folder / SUMS).read_text(encoding="utf-8"))
        if told["format"] != FORMAT:
            raise Refusal(
                f"{folder} is a checkpoint of format {told['format']!r}, and this version of penchant reads {FORMAT}. Go on "
                "with the version that wrote it, or start the run anew with --overwrite."
            )
        for name, known in told["files"].items():
            if not (folder / name).is_file():
                return f"{name} is gone"
            if _sum(folder / name) != known:
                return f"{name} is not what was written"
    except (FileNotFoundError, json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError):
        return f"{SUMS} is not what was written"
    return None


def _sum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def prune(folder: Path, keep: int, best: int | None) -> None:
    """Leaves the newest `keep` checkpoints and the best one."""
    found = sorted(folder.glob("step-*"))
    spared = {path.name for path in found[-keep:]} | ({name_of(best)} if best is not None else set())
    for path in found:
        if path.name not in spared:
            shutil.rmtree(path)


def moments(optimiser: torch.optim.Optimizer, names: Mapping[str, torch.nn.Parameter]) -> dict[str, Tensor]:
    """What AdamW remembers, as it stands in memory. names: the trained parameters by name."""
    return {
        f"{key}/{name}": torch.as_tensor(x)
        for name, parameter in names.items()
        for key, x in optimiser.state.get(parameter, {}).items()
    }


def _put_optimiser(
    tensors: Mapping[str, Tensor], optimiser: torch.optim.Optimizer, names: Mapping[str, torch.nn.Parameter]
) -> None:
    for full, x in tensors.items():
        key, name = full.split("/", 1)
        parameter = names[name]
        # AdamW counts its steps in float32 beside the parameter; its moments have the parameter's type.
        optimiser.state[parameter][key] = placed_like(x, parameter)


def _random() -> dict[str, Tensor]:
    _, key, position, gauss, cached = np.random.get_state(legacy=True)
    out = {
        "torch": torch.get_rng_state(),
        "numpy": torch.from_numpy(np.asarray(key).astype(np.int64)),
        "numpy_position": torch.tensor([int(position), int(gauss)]),
        "numpy_gauss": torch.tensor(float(cached), dtype=torch.float64),
    }
    if torch.cuda.is_available():
        out["cuda"] = torch.cuda.get_rng_state()
    return out


def _python_random() -> list[Any]:
    version, numbers, cached = random.getstate()
    return [version, list(numbers), cached]

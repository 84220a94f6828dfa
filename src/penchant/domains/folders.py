"""A model's folder looked at before any library reads it: nothing in it may name code or pickles that reading would run, or
sizes that no model has. It loads no model."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from penchant.errors import Refusal
from penchant.words import brief, plain

CODE = re.compile(r"_?(attn|experts)_implementation(_internal)?")
"""Settings that `transformers` takes for the name of a kernel on the hub where there is a slash in them, and would run."""
MOST = {"num_hidden_layers": 1000, "n_layer": 1000, "n_layers": 1000, "num_layers": 1000, "num_labels": 100_000}
"""Numbers that are built one by one; a larger one would only fill the memory."""


def settings_of(path: Path) -> dict[str, Any]:
    """A JSON file of a model as a mapping. Raises Refusal where it is none, names code from elsewhere, or asks for sizes that
    no model has."""
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise Refusal(f"{plain(path)} is not JSON: {brief(str(error), 200)}. Fetch the model again.") from None
    if not isinstance(told, dict):
        raise Refusal(f"{plain(path)} holds {brief(told)}; it must hold an object of settings. Fetch the model again.")
    for name, value in _within(told):
        if CODE.fullmatch(name) and isinstance(value, str) and "/" in value:
            raise Refusal(
                f"{plain(path)}, {name} = {brief(value)}: this names code on the hub, and no code that comes with a model is "
                "ever run. Take the line out, or write 'sdpa' or 'eager'."
            )
        if name in MOST and isinstance(value, int) and value > MOST[name]:
            raise Refusal(f"{plain(path)}, {name} = {brief(value)}: at most {MOST[name]:,} are built.")
    return told


def _within(told: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Every setting with its value, those of mappings inside too (where one names a setting for each part of a model, each
    counts under that setting's name)."""
    for name, value in told.items():
        yield name, value
        if isinstance(value, dict):
            yield from ((name, part) for part in value.values())
            yield from _within(value)


def weights_of(folder: Path, allow_bin: bool, stem: str) -> Literal["safetensors", "bin"]:
    """How the folder's weights are stored: `stem`.safetensors, in one file or in those that its index names. Raises Refusal
    for pickles that were not asked for, whatever they hide behind."""
    index = folder / f"{stem}.safetensors.index.json"  # which peft does not know
    if (folder / f"{stem}.safetensors").is_file():
        return "safetensors"
    if stem == "model" and index.is_file():
        named = settings_of(index).get("weight_map")
        files = set(map(str, named.values())) if isinstance(named, dict) else set()
        for name in sorted(files):
            if not name.endswith(".safetensors") or "/" in name or "\\" in name:
                raise Refusal(
                    f"{plain(index)} names the file {brief(name)}; weights are read from .safetensors files of the same folder."
                )
            if not (folder / name).is_file():
                raise Refusal(
                    f"the folder {plain(folder)} lacks {brief(name)}, which its index names. Fetch the model again."
                )
        if not files:
            raise Refusal(f"{plain(index)} names no file of weights. Fetch the model again.")
        return "safetensors"
    if not list(folder.glob("*.bin")):
        raise Refusal(f"the folder {plain(folder)} has no weights ({stem}.safetensors).")
    if not allow_bin:
        raise Refusal(
            f"the folder {plain(folder)} has its weights as .bin only, a pickle, which may run code when it is read. "
            "Convert it to safetensors, or pass allow_bin=True if you trust whoever made it."
        )
    return "bin"


def licence_of(folder: Path) -> str | None:
    """What the front matter of the model card says on one line; None where there is none or it says something else."""
    card = folder / "README.md"
    if not card.is_file():
        return None
    front = re.match(r"\ufeff?---\s*\n(.*?)\n---", card.read_text(encoding="utf-8", errors="replace"), re.S)
    said = front and re.search(r"""^license:[ \t]*["']?([\w.+-]+)["']?[ \t]*$""", front[1], re.M)
    return said[1] if said else None

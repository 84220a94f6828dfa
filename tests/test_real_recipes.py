"""The recipes on a real model start, with a tiny one in its place, and count what they say. What they show is a claim, and
claims are run by themselves."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

RECIPES = Path(__file__).resolve().parents[1] / "recipes"
Recipe = Callable[[str], ModuleType]

PAIRS: list[dict[str, Any]] = [
    {"prompt": f"what is it, cat {i // 2}?", "chosen": f"the good cat {i}", "rejected": f"bad mat {i} please"}
    for i in range(24)
]


@pytest.fixture
def recipe(monkeypatch: pytest.MonkeyPatch) -> Recipe:
    """Imports a file of recipes/ by name."""
    monkeypatch.syspath_prepend(str(RECIPES))
    return importlib.import_module


def test_the_displacement_recipe_starts_and_an_imitation_term_lifts_the_chosen(
    recipe: Recipe, tiny_folder: Path, tmp_path: Path
) -> None:
    rows = [{**row, "prompt": f"{row['prompt']} {i}"} for i, row in enumerate(PAIRS)]
    sizes = {"train": 16, "held_out": 8, "seeds": (0,)}
    found = recipe("displacement").displacement(str(tiny_folder), str(tmp_path), rows=rows, **sizes)
    lifted = [found.values(arm, "trained chosen")[0] for arm in ("DPO", "eta=0.5", "eta=5")]
    assert lifted == sorted(lifted)

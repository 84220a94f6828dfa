"""Claims on files of pairs: the recipes run whole on the packaged model, and their figures are printed for docs/claims.md.
They take minutes to an hour, so `make test` leaves them out."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.claims, pytest.mark.filterwarnings("default")]
RECIPES = Path(__file__).resolve().parents[2] / "recipes"


@pytest.fixture
def recipe(monkeypatch: pytest.MonkeyPatch, shared_data: Path) -> Any:
    """Imports a recipe by name, with the folder of real data."""
    monkeypatch.syspath_prepend(str(RECIPES))
    monkeypatch.setattr(importlib.import_module("data"), "HOME", shared_data)
    monkeypatch.delenv("PENCHANT_CACHE")  # the packaged model is converted once, for all
    return importlib.import_module


def test_forty_steps_tell_agreeable_statements_from_their_opposite(recipe: Any, tmp_path: Path) -> None:
    module = recipe("persona_canary")
    found = module.canary(output=str(tmp_path / "canary"))
    print("persona canary:", found)
    assert found.accuracy >= module.LEAST


def test_a_small_model_learns_what_people_prefer_on_unseen_conversations(recipe: Any, tmp_path: Path) -> None:
    found = recipe("human_pairs").human_pairs(output=str(tmp_path / "human"))
    print("human pairs:", found)
    assert found.low > 0.5

"""Claims on the packaged model with real text, several arms and three seeds each: the recipes run whole, and their tables are
printed for docs/claims.md. They take minutes to an hour, so `make test` leaves them out."""

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


def test_an_imitation_term_lifts_the_chosen_the_more_the_larger_it_is(recipe: Any, tmp_path: Path) -> None:
    found = recipe("displacement").displacement(output=str(tmp_path))
    print(f"displacement:\n{found}")
    lifted = [found.estimate(arm, "unseen chosen").value for arm in found.runs]
    assert lifted == sorted(lifted)
    assert found.difference("eta=0.05", "unseen chosen").low > 0

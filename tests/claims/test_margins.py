"""Claims on the base losses: where margins come to rest (seconds), and what fifty steps on near-duplicates do to the chosen
(hours). Their tables are printed for docs/claims.md."""

from __future__ import annotations

import importlib
import math
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.claims, pytest.mark.filterwarnings("default")]
RECIPES = Path(__file__).resolve().parents[2] / "recipes"


@pytest.fixture
def recipe(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(RECIPES))
    return importlib.import_module


def test_margins_rest_where_their_notes_say_and_dpos_does_not(recipe: Any) -> None:
    found = recipe("base_losses").base_losses()
    print(found)
    rest = {
        "CDPO, flip 0.1": math.log(0.9 / 0.1) / 0.1,
        "CDPO, flip 0.2": math.log(0.8 / 0.2) / 0.1,
        "IPO, tau 0.1": 5.0,
        "IPO, tau 0.25": 2.0,
    }
    for arm, margin in rest.items():
        assert found.estimate(arm, "at the end").value == pytest.approx(margin, rel=0.01)
    assert found.estimate("DPO", "growth").low > 10


def test_what_fifty_steps_on_near_duplicates_do_to_the_chosen(
    recipe: Any, monkeypatch: pytest.MonkeyPatch, shared_data: Path, tmp_path: Path
) -> None:
    monkeypatch.setattr(recipe("data"), "HOME", shared_data)
    monkeypatch.delenv("PENCHANT_CACHE")  # the packaged model is converted once, for all
    found = recipe("near_duplicates").study_of(output=str(tmp_path))
    print(found)
    assert found.estimate("DPOP", "log π chosen").low > found.estimate("DPO", "log π chosen").value

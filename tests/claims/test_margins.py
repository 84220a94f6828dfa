"""Claims on the base losses: where margins come to rest (seconds), and what fifty steps on near-duplicates do to the chosen
(minutes). Their tables are printed for docs/claims.md."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.claims, pytest.mark.filterwarnings("default")]


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


def test_fifty_steps_on_near_duplicates_lower_the_chosen_under_dpo_alone(real: Any, tmp_path: Path) -> None:
    found = real("near_duplicates").study_of(output=str(tmp_path))
    print(found)
    assert found.estimate("DPO", "log π chosen").high < 0
    assert all(found.estimate(arm, "log π chosen").low > 0 for arm in found.runs if arm != "DPO")

"""Claims on policies: the recipe runs whole, its figures printed for docs/claims.md."""

from __future__ import annotations

from typing import Any

import pytest

pytestmark = [pytest.mark.claims, pytest.mark.filterwarnings("default")]


def test_preferences_between_episodes_raise_success_and_beat_single_steps_and_random_pairs(recipe: Any) -> None:
    pytest.importorskip("metaworld", reason="needs the extra embodied")
    found = recipe("grape").grape()
    print(found)
    assert found.estimate("whole", "gain").low > 0
    for arm in ("steps", "random"):
        assert found.estimate(arm, "round 2").value < found.estimate("whole", "round 2").value

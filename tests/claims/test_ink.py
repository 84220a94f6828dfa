"""Claims on pictures: the recipes run whole, their figures printed for docs/claims.md."""

from __future__ import annotations

from typing import Any

import pytest

pytestmark = [pytest.mark.claims, pytest.mark.filterwarnings("default")]


def test_preferences_raise_the_reward_further_than_imitation_and_a_weak_pull_further_yet(recipe: Any) -> None:
    found = recipe("picture_preferences").picture_preferences()
    print(found)
    for arm in ("DPO, 1000", "KTO, 1000", "MaPO"):
        assert found.estimate(arm, "ink, change").low > found.estimate("imitation", "ink, change").value
    assert found.estimate("DPO, 20", "ink, change").low > found.estimate("DPO, 1000", "ink, change").high
    assert (
        found.estimate("DPO, 1000", "read rightly, change").high
        < 0
        < found.estimate("DPO, 20", "read rightly, change").high
    )

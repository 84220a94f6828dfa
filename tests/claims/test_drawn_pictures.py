"""Claims on pictures that a model draws itself or never drew: the recipes run whole, their figures printed for docs/claims.md."""

from __future__ import annotations

from typing import Any

import pytest

pytestmark = [pytest.mark.claims, pytest.mark.filterwarnings("default")]


def test_a_policy_gradient_over_sampling_chains_raises_the_reward(recipe: Any) -> None:
    found = recipe("flow_grpo").flow_grpo()
    print(found)
    assert found.estimate("policy gradient", "ink, change").low > 0 < found.estimate("DPO", "ink, change").low
    assert found.estimate("policy gradient", "read rightly, change").value > -0.1

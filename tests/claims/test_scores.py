"""Claims on strengths and scores: the recipes run whole on finite sets, their figures printed for docs/claims.md."""

from __future__ import annotations

from typing import Any

import pytest

pytestmark = [pytest.mark.claims, pytest.mark.filterwarnings("default")]


def test_strengths_beat_verdicts_at_the_same_distance(recipe: Any) -> None:
    found = recipe("osp").osp()
    print(found)
    assert found.difference("soft: OSP", "utility at KL 0.1").low > 0
    assert found.estimate("soft: OSP", "|s − logit p|").high < found.estimate("hard: DPO", "|s − logit p|").low


def test_goals_are_followed_and_good_answers_kept_while_the_best_score_is_not_beaten(recipe: Any) -> None:
    found = recipe("reward_augmented").reward_augmented()
    print(found)
    assert found.difference("DPO-RA", "log π of good rejected").low > 0
    assert found.estimate("DPO-RA", "goal and score").low > 0.5
    assert found.difference("DPO-RA", "score").high < 0  # a null: here plain DPO scores higher

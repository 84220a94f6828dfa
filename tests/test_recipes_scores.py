"""The recipes on finite sets that learn from strengths and from scores: a short run of each, and what it must show at once."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from penchant.objectives import read


def test_soft_labels_move_towards_their_strengths_and_hard_ones_past_them(recipe: Any) -> None:
    osp = recipe("osp")
    soft, hard = (osp.run(read(osp.ARMS[arm]), seed=0, steps=60) for arm in ("soft: OSP", "hard: DPO"))
    assert soft["utility at KL 0.1"] > hard["utility at KL 0.1"]
    assert soft["|s − logit p|"] < hard["|s − logit p|"] and hard["KL at the end"] > soft["KL at the end"]


def test_where_a_path_crosses_is_read_between_two_looks(recipe: Any) -> None:
    at = recipe("osp").at
    assert at([(0.0, 1.0), (0.2, 3.0), (0.1, 9.0)], 0.15) == pytest.approx(2.5)
    assert math.isnan(at([(0.0, 1.0), (0.2, 3.0)], 0.5))


def test_the_scored_world_is_relabelled_as_feedback_is(recipe: Any) -> None:
    ra = recipe("reward_augmented")
    made = ra.world(0)
    some = [row for row in made.rows if row.extra["chosen_score"] != row.extra["rejected_score"]]
    data = ra.encoded(list(ra.relabel(some, ra.SCALE)), under_goals=True)
    assert len(data) == 2 * len(some)
    for context, (chosen, rejected) in zip(data.contexts, data.responses, strict=True):
        x, goal = divmod(int(context), ra.ASKED)  # under the goal the chosen hits it, the rejected does not
        assert made.scores[x, int(chosen)] == goal != made.scores[x, int(rejected)]
    assert set(torch.stack(data.contexts)[:, 0].remainder(ra.ASKED).tolist()) <= set(range(1, 11))


def test_goals_keep_good_rejected_answers_and_are_followed(recipe: Any) -> None:
    run = recipe("reward_augmented").run
    plain, goals = run("DPO", 0, passes=0.2), run("DPO-RA", 0, passes=0.2)
    assert plain["log π of good rejected"] < goals["log π of good rejected"]
    assert goals["goal and score"] > 0.2

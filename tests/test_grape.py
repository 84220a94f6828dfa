"""Guided-cost preference generation and trajectory-wise preference optimisation: worked numbers, what a cost may and may not
do, pairs of one task, windows."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from penchant.domains.base import Encoded
from penchant.domains.policy.windows import truncated, windows
from penchant.errors import Refusal
from penchant.feedback.pairing import crossed
from penchant.feedback.trajectories import Trajectory
from penchant.objectives import DPO, Pairs
from penchant.objectives.scored import Scored
from penchant.rewards.base import Context
from penchant.rewards.stages import CODE, PAPER, Guided, StageCosts, external

ALLOWED = ({"collision": 20.0, "grasp": 40.0, "path": 2.0}, {"grasp": 5.0, "path": 2.0}, {"grasp": 10.0, "path": 2.0})
WEIGHTS = {"collision": 0.01, "grasp": 0.01, "path": 0.01}


def episode(steps: int = 4, success: bool = True) -> Trajectory:
    done = np.zeros(steps)
    done[-1] = success
    return Trajectory(np.arange(steps * 2.0).reshape(steps, 2), np.zeros((steps, 1)), info={"success": done})


def costs(**more: Any) -> StageCosts:
    usual: dict[str, Any] = {
        "stages": lambda y: [min(2, i) for i in range(len(y))],
        "costs": lambda y: {name: [1.0] * len(y) for name in WEIGHTS},
        "allowed": ALLOWED,
        "weights": WEIGHTS,
    }
    return StageCosts(**{**usual, **more})


def test_the_external_reward_has_the_worked_numbers():
    assert external([0.2, 0.5, 0.1]) == pytest.approx(0.449329, abs=1e-6)
    spent = [(25.0, 38.0, 7.0), (1.0, 9.0, 0.0), (3.0, 0.0, 4.0)]
    told = [dict(zip(WEIGHTS, x, strict=True)) for x in spent]
    assert external(costs().beyond(told)) == pytest.approx(0.818731, abs=1e-6)


def test_the_score_has_the_worked_numbers_in_both_presets():
    logp = torch.tensor([-1.0, -2.0, -0.5])
    fixed = costs(
        allowed=({},), stages=lambda y: [0] * len(y), weights={"path": 1.0}, costs=lambda y: {"path": [0.2, 0.5, 0.1]}
    )
    for shares, score in ((CODE, 5.414329), (PAPER, 1.969493)):
        assert Guided(fixed, None, shares).score(episode(3), logp) == pytest.approx(score, abs=1e-6)
    floor = Guided(None, None, CODE, least=0.05).score(episode(3), torch.tensor([-1.0, -50.0, -0.5]))
    assert floor == pytest.approx(5 + 0.01 * (-1.5 + math.log(0.05)))


def test_more_cost_never_means_more_reward_and_what_is_allowed_costs_nothing():
    draw = np.random.default_rng(0)
    for _ in range(200):
        spent = [dict(zip(WEIGHTS, draw.uniform(0, 60, 3), strict=True)) for _ in range(3)]
        before = external(costs().beyond(spent))
        stage, name = int(draw.integers(3)), list(WEIGHTS)[int(draw.integers(3))]
        spent[stage][name] += float(draw.uniform(0, 20))
        assert external(costs().beyond(spent)) <= before <= 1
    assert external(costs().beyond([dict(x) | {"collision": x.get("collision", 0.0)} for x in ALLOWED])) == 1


def test_costs_are_summed_over_the_steps_of_each_stage():
    found = costs(allowed=({}, {}, {})).of(episode(5))  # one step in stages 0 and 1, three in 2, each cost 1 a step
    assert found == pytest.approx([0.03, 0.03, 0.09])


def test_a_judge_says_a_number_for_each_episode_and_none_where_success_is_not_told():
    natural = lambda contexts, episodes: [torch.full((len(y),), -0.5) for y in episodes]  # noqa: E731
    judge = Guided(costs(), natural, CODE)
    unknown = Trajectory(np.zeros((2, 2)), np.zeros((2, 1)))
    said = judge([Context("t")] * 3, [episode(), episode(success=False), unknown])
    assert said.valid.tolist() == [True, True, False]
    assert float(said.total[0] - said.total[1]) == pytest.approx(5)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"stages": lambda y: [3] * len(y)}, "stages"),
        ({"stages": lambda y: [0]}, "stages"),
        ({"costs": lambda y: {"path": [0.0] * len(y)}}, "'collision' has a weight"),
        ({"costs": lambda y: {name: [-1.0] * len(y) for name in WEIGHTS}}, "0 or more for each"),
        ({"weights": {"path": -1.0}}, "must be 0 or more"),
        ({"weights": {"path": 1.0}}, "has no weight"),
    ],
)
def test_costs_that_are_none_are_refused(more: dict[str, Any], said: str):
    with pytest.raises(Refusal, match=said):
        costs(**more).of(episode())


def test_the_best_are_crossed_with_the_worst_and_nobody_meets_himself():
    scores = [3.0, 1.0, 5.0, 2.0, 4.0]
    assert [(i, j) for i, j, _ in crossed(scores, 1)] == [(2, 1)]
    two = crossed(scores, 2)
    assert {(i, j) for i, j, _ in two} == {(2, 3), (2, 1), (4, 3), (4, 1)} and all(m > 0 for *_, m in two)
    assert crossed(scores, 9) == two  # five responses have two from either end
    assert crossed([1.0, 1.0], 1) == [] and crossed([1.0], 1) == []
    with pytest.raises(Refusal, match="each=0"):
        crossed(scores, 0)


def rows() -> Encoded:
    steps = lambda n, k: torch.arange(float(n))[:, None] + 100 * k  # noqa: E731
    return Encoded(
        Pairs,
        (torch.tensor([0, 1]), torch.tensor([0, 2])),
        ((steps(4, 0), steps(3, 1)), (steps(2, 2), steps(5, 3))),
        (7, 9),
        {"strength": torch.tensor([1.0, 0.5])},
    )


def test_windows_stand_place_by_place_with_their_rows_number_and_columns():
    cut = windows(rows(), 2)
    assert cut.numbers == (7, 7, 9) and cut.columns["strength"].tolist() == [1.0, 1.0, 0.5]
    assert [[x[:, 0].tolist() for x in ys] for ys in cut.responses] == [
        [[0, 1], [100, 101]],
        [[1, 2], [101, 102]],
        [[200, 201], [300, 301]],
    ]
    assert [len(ys[0]) for ys in truncated(rows()).responses] == [3, 2]
    with pytest.raises(Refusal, match="no pair"):
        windows(rows(), 6)


def test_trajectories_are_not_steps_and_one_step_is_both():
    """The mean of the losses of single steps is not the loss of the sum; with one step they are one."""
    w, l = torch.tensor([[-1.0, -2.0, -0.5]]).double(), torch.tensor([[-1.5, -1.0, -2.5]]).double()
    refs = torch.tensor([[-1.2, -2.5, -0.9]]).double(), torch.tensor([[-1.0, -1.4, -2.0]]).double()
    loss = lambda x, r, y, s: float(  # noqa: E731
        DPO(beta=0.1)(Pairs(*(Scored(a, torch.ones_like(a, dtype=torch.bool), b) for a, b in ((x, r), (y, s))))).mean()
    )
    whole = loss(w, refs[0], l, refs[1])
    single = sum(loss(w[:, i : i + 1], refs[0][:, i : i + 1], l[:, i : i + 1], refs[1][:, i : i + 1]) for i in range(3)) / 3
    assert whole == pytest.approx(0.611755, abs=1e-6) and single == pytest.approx(0.665360, abs=1e-6)

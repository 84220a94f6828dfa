"""Behaviour as data: what a trajectory holds, what it refuses, and what a segment keeps of the whole."""

from __future__ import annotations

import numpy as np
import pytest

from penchant.errors import Refusal
from penchant.feedback.trajectories import Trajectory


def walked(steps: int = 5, **more: object) -> Trajectory:
    x = np.arange(steps * 2, dtype=np.float64).reshape(steps, 2)
    told = {"rewards": np.arange(steps), "final": np.array([99.0, 99.0]), "ended": True} | more
    return Trajectory(x, -x[:, :1], info={"cost": np.ones(steps)}, **told)  # pyright: ignore[reportArgumentType]


def test_a_segment_keeps_what_came_after_its_last_action_and_ends_only_with_the_whole():
    whole = walked()
    early, late = whole[1:3], whole[2:]
    assert early.observations.tolist() == [[2, 3], [4, 5]] and early.actions.tolist() == [[-2], [-4]]
    assert early.final is not None and early.final.tolist() == [6, 7] and not early.ended
    assert late.final is not None and late.final.tolist() == [99, 99] and late.ended
    assert early.rewards is not None and early.rewards.tolist() == [1, 2] and early.info["cost"].tolist() == [1, 1]


def test_the_digest_hangs_on_everything_and_on_nothing_else():
    same = {walked().digest, walked().digest}
    others = {walked(4).digest, walked(rewards=None).digest, walked(final=None).digest, walked(ended=False).digest}
    assert len(same) == 1 and len(same | others) == 5


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"rewards": np.zeros(4)}, "rewards"),
        ({"final": np.zeros(3)}, "final"),
        ({"rewards": np.array([0, 1, np.nan, 0, 0])}, "finite"),
        ({"final": np.array(["a", "b"])}, "numbers"),
    ],
)
def test_what_does_not_fit_together_is_refused(more: dict[str, object], said: str):
    with pytest.raises(Refusal, match=said):
        walked(**more)


def test_there_is_no_trajectory_without_steps():
    with pytest.raises(Refusal, match="at least one"):
        Trajectory(np.zeros((0, 2)), np.zeros((0, 1)))
    with pytest.raises(Refusal, match="no segment"):
        walked()[3:3]

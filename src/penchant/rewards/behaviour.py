"""Judges of behaviour that a simulator's own numbers allow: the return, whether the task was done, how gently. No learned model is
here."""

from __future__ import annotations

from typing import Any

import numpy as np

from penchant.feedback.records import Prompt
from penchant.feedback.trajectories import Trajectory
from penchant.rewards.function import FunctionJudge
from penchant.words import brief

SUCCESS = ("success", "is_success")
"""What simulators call it that a task was done."""


class Return(FunctionJudge):
    """The sum of an episode's rewards, as its simulator gives them."""

    def __init__(self) -> None:
        super().__init__(_return, "return")


class Success(FunctionJudge):
    """1 where the simulator said at any step that the task was done, else 0."""

    def __init__(self) -> None:
        super().__init__(_success, "success")


class Gentle(FunctionJudge):
    """Minus the mean square of all numbers of all actions: 0 is no effort."""

    def __init__(self) -> None:
        super().__init__(_gentle, "gentle")


def _looked(behaviour: Any) -> Trajectory:
    if not isinstance(behaviour, Trajectory):
        raise TypeError(f"{brief(behaviour)} is no trajectory")
    return behaviour


def _return(prompt: Prompt, behaviour: Any) -> float:
    rewards = _looked(behaviour).rewards
    if rewards is None:
        raise ValueError("the trajectory has no rewards")
    return float(rewards.astype(np.float64).sum())


def _success(prompt: Prompt, behaviour: Any) -> float:
    info = _looked(behaviour).info
    name = next((name for name in SUCCESS if name in info), None)
    if name is None:
        raise ValueError(f"its simulator says none of {', '.join(SUCCESS)}")
    return float((info[name] > 0).any())


def _gentle(prompt: Prompt, behaviour: Any) -> float:
    return -float((_looked(behaviour).actions.astype(np.float64) ** 2).mean())

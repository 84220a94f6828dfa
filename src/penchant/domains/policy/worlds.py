"""Simulators by the name of a task: environments of `gymnasium`, and tasks of Meta-World. It acts in none of them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from penchant.errors import Refusal
from penchant.words import brief

Numbers = NDArray[Any]


@runtime_checkable
class World(Protocol):
    """One simulator, all in flat arrays."""

    observed: int
    """Numbers of an observation."""
    acted: int
    """Numbers of an action."""
    choices: int | None
    """How many actions there are to choose from; None where they are numbers."""

    def reset(self, seed: int) -> Numbers:
        """Starts anew; equal seeds start alike. The first observation."""
        ...

    def step(self, action: Numbers) -> tuple[Numbers, float, bool, bool, Mapping[str, Any]]:
        """Observation, reward, whether the episode ended by itself, whether by a limit, and what else is told."""
        ...


def make(task: str) -> World:
    """The simulator of a task: the name of a Meta-World task, as "reach-v3", or the id of a gymnasium environment, as
    "Pendulum-v1". Raises Refusal where there is none of this name, and without gymnasium."""
    gymnasium = the_library()
    if (built := _meta_world(task)) is not None:
        return built
    try:
        with quiet():
            return Gymnasium(gymnasium.make(task))
    except gymnasium.error.Error as error:
        raise Refusal(
            f"the task {brief(task)} is neither one of Meta-World nor an environment of gymnasium: {brief(str(error), 160)}."
        ) from error


class Gymnasium:
    """An environment of gymnasium whose actions are a box of numbers or a choice. Observations are flattened; actions beyond the
    box are put to its bounds."""

    def __init__(self, env: Any) -> None:
        from gymnasium import spaces

        self.env = env
        self._spaces: Any = spaces
        if isinstance(env.action_space, spaces.Discrete):
            self.acted, self.choices, self._first = 1, int(env.action_space.n), int(env.action_space.start)
        elif isinstance(env.action_space, spaces.Box):
            self.acted, self.choices, self._first = int(np.prod(env.action_space.shape)), None, 0
        else:
            raise Refusal(f"the actions of {env} are {brief(env.action_space)}; they must be a Box or Discrete.")
        self.observed = int(spaces.flatdim(env.observation_space))

    def _flat(self, seen: Any) -> Numbers:
        return np.asarray(self._spaces.flatten(self.env.observation_space, seen), dtype=np.float32)

    def reset(self, seed: int) -> Numbers:
        with quiet():
            seen, _ = self.env.reset(seed=seed)
        return self._flat(seen)

    def step(self, action: Numbers) -> tuple[Numbers, float, bool, bool, Mapping[str, Any]]:
        given: Any
        if self.choices is not None:
            given = self._first + int(action[0])
        else:
            box = self.env.action_space
            given = np.clip(action.reshape(box.shape), box.low, box.high).astype(box.dtype)
        with quiet():
            seen, reward, ended, cut, told = self.env.step(given)
        return self._flat(seen), float(reward), bool(ended), bool(cut), told


class MetaWorld:
    """A task of Meta-World with its goal in the observation. It is made without gymnasium's wrappers, whose reset draws
    another goal each time: here the seed decides object and goal."""

    choices: int | None = None

    def __init__(self, task: str, kind: Any) -> None:
        self.env = kind(seed=0)
        self.env._freeze_rand_vec, self.env.seeded_rand_vec = False, True  # else every reset is that of the seed above
        self.observed, self.acted = int(self.env.observation_space.shape[0]), int(self.env.action_space.shape[0])

    def reset(self, seed: int) -> Numbers:
        self.env.seed(seed)
        seen, _ = self.env.reset()
        return np.asarray(seen, dtype=np.float32)

    def step(self, action: Numbers) -> tuple[Numbers, float, bool, bool, Mapping[str, Any]]:
        seen, reward, ended, cut, told = self.env.step(np.clip(action, -1, 1).astype(np.float32))
        return np.asarray(seen, dtype=np.float32), float(reward), bool(ended), bool(cut), told


def _meta_world(task: str) -> MetaWorld | None:
    if not task.endswith("-v3") or "/" in task:
        return None
    try:
        from metaworld.env_dict import ALL_V3_ENVIRONMENTS_GOAL_OBSERVABLE as KNOWN
    except ImportError:
        return None
    kind = KNOWN.get(f"{task}-goal-observable")
    return None if kind is None else MetaWorld(task, kind)


def the_library() -> Any:
    """`gymnasium`, or a sentence that says how to have it."""
    try:
        import gymnasium
    except ImportError:
        raise Refusal('rollouts need gymnasium: pip install "penchant[embodied]".') from None
    return gymnasium


@contextmanager
def quiet() -> Iterator[None]:
    """Without the warnings that gymnasium's checks give of environments that are not ours to mend."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield

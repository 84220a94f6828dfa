"""An agent in a simulator, step by step: what it did goes into a memory, whole episodes come out as trajectories. How it learns is
its learner's affair; `practise` is the plain case, by the simulator's own reward."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from penchant.control.critics import contexts_of
from penchant.control.sac import SAC
from penchant.control.transitions import Memory, Transitions
from penchant.domains.policy.policy import ControlPolicy
from penchant.domains.policy.worlds import World
from penchant.errors import Refusal
from penchant.feedback.trajectories import Trajectory

Doing = Callable[[Tensor], Tensor]
"""Gives an action [acted] in (−1, 1) for an observation [observed]."""


class Living:
    """Steps through one episode after the other. Actions in (−1, 1) are stretched to `most`, the bound of the simulator's own."""

    def __init__(self, world: World, limit: int, seed: int = 0, most: float = 1.0) -> None:
        """limit: steps of an episode, at most; reaching it ends no value."""
        if limit < 1 or not most > 0:
            raise Refusal(f"limit={limit}, most={most}: an episode has at least one step, and actions a bound above 0.")
        self.world, self.limit, self.most = world, limit, most
        self._draw = np.random.default_rng(seed)
        self.lived: list[Trajectory] = []
        """The episodes that are over."""
        self._begin()

    @property
    def returns(self) -> list[float]:
        """What the simulator says was earned in each episode that is over."""
        return [float(x.rewards.astype(np.float64).sum()) for x in self.lived if x.rewards is not None]

    def _begin(self) -> None:
        self._seen: NDArray[np.float32] = np.asarray(self.world.reset(int(self._draw.integers(2**31 - 1))), np.float32)
        self._steps: list[tuple[NDArray[np.float32], NDArray[np.float32], float, float]] = []

    def step(self, doing: Doing) -> Transitions:
        """One step."""
        act = doing(torch.from_numpy(self._seen))
        after, reward, ended, cut, told = self.world.step(act.numpy() * np.float32(self.most))
        after = np.asarray(after, np.float32)
        self._steps.append((self._seen, act.numpy(), reward, float(told.get("success", 0.0))))
        found = Transitions(
            torch.from_numpy(self._seen)[None], act[None], torch.tensor([reward]), torch.from_numpy(after)[None],
            torch.tensor([ended]),
        )  # fmt: skip
        self._seen = after
        if ended or cut or len(self._steps) >= self.limit:
            seen, acts, rewards, success = (np.array(x) for x in zip(*self._steps, strict=True))
            self.lived.append(Trajectory(seen, acts, rewards, after, ended, {"success": success}))
            self._begin()
        return found


def acting(policy: ControlPolicy, noise: torch.Generator, temperature: float = 1.0) -> Doing:
    """What the policy does, drawn with this noise."""
    assert policy.actions is not None
    drawn = policy.actions.noise
    return lambda seen: policy.act(contexts_of(1), seen[None], drawn(noise)[None], temperature)[0]


def wandering(acted: int, noise: torch.Generator) -> Doing:
    """Any action, all alike."""
    return lambda seen: 2 * torch.rand(acted, generator=noise) - 1


def practise(living: Living, learner: SAC, memory: Memory, steps: int, first: int, batch: int = 256, seed: int = 0) -> None:
    """Soft actor-critic by the simulator's own reward: `first` steps of any action, then one update for each step."""
    noise = torch.Generator().manual_seed(seed)
    doing, wander = acting(learner.policy, noise), wandering(learner.policy.acted, noise)
    for step in range(steps):
        memory.add(living.step(wander if step < first else doing))
        if step >= first:
            learner.update(memory.sample(batch))

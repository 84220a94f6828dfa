"""Episodes of a policy in simulators, several at once: one forward pass for all that go on. Every random number hangs on seed,
row and place alone; nothing is scored or judged here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from penchant.domains.policy.policy import ControlPolicy
from penchant.domains.policy.tasks import ANYWHERE
from penchant.domains.policy.worlds import World
from penchant.errors import Refusal
from penchant.feedback.trajectories import Trajectory
from penchant.files import fingerprint

MAKING = Callable[[str], World]
"""Gives the simulator of a task."""


@dataclass
class _Episode:
    """One that is under way."""

    world: World
    context: Tensor
    noise: torch.Generator
    seen: NDArray[np.float32]
    observations: list[NDArray[np.float32]] = field(default_factory=list)
    actions: list[NDArray[np.float32]] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)
    told: dict[str, list[float]] = field(default_factory=dict)
    ended: bool = False
    over: bool = False

    def step(self, action: NDArray[np.float32]) -> None:
        self.observations.append(self.seen)
        self.actions.append(action)
        self.seen, reward, self.ended, cut, told = self.world.step(action)
        self.rewards.append(reward)
        for name, x in told.items():
            if isinstance(x, bool | int | float | np.number | np.bool_):
                self.told.setdefault(name, []).append(float(x))
        self.over = self.ended or cut

    def whole(self) -> Trajectory:
        steps = len(self.actions)
        info = {name: np.array(x) for name, x in self.told.items() if len(x) == steps}
        rewards = np.array(self.rewards)
        return Trajectory(np.stack(self.observations), np.stack(self.actions), rewards, self.seen, self.ended, info)


class Stage:
    """Simulators that are kept from one call to the next: making one can take a second."""

    def __init__(self, make: MAKING, at_once: int = 16) -> None:
        """at_once: episodes that go on together, each in a simulator of its own."""
        if at_once < 1:
            raise Refusal(f"at_once={at_once}: at least one episode must go on.")
        self._make, self.at_once = make, at_once
        self._free: dict[str, list[World]] = {}

    def take(self, task: str) -> World:
        free = self._free.setdefault(task, [])
        return free.pop() if free else self._make(task)

    def give_back(self, task: str, world: World) -> None:
        self._free.setdefault(task, []).append(world)

    def episodes(
        self,
        policy: ControlPolicy,
        contexts: Sequence[Tensor],
        count: int,
        limit: int,
        seed: int,
        temperature: float = 1.0,
    ) -> list[Trajectory]:
        """`count` episodes for each context, row after row, each of at most `limit` steps. All of a row start alike, so that one
        can be preferred to another: as the context's own seed says, or without one as (seed, row) does. The policy's noise
        hangs on (seed, row, place)."""
        if policy.actions is None:
            raise Refusal("this is a reward model, which does nothing; only a policy acts.")
        actor = policy.acting()
        todo = [(row, k) for row in range(len(contexts)) for k in range(count)]
        done: dict[tuple[int, int], Trajectory] = {}
        going: dict[tuple[int, int], _Episode] = {}
        while todo or going:
            while todo and len(going) < self.at_once:
                place = todo.pop(0)
                going[place] = self._begin(policy, contexts[place[0]], seed, place)
            some = list(going.values())
            noise = torch.stack([policy.actions.noise(one.noise) for one in some])
            seen = torch.from_numpy(np.stack([one.seen for one in some]))
            acts = actor.act(torch.stack([one.context for one in some]), seen, noise, temperature).numpy()
            for place, action in zip(list(going), acts, strict=True):
                one = going[place]
                one.step(action)
                if one.over or len(one.actions) >= limit:
                    done[place] = one.whole()
                    self.give_back(policy.tasks[int(one.context[0])], one.world)
                    del going[place]
        return [done[row, k] for row in range(len(contexts)) for k in range(count)]

    def _begin(self, policy: ControlPolicy, context: Tensor, seed: int, place: tuple[int, int]) -> _Episode:
        task = policy.tasks[int(context[0])]
        world = self.take(task)
        if (world.observed, world.acted) != (policy.observed, policy.acted):
            raise Refusal(
                f"the task {task!r} has observations of {world.observed} and actions of {world.acted} numbers, but the policy "
                f"reads {policy.observed} and acts with {policy.acted}."
            )
        begins, drawn = fingerprint(f"start {seed} {place[0]}"), fingerprint(f"rollout {seed} {place[0]} {place[1]}")
        start = int(context[1]) if int(context[1]) != ANYWHERE else int(begins[:7], 16)
        generator = torch.Generator().manual_seed(int(drawn[8:23], 16))
        return _Episode(world, context, generator, world.reset(start))

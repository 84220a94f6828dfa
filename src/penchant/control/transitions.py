"""Steps of behaviour as reinforcement learning reads them, and a memory of them whose rewards can be told anew. It acts in no world
and learns nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from penchant.errors import Refusal
from penchant.feedback.trajectories import Trajectory

Told = Callable[[Tensor, Tensor], Tensor]
"""A reward of observations [n, observed] and actions [n, acted]: [n]."""


@dataclass(frozen=True, eq=False)
class Transitions:
    """n steps, one after the other or by chance."""

    observations: Float[Tensor, "n observed"]
    actions: Float[Tensor, "n acted"]
    rewards: Float[Tensor, "n"]
    after: Float[Tensor, "n observed"]
    """What was seen next; not read where the episode ended."""
    ended: Bool[Tensor, "n"]
    """Whether nothing can be earned afterwards (terminated). A time limit ends no value: what comes after it is estimated."""

    def __len__(self) -> int:
        return len(self.ended)

    def __getitem__(self, rows: Tensor | slice) -> Transitions:
        return Transitions(*(getattr(self, field.name)[rows] for field in fields(self)))

    def told(self, reward: Told, at_once: int = 4096) -> Transitions:
        """The same steps with another reward."""
        parts = [self[i : i + at_once] for i in range(0, len(self), at_once)]
        with torch.no_grad():
            said = [reward(part.observations, part.actions).to(self.rewards) for part in parts]
        return replace(self, rewards=torch.cat(said) if said else self.rewards)


def transitions_of(behaviour: Sequence[Trajectory]) -> Transitions:
    """Trajectories as steps. The last step of one whose episode did not end, and of which nobody kept what was seen next, is left
    out: its value cannot be told. Rewards are 0 where none are known."""
    found: list[Transitions] = []
    for one in behaviour:
        seen = torch.from_numpy(one.observations)
        last = torch.zeros_like(seen[:1]) if one.final is None else torch.from_numpy(one.final)[None]
        ended = torch.zeros(len(one), dtype=torch.bool)
        ended[-1] = one.ended
        earned = torch.zeros(len(one)) if one.rewards is None else torch.from_numpy(one.rewards)
        whole = Transitions(seen, torch.from_numpy(one.actions), earned, torch.cat([seen[1:], last]), ended)
        found.append(whole if one.final is not None or one.ended else whole[: len(one) - 1])
    if not found:
        raise Refusal("there are no trajectories, so there are no steps.")
    return Transitions(*(torch.cat([getattr(part, field.name) for part in found]) for field in fields(Transitions)))


class Memory:
    """The last `capacity` steps."""

    def __init__(self, observed: int, acted: int, capacity: int, seed: int = 0) -> None:
        if capacity < 1:
            raise Refusal(f"capacity={capacity}: at least one step must be kept.")
        self.capacity, self._next, self._full = capacity, 0, False
        widths = {"observations": (observed,), "actions": (acted,), "rewards": (), "after": (observed,)}
        kept = {name: torch.zeros(capacity, *width) for name, width in widths.items()}
        self._kept = Transitions(**kept, ended=torch.zeros(capacity, dtype=torch.bool))
        self._draw = torch.Generator().manual_seed(seed)

    def __len__(self) -> int:
        return self.capacity if self._full else self._next

    @property
    def all(self) -> Transitions:
        return self._kept[: len(self)]

    def add(self, some: Transitions) -> None:
        """Keeps these steps, in the place of the oldest where it is full."""
        for i in range(len(some)):
            for field in fields(Transitions):
                getattr(self._kept, field.name)[self._next] = getattr(some, field.name)[i]
            self._next = (self._next + 1) % self.capacity
            self._full = self._full or self._next == 0

    def sample(self, count: int) -> Transitions:
        """So many steps by chance, with replacement."""
        if not len(self):
            raise Refusal("nothing is remembered yet, so nothing can be drawn.")
        return self._kept[torch.randint(len(self), (count,), generator=self._draw)]

    def relabel(self, reward: Told) -> None:
        """Tells the reward of every step anew: what was said by an older reward is stale."""
        self._kept.rewards[: len(self)] = self.all.told(reward).rewards

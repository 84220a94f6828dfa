"""What somebody did, step by step: observations, actions, and what came of them. It says nothing of which behaviour was preferred,
and knows no policy and no simulator."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from penchant.errors import Refusal

Numbers = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Trajectory:
    """T steps of behaviour, a whole episode or a segment of one. Raises Refusal where shapes do not agree, there is no step, or a
    number is not finite."""

    observations: Numbers
    """What was seen before each action, float32 [T, observed]."""
    actions: Numbers
    """What was done then, float32 [T, acted]; of a choice among some its number, [T, 1]."""
    rewards: Numbers | None = None
    """What was earned by each action, float32 [T]: for teachers and measurements; no method of preferences learns from it."""
    final: Numbers | None = None
    """What was seen after the last action, float32 [observed]; None where nobody kept it."""
    ended: bool = False
    """Whether the episode ended with the last action by itself (terminated), not by a time limit or a cut."""
    info: Mapping[str, Numbers] = field(default_factory=dict)
    """What else was told of each step, by name, float32 [T]: success, a cost, a distance."""

    def __post_init__(self) -> None:
        for name in ("observations", "actions", "rewards", "final"):
            given = getattr(self, name)
            if given is not None:
                object.__setattr__(self, name, _numbers(name, given))
        object.__setattr__(self, "info", {name: _numbers(f"info {name!r}", x) for name, x in self.info.items()})
        steps = len(self.observations) if self.observations.ndim == 2 else 0
        if self.actions.ndim != 2 or len(self.actions) != steps or not steps:
            raise Refusal(
                f"observations {list(self.observations.shape)} and actions {list(self.actions.shape)}: they must be [steps, "
                "observed] and [steps, acted] with as many steps, at least one."
            )
        for name, x in (("rewards", self.rewards), *((f"info {name!r}", x) for name, x in self.info.items())):
            if x is not None and x.shape != (steps,):
                raise Refusal(f"{name} {list(x.shape)}: there must be one number for each of the {steps} steps.")
        if self.final is not None and self.final.shape != self.observations.shape[1:]:
            raise Refusal(
                f"final {list(self.final.shape)}: it must be one observation, {list(self.observations.shape[1:])}."
            )

    def __len__(self) -> int:
        return len(self.observations)

    def __getitem__(self, steps: slice) -> Trajectory:
        """The segment of these steps, in order. What was seen after its last action is kept where it is known; it has ended where
        the whole has, and reaches its end."""
        start, stop, stride = steps.indices(len(self))
        if stride != 1 or stop <= start:
            raise Refusal(f"{steps} takes no segment of {len(self)} steps.")
        cut = slice(start, stop)
        return Trajectory(
            self.observations[cut],
            self.actions[cut],
            None if self.rewards is None else self.rewards[cut],
            self.final if stop == len(self) else self.observations[stop],
            self.ended and stop == len(self),
            {name: x[cut] for name, x in self.info.items()},
        )

    @property
    def digest(self) -> str:
        """16 digits of the SHA-256 of everything in it."""
        found = hashlib.sha256(f"{self.observations.shape} {self.actions.shape} {self.ended} ".encode())
        named = {"observations": self.observations, "actions": self.actions, "rewards": self.rewards, "final": self.final}
        for name, x in (*named.items(), *sorted(self.info.items())):
            found.update(f"{name} {x is not None} ".encode())
            found.update(b"" if x is None else np.ascontiguousarray(x).tobytes())
        return found.hexdigest()[:16]


def _numbers(name: str, given: Numbers) -> Numbers:
    x = np.asarray(given)
    if x.dtype.kind not in "fiub":
        raise Refusal(f"{name}: they are {x.dtype}; they must be numbers.")
    with np.errstate(over="ignore"):  # what is too large becomes infinite, and is refused as that
        x = x.astype(np.float32)
    if not bool(np.isfinite(x).all()):
        raise Refusal(f"{name}: not every number is finite.")
    return x

"""A policy of an agent as the subject of a run: how it is loaded, where it acts, and what is shown of it. The stages of a run
are in align.py."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import set_seed

from penchant.domains.policy import actions, domain, policy
from penchant.domains.policy.domain import Behaviour
from penchant.domains.policy.policy import MLP, ControlPolicy, built
from penchant.domains.policy.rollouts import Stage
from penchant.domains.policy.worlds import make
from penchant.engine.precision import Precision
from penchant.engine.settings import Settings
from penchant.engine.sources import Anchors
from penchant.engine.spread import Spread
from penchant.errors import Refusal
from penchant.feedback.behaviour import Archive, open_trajectories, to_bytes
from penchant.feedback.reading import Source
from penchant.feedback.trajectories import Trajectory
from penchant.files import fingerprint
from penchant.objectives.base import Objective
from penchant.rewards.base import Comparer, Judge
from penchant.running import choices
from penchant.running.beside import Beside
from penchant.running.consistent import ADAPTED, PICTURES, TEXTS, only
from penchant.running.demos import behaviour as demo_behaviour
from penchant.running.measure import Measure, reference_cache
from penchant.running.subject import Prepared

HIDDEN = (128, 128)
"""Widths of a new reward model's layers."""


@dataclass(frozen=True, eq=False)
class Loaded:
    """A policy ready to be aligned, or a reward model of its behaviour."""

    policy: ControlPolicy
    domain: Behaviour
    source: dict[str, Any]
    """name, tasks, fingerprint (of weights and of what they are)."""


class Acting(Beside):
    """A policy that acts in simulators."""

    made = "behaviour"
    judged = (
        "behaviour is judged by return, success, gentle, or a module:function of your own, (prompt, trajectory) → score."
    )

    def __init__(self, name: str, objective: Objective, settings: Settings, spread: Spread) -> None:
        super().__init__(name, objective, settings, spread)
        only(settings, (*TEXTS, *PICTURES, *ADAPTED, "top_p"), "a policy of an agent")
        self._stage = Stage(make)

    def load(self) -> Loaded:
        """The policy as the run starts it; the same at every call, or a refusal. For an objective that trains a reward model,
        a new one of what the policy sees and does, or the one of this name, which is then trained further."""
        set_seed(self.settings.seed)
        found = policy.load(self.name)
        if self.objective.needs.head == "reward" and found.head == "lm":
            fresh = built(found.observed, None, found.acted, found.tasks, HIDDEN)
            fresh.mean.copy_(found.mean)
            fresh.std.copy_(found.std)
            found = fresh
        elif self.objective.needs.head != found.head:
            raise Refusal(f"{self.name!r} is a reward model, which does nothing; {self.objective!r} trains a policy.")
        tensors = found.state_dict()
        told = [f"{name} {tuple(x.shape)} " for name, x in tensors.items()]
        told += [str(found.tasks), str(found.actions.told() if found.actions is not None else None)]
        told += [found.network.activation if isinstance(found.network, MLP) else ""]
        made = fingerprint("".join(told), *(x.numpy().tobytes() for x in tensors.values()))
        self.unchanged(made)
        found.to(self.device)
        view = Behaviour(found, opened=self.open, stage=self._stage)
        return Loaded(found, view, {"name": self.name, "tasks": list(found.tasks), "fingerprint": made})

    def identity(self, loaded: Loaded) -> dict[str, Any]:
        """Nothing besides."""
        return {}

    def read(self, loaded: Loaded, rows: Any) -> tuple[Source, Archive]:
        rows = demo_behaviour(self.name) if rows == policy.DEMO else rows
        return open_trajectories(rows, bad_rows=self.settings.bad_rows)

    # --- how it computes

    def choose(self, loaded: Loaded, prepared: Prepared, spread: Spread) -> dict[str, Any]:
        """Besides what all choose: how many episodes go on at once. Number format: float32 unless another is asked for, since
        a policy is small, and means rounded to bf16 would move its actions."""
        settings = self.settings
        if settings.precision == "auto":
            settings = settings.model_copy(update={"precision": "fp32"})
        told = {"tasks": list(loaded.policy.tasks), "episodes_at_once": self._stage.at_once}
        return choices.choose(loaded, settings, spread, lambda _: {"behaviour": told})

    def follow(self, chosen: Mapping[str, Any], loaded: Loaded) -> tuple[Precision, str]:
        precision = choices.follow(chosen)
        known = (
            "r(observation, action), summed over steps"
            if loaded.policy.head == "reward"
            else "Σ log π(action | observation)"
        )
        return precision, choices.line(chosen, precision, f"tasks {', '.join(loaded.policy.tasks)}; {known}")

    # --- what it is held against, and who judges it

    def reference(self, loaded: Loaded) -> Callable[[], AbstractContextManager[None]] | None:
        return None

    def cache(self, loaded: Loaded, precision: Precision, device: torch.device) -> Path:
        return reference_cache(loaded.source["fingerprint"], precision, device, None, (actions, domain, policy))

    def measure(
        self, anchors: Anchors, judge: Judge | Comparer | None, guard: Judge | None, loaded: Loaded, prepared: Prepared
    ) -> Measure:
        return Measure(anchors, self.objective, self.settings, judge, guard=guard, pictured=Plan(loaded.policy))

    def written(self) -> Callable[[Any], bytes]:
        return to_bytes


WIDE, HIGH, EDGE = 176, 132, 8
"""Of a picture of an episode, in pixels."""


class Plan:
    """An episode seen from above: its way through the two observed numbers that move most in the first episode shown, on the same
    scale for all, growing darker; a ring where it starts, a disc where it ends, filled where its task was done."""

    def __init__(self, seen_by: ControlPolicy) -> None:
        self._low = (seen_by.mean - 3 * seen_by.std).tolist()
        self._high = (seen_by.mean + 3 * seen_by.std).tolist()
        self._axes: tuple[int, int] | None = None

    def __call__(self, episode: Trajectory) -> str:
        if self._axes is None:
            scale = torch.tensor(self._high) - torch.tensor(self._low)
            moves = torch.from_numpy(episode.observations).std(0, correction=0) / scale
            first, second = moves.topk(min(2, len(moves))).indices.tolist() if len(moves) > 1 else (0, 0)
            self._axes = (min(first, second), max(first, second))
        x, y = self._axes
        points = [(self._at(row[x], x, WIDE), HIGH - self._at(row[y], y, HIGH)) for row in episode.observations.tolist()]
        done = any((episode.info[name] > 0).any() for name in ("success", "is_success") if name in episode.info)
        lines = [
            f'<path d="M{a[0]:.1f} {a[1]:.1f}L{b[0]:.1f} {b[1]:.1f}" stroke-opacity="{0.25 + 0.75 * i / len(points):.2f}"/>'
            for i, (a, b) in enumerate(pairwise(points))
        ]
        start, end = points[0], points[-1]
        drawn = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDE} {HIGH}" width="{WIDE}" height="{HIGH}" '
            f'fill="none" stroke="#0072b2" stroke-width="2" stroke-linecap="round">{"".join(lines)}'
            f'<circle cx="{start[0]:.1f}" cy="{start[1]:.1f}" r="4" stroke="#8d95a0"/>'
            f'<circle cx="{end[0]:.1f}" cy="{end[1]:.1f}" r="4" stroke="#c4550a" fill="{"#c4550a" if done else "none"}"/></svg>'
        )
        return f"data:image/svg+xml;base64,{base64.b64encode(drawn.encode()).decode()}"

    def _at(self, value: float, axis: int, size: int) -> float:
        share = (value - self._low[axis]) / (self._high[axis] - self._low[axis])
        return EDGE + min(max(share, 0.0), 1.0) * (size - 2 * EDGE)

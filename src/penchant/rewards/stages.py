"""How good an episode is by its stages: what each stage cost beyond what is allowed, whether the task was done, and how natural the
episode was to the policy that drew it. Where stages lie and what costs is the user's to say; nothing is learned here."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from penchant.errors import Refusal
from penchant.feedback.trajectories import Trajectory
from penchant.rewards.base import Context, Judgement
from penchant.rewards.behaviour import Success
from penchant.words import brief

Stages = Callable[[Trajectory], Sequence[int]]
"""The stage of every step, from 0."""
Costs = Callable[[Trajectory], Mapping[str, Sequence[float]]]
"""What every step cost, by name, 0 or more: collision, grasp, path."""
Natural = Callable[[Sequence[Context], Sequence[Trajectory]], Sequence[Tensor]]
"""log π of every step, [T] each, under the policy that drew the episode."""
LEAST = 0.05
"""Below this no step's probability is counted in the authors' code."""


@dataclass(frozen=True)
class StageCosts:
    """R_ext = exp(−Σ_i C_i),  C_i = Σ_c b_c max(0, cost_ic − τ_ic)        GRAPE, Zhang et al. 2024, arXiv 2411.19309; the
    thresholds as in the authors' code, where the other form (a product of 1 − Σ α max(…)) may change its sign and is not used.

    cost_ic is the sum of cost c over the steps that were spent in stage i. A lower τ for collisions aims at safety, for path at
    efficiency."""

    stages: Stages
    costs: Costs
    allowed: tuple[Mapping[str, float], ...]
    """τ: for each stage, by cost. A cost that a stage does not name is allowed nothing."""
    weights: Mapping[str, float]
    """b, by cost."""

    def __post_init__(self) -> None:
        for name, value in (*self.weights.items(), *(pair for stage in self.allowed for pair in stage.items())):
            if not (math.isfinite(value) and value >= 0):
                raise Refusal(f"the weight or allowance of {name!r} is {value}; it must be 0 or more.")
        if unknown := {name for stage in self.allowed for name in stage} - set(self.weights):
            raise Refusal(f"the cost {min(unknown)!r} is allowed something but has no weight.")

    def of(self, episode: Trajectory) -> list[float]:
        """C_i of every stage. Raises Refusal for stages that are none, and for costs that are negative or not told of every
        step."""
        where, told = list(self.stages(episode)), self.costs(episode)
        if len(where) != len(episode) or not all(0 <= i < len(self.allowed) for i in where):
            raise Refusal(
                f"stages {brief(where)}: there must be one of {len(self.allowed)} for each of {len(episode)} steps."
            )
        if missing := set(self.weights) - set(told):
            raise Refusal(f"the cost {min(missing)!r} has a weight, but the episode has only {', '.join(sorted(told))}.")
        spent = [dict.fromkeys(self.weights, 0.0) for _ in self.allowed]
        for name in self.weights:
            if len(told[name]) != len(episode) or not all(x >= 0 for x in told[name]):
                raise Refusal(f"the cost {name!r} must be a number of 0 or more for each of {len(episode)} steps.")
            for i, x in zip(where, told[name], strict=True):
                spent[i][name] += float(x)
        return self.beyond(spent)

    def beyond(self, spent: Sequence[Mapping[str, float]]) -> list[float]:
        """C_i of what was spent in every stage, by cost."""
        pairs = zip(spent, self.allowed, strict=True)
        return [sum(b * max(0.0, s[name] - a.get(name, 0.0)) for name, b in self.weights.items()) for s, a in pairs]


def external(costs: Sequence[float]) -> float:
    """R_ext of the stages' costs: their product as exp(−Σ C_i), 1 where nothing was spent beyond what is allowed."""
    return math.exp(-math.fsum(costs))


@dataclass(frozen=True)
class Shares:
    """λ: what the three parts of the score count. They should contribute comparably, so they hang on task and length."""

    natural: float
    costs: float
    success: float


PAPER, CODE = Shares(0.01, 0.01, 2.0), Shares(0.01, 1.0, 5.0)
"""Those of the paper's appendix, and of the authors' code."""


@dataclass(frozen=True)
class Guided:
    """R = λ1 Σ log π(a | o) + λ2 R_ext + λ3 [success]        GRAPE, arXiv 2411.19309, guided-cost preference generation: a judge of
    episodes."""

    costs: StageCosts | None
    """None leaves R_ext out."""
    natural: Natural | None
    """None leaves log π out."""
    shares: Shares = PAPER
    least: float | None = None
    """No step's probability counts below it: 0.05 in the authors' code, None in the paper. Of densities, which may be above 1,
    it is read alike."""
    name: str = "guided"

    def score(self, episode: Trajectory, logp: Tensor | None) -> float:
        """R of one episode. logp: of every step, [T]."""
        total = self.shares.success * Success().score("", episode) if self.shares.success else 0.0
        if self.costs is not None:
            total += self.shares.costs * external(self.costs.of(episode))
        if logp is not None:
            said = logp.double() if self.least is None else logp.double().clamp_min(math.log(self.least))
            total += self.shares.natural * float(said.sum())
        return total

    def __call__(self, contexts: Sequence[Context], responses: Sequence[Any]) -> Judgement:
        """One number for each episode, NaN and not valid where the simulator tells of no success."""
        told: Sequence[Tensor | None] = [None] * len(responses)
        if self.natural is not None:
            told = self.natural(contexts, responses)
        scores = [self.score(one, logp) for one, logp in zip(responses, told, strict=True)]
        reward = torch.tensor(scores, dtype=torch.float32).reshape(len(responses), 1)
        return Judgement(reward, torch.isfinite(reward[:, 0]), (self.name,))

"""Inverse preference learning: critics learn from preferences themselves, because the reward that makes them right can be read off
them. No reward model is in it."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from jaxtyping import Float
from torch import Tensor

from penchant.control.critics import follow
from penchant.control.iql import Expectiles, IQLSettings
from penchant.control.transitions import Transitions, transitions_of
from penchant.domains.policy.policy import ControlPolicy
from penchant.errors import Refusal
from penchant.feedback.trajectories import Trajectory
from penchant.objectives.base import Paired
from penchant.objectives.bradley_terry import BradleyTerry
from penchant.rewards.learned import loss_of


@dataclass(frozen=True)
class IPLSettings(IQLSettings):
    """Hejna & Sadigh 2023, arXiv 2305.15363; jhejna/inverse-preference-learning, ipl_iql.py."""

    regular: float = 0.5
    """c: how strongly implied rewards are drawn to 0. 3 in the authors' files for Meta-World."""
    replay: float = 0.5
    """The weight of further steps against those of segments in the regulariser, in [0, 1]."""
    bound: bool = True
    """Whether V(o′) is held within ±1 / (c (1 − γ)), which the regulariser implies; so in the authors' code."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.regular > 0 or not 0 <= self.replay <= 1:
            raise Refusal(f"regular={self.regular}, replay={self.replay}: the first is above 0, the second in [0, 1].")


@dataclass(frozen=True, eq=False)
class Compared:
    """Pairs of segments of one length, step by step: `pairs` × 2 × `steps` transitions, the first segment of each pair first."""

    steps: Transitions
    preferred: Float[Tensor, "pairs"]
    """P(the first is preferred)."""

    def __post_init__(self) -> None:
        if not len(self.preferred) or len(self.steps) % (2 * len(self.preferred)):
            raise Refusal(f"{len(self.steps)} steps for {len(self.preferred)} pairs: segments must be of one length.")

    def __len__(self) -> int:
        return len(self.preferred)

    def __getitem__(self, rows: Tensor) -> Compared:
        each = len(self.steps) // len(self)
        places = (rows[:, None] * each + torch.arange(each)).flatten()
        return Compared(self.steps[places], self.preferred[rows])


def compared(first: list[Trajectory], second: list[Trajectory], preferred: Float[Tensor, "pairs"]) -> Compared:
    """Pairs of segments whose every step knows what was seen next. Raises Refusal where one does not, or lengths differ."""
    both = [one for pair in zip(first, second, strict=True) for one in pair]
    for i, one in enumerate(both):
        if len(one) != len(both[0]) or (one.final is None and not one.ended):
            raise Refusal(
                f"pair {i // 2 + 1}: a segment of {len(one)} steps beside one of {len(both[0])}, or without what was seen after "
                "its last action; both segments of every pair need as many steps, and what came after."
            )
    return Compared(transitions_of(both), preferred)


def implied(quality: Float[Tensor, "critics n"], later: Float[Tensor, "n"], discount: float) -> Float[Tensor, "critics n"]:
    """r̂(o, a, o′) = Q(o, a) − γ V(o′): the reward under which these critics are right."""
    return quality - discount * later


def preference_loss(
    rewards: Float[Tensor, "critics pairs two steps"], preferred: Float[Tensor, "pairs"], objective: Paired
) -> Float[Tensor, ""]:
    """The mean over critics and pairs of −log P(what was preferred), by sums of implied rewards."""
    sums = rewards.sum(-1)
    return torch.stack([loss_of(objective, one[:, 0], one[:, 1], preferred).mean() for one in sums]).mean()


class IPL(Expectiles):
    """With r̂ = Q(o, a) − γ (1 − ended) V(o′), V(o′) without gradient:

    critics   −log σ(Σ r̂ of the preferred − Σ r̂ of the other) + c mean r̂²
    value, policy   as in implicit Q-learning
    """

    def __init__(
        self,
        policy: ControlPolicy,
        settings: IPLSettings = IPLSettings(),
        objective: Paired = BradleyTerry(strength=True),  # noqa: B008
        seed: int = 0,
    ) -> None:
        super().__init__(policy, settings, seed)
        self.ipl, self.objective = settings, objective

    def rewards(self, some: Transitions) -> Float[Tensor, "critics n"]:
        """r̂ of every step."""
        later = self.later(some)
        if self.ipl.bound:
            most = 1 / (self.ipl.regular * (1 - self.ipl.discount))
            later = later.clamp(-most, most)
        return implied(self.quality(some), later, self.ipl.discount)

    def of_critics(self, pairs: Compared, more: Transitions | None = None) -> tuple[Tensor, Tensor]:
        """The critics' loss on preferences, and its regulariser."""
        rewards = self.rewards(pairs.steps)
        told = preference_loss(rewards.unflatten(1, (len(pairs), 2, -1)), pairs.preferred, self.objective)
        square = (rewards**2).mean()
        if more is not None:
            square = (1 - self.ipl.replay) * square + self.ipl.replay * (self.rewards(more) ** 2).mean()
        return told, self.ipl.regular * square

    def update(self, pairs: Compared, more: Transitions | None = None) -> dict[str, float]:
        """One step of value, critics and policy, in this order. more: steps that nobody compared.
        Value and policy learn from all steps alike."""
        every = pairs.steps if more is None else joined(pairs.steps, more)
        of_value = self.step["value"](self.of_value(every))
        told, regular = self.of_critics(pairs, more)
        self.step["critics"](told + regular)
        of_policy = self.step["policy"](self.of_policy(every))
        follow(self.targets, self.critics, self.settings.tau)
        return {
            "value": of_value,
            "preferences": float(told.detach()),
            "regular": float(regular.detach()),
            "policy": of_policy,
        }


def joined(one: Transitions, other: Transitions) -> Transitions:
    """The steps of both, one after the other."""
    return Transitions(*(torch.cat([getattr(one, x.name), getattr(other, x.name)]) for x in fields(Transitions)))

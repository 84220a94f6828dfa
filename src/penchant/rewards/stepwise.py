"""Models of the reward of each step, from which a segment's score is made: what all have in common, and the ensemble of small
networks that PEBBLE uses. How they learn from preferences stands in learned.py."""

from __future__ import annotations

from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from penchant.domains.policy.policy import MLP
from penchant.errors import Refusal
from penchant.rewards.steps import Steps

Pooled = Literal["sum", "mean", "last"]
"""What of the steps' rewards a segment's score is: their sum (B-Pref, IPL, CPL), their mean, or the last alone."""


def pooled(
    rewards: Float[Tensor, "*members n steps"], mask: Bool[Tensor, "n steps"], by: Pooled
) -> Float[Tensor, "*members n"]:
    """The scores of segments by their steps' rewards; steps outside a segment are not read."""
    there = torch.where(mask, rewards, 0.0)
    lengths = mask.sum(-1)
    if by == "last":
        return there.gather(-1, (lengths - 1).clamp_min(0).expand(rewards.shape[:-1])[..., None])[..., 0]
    return there.sum(-1) if by == "sum" else there.sum(-1) / lengths.clamp_min(1)


class StepRewards(nn.Module):
    """One or several models of r(observation, action), and of what segments are worth by them."""

    kind: str
    members: int = 1
    observed: int
    acted: int
    mean: Tensor
    std: Tensor

    def __init__(self, observed: int, acted: int) -> None:
        super().__init__()
        self.observed, self.acted = observed, acted
        self.register_buffer("mean", torch.zeros(observed))
        self.register_buffer("std", torch.ones(observed))

    def normalise(self, steps: Steps, least: float = 1e-2) -> None:
        """From now on observations are read less their mean here, over their standard deviation (at least `least`)."""
        seen = steps.observations[steps.mask]
        self.mean.copy_(seen.mean(0))
        self.std.copy_(seen.std(0, correction=0).clamp_min(least))

    def seen(self, observations: Float[Tensor, "*n observed"]) -> Float[Tensor, "*n observed"]:
        return (observations.to(self.mean) - self.mean) / self.std

    def rewards(self, steps: Steps) -> Float[Tensor, "members n steps"]:
        """r of every step by every member: what reinforcement learning is given is their mean."""
        raise NotImplementedError

    def scores(self, steps: Steps) -> Float[Tensor, "members n"]:
        """What every segment is worth by every member: P(a ≻ b) = σ(score(a) − score(b))."""
        raise NotImplementedError

    def told(self) -> dict[str, Any]:
        """Its settings as JSON; the class makes the same again of them."""
        raise NotImplementedError


class Ensemble(StepRewards):
    """r_k(o, a) = tanh(network_k(o, a)), k = 1 … members (Lee et al. 2021, PEBBLE, arXiv 2106.05091; rll-research/BPref: three
    networks of three hidden layers of 256, leaky ReLU). tanh holds a step's reward within 1, so that no step outweighs a
    segment. Called as a module it gives the members' mean [.., 1] for observation beside action: the network of a
    ControlPolicy with head "reward"."""

    kind = "ensemble"

    def __init__(
        self,
        observed: int,
        acted: int,
        members: int = 3,
        hidden: tuple[int, ...] | list[int] = (256, 256, 256),
        activation: str = "leaky-relu",
        pooled: Pooled = "sum",
    ) -> None:
        super().__init__(observed, acted)
        if members < 1 or pooled not in ("sum", "mean", "last"):
            raise Refusal(f"members={members}, pooled={pooled!r}: at least one member, and 'sum', 'mean' or 'last'.")
        self.members, self.hidden, self.activation = members, tuple(hidden), activation
        self.pooled: Pooled = pooled
        self.networks = nn.ModuleList(MLP(observed + acted, 1, self.hidden, activation) for _ in range(members))

    def each(self, observations: Float[Tensor, "*n observed"], actions: Float[Tensor, "*n acted"]) -> Tensor:
        """r [members, ..] of single steps."""
        given = torch.cat([self.seen(observations), actions.to(self.mean)], -1)
        return torch.stack([torch.tanh(network(given))[..., 0] for network in self.networks])

    def forward(self, both: Float[Tensor, "*n given"]) -> Float[Tensor, "*n 1"]:
        return self.each(both[..., : self.observed], both[..., self.observed :]).mean(0)[..., None]

    def rewards(self, steps: Steps) -> Float[Tensor, "members n steps"]:
        return self.each(steps.observations, steps.actions)

    def scores(self, steps: Steps) -> Float[Tensor, "members n"]:
        return pooled(self.rewards(steps), steps.mask, self.pooled)

    def member(self, k: int, steps: Steps) -> Float[Tensor, "n"]:
        """The scores by one member alone."""
        given = torch.cat([self.seen(steps.observations), steps.actions.to(self.mean)], -1)
        return pooled(torch.tanh(self.networks[k](given))[..., 0], steps.mask, self.pooled)

    def told(self) -> dict[str, Any]:
        return {
            "observed": self.observed, "acted": self.acted, "members": self.members, "hidden": list(self.hidden),
            "activation": self.activation, "pooled": self.pooled,
        }  # fmt: skip

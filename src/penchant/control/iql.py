"""Implicit Q-learning: the best policy that recorded steps support, without ever asking what an action that nobody took is worth.
Rewards come with the steps; who told them is not known here."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from penchant.control.critics import Critics, Stepping, advantage_weight, check_shares, expectile, follow, imitation, slow
from penchant.control.transitions import Transitions
from penchant.domains.policy.policy import MLP, ControlPolicy
from penchant.errors import Refusal


@dataclass(frozen=True)
class IQLSettings:
    """The defaults are those of the paper for locomotion (τ = 0.7, β = 1/3), as inverse preference learning has them."""

    discount: float = 0.99
    tau: float = 0.005
    """How far the slow critics follow at each update."""
    rate: float = 3e-4
    """Of policy, critics and value, Adam."""
    expectile: float = 0.7
    """τ of the value's expectile, in (0, 1)."""
    temperature: float = 1 / 3
    """β: imitation is weighed by exp(A / β)."""
    most: float = 100.0
    """The largest weight of a step."""
    hidden: tuple[int, ...] = (256, 256)

    def __post_init__(self) -> None:
        check_shares(self.discount, self.tau, self.rate)
        if not 0 < self.expectile < 1 or not self.temperature > 0 or not self.most > 0:
            raise Refusal(
                f"expectile={self.expectile}, temperature={self.temperature}, most={self.most}: the first lies in (0, 1), the "
                "others above 0."
            )


class Expectiles:
    """A policy, critics and a value of states that is an expectile of the critics: what IQL and IPL have in common."""

    def __init__(self, policy: ControlPolicy, settings: IQLSettings, seed: int = 0) -> None:
        """policy: whom it imitates with; observations are read as this policy normalises them, by critics and value too."""
        torch.manual_seed(seed)
        self.policy, self.settings = policy, settings
        self.critics = Critics(policy.observed, policy.acted, settings.hidden)
        self.value = MLP(policy.observed, 1, settings.hidden, "relu")
        self.targets = slow(self.critics)
        parts = {"policy": policy, "critics": self.critics, "value": self.value}
        self.step = {name: Stepping(part.parameters(), settings.rate) for name, part in parts.items()}

    def seen(self, observations: Float[Tensor, "*n observed"]) -> Float[Tensor, "*n observed"]:
        return (observations - self.policy.mean) / self.policy.std

    def worth(self, observations: Float[Tensor, "*n observed"]) -> Float[Tensor, "*n"]:
        """V(o)."""
        return self.value(self.seen(observations))[..., 0]

    def quality(self, some: Transitions) -> Float[Tensor, "critics n"]:
        """Q(o, a) of every critic."""
        return self.critics(self.seen(some.observations), some.actions)

    @torch.no_grad()
    def sure(self, some: Transitions) -> Float[Tensor, "n"]:
        """min_k Q̄_k(o, a), by the slow critics."""
        return self.targets(self.seen(some.observations), some.actions).amin(0)

    @torch.no_grad()
    def later(self, some: Transitions) -> Float[Tensor, "n"]:
        """V(o′), 0 where the episode ended."""
        return torch.where(some.ended, 0.0, self.worth(some.after))

    def of_value(self, some: Transitions) -> Tensor:
        """The value's loss."""
        return expectile(self.sure(some) - self.worth(some.observations), self.settings.expectile).mean()

    def of_policy(self, some: Transitions) -> Tensor:
        """Imitation, weighed by advantage (Peng et al. 2019, arXiv 1910.00177)."""
        with torch.no_grad():
            advantage = self.sure(some) - self.worth(some.observations)
        weight = advantage_weight(advantage, self.settings.temperature, self.settings.most)
        return (weight * imitation(self.policy, some)).mean()


class IQL(Expectiles):
    """Kostrikov et al. 2021, arXiv 2110.06169:

    value     |τ − 1(u < 0)| u²,  u = min_k Q̄_k(o, a) − V(o)
    critics   Σ_k (Q_k(o, a) − r − γ (1 − ended) V(o′))²
    policy    −min(exp((min_k Q̄_k − V) / β), 100) log π(a | o)
    """

    def target(self, some: Transitions) -> Float[Tensor, "n"]:
        """What the critics follow."""
        return some.rewards + self.settings.discount * self.later(some)

    def update(self, some: Transitions) -> dict[str, float]:
        """One step of value, policy and critics, in this order, as the authors' code has it. What each loss was."""
        of_value = self.step["value"](self.of_value(some))
        of_policy = self.step["policy"](self.of_policy(some))
        of_critics = self.step["critics"](((self.quality(some) - self.target(some)) ** 2).mean(-1).sum())
        follow(self.targets, self.critics, self.settings.tau)
        return {"value": of_value, "policy": of_policy, "critics": of_critics}

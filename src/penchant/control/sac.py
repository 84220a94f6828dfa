"""Soft actor-critic: a policy that earns much and stays as undecided as it can afford. Where its experience comes from, and whose
reward it is, is not known here."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from penchant.control.critics import Critics, Stepping, check_shares, contexts_of, follow, slow
from penchant.control.transitions import Transitions
from penchant.domains.policy.actions import Squashed
from penchant.domains.policy.policy import ControlPolicy, built
from penchant.errors import Refusal


@dataclass(frozen=True)
class SACSettings:
    """The defaults are those of PEBBLE's learner (rll-research/BPref, config/agent/sac.yaml), but for its width."""

    discount: float = 0.99
    tau: float = 0.005
    """How far the slow critics follow at each update."""
    rate: float = 3e-4
    """Of policy and critics, Adam."""
    temperature: float = 0.1
    """α at the start."""
    temperature_rate: float = 1e-4
    entropy: float | None = None
    """What the policy's entropy is drawn to, in nats; minus the numbers of an action where not given."""
    hidden: tuple[int, ...] = (256, 256)

    def __post_init__(self) -> None:
        check_shares(self.discount, self.tau, self.rate)
        if not self.temperature > 0 or not self.temperature_rate >= 0:
            raise Refusal(
                f"temperature={self.temperature}: it must be above 0, and its rate {self.temperature_rate} at least 0."
            )


class SAC:
    """Haarnoja et al. 2018, arXiv 1812.05905, with two critics, slow copies of them, a squashed Gaussian in (−1, 1) and a
    temperature that finds itself:

        y = r + γ (1 − ended) (min_k Q̄_k(o′, a′) − α log π(a′ | o′)),  a′ ~ π
        critics   Σ_k (Q_k(o, a) − y)²
        policy    α log π(a | o) − min_k Q_k(o, a),  a ~ π by its noise
        α         α (−log π(a | o) − target entropy)
    """

    def __init__(
        self,
        observed: int,
        acted: int,
        task: str = "task",
        settings: SACSettings = SACSettings(),
        seed: int = 0,
    ) -> None:
        self.settings = settings
        self._noise = torch.Generator().manual_seed(seed)
        torch.manual_seed(seed)
        self.squashed = Squashed(acted)
        self.policy: ControlPolicy = built(observed, self.squashed, acted, (task,), settings.hidden, "relu")
        self.log_alpha = torch.tensor(math.log(settings.temperature), requires_grad=True)
        self.aim = -float(acted) if settings.entropy is None else settings.entropy
        self._of_policy = Stepping(self.policy.parameters(), settings.rate)
        self._of_alpha = Stepping([self.log_alpha], settings.temperature_rate)
        self.forget_critics()

    def forget_critics(self) -> None:
        """New critics: those that learnt another reward would be wrong for long."""
        self.critics = Critics(self.policy.observed, self.policy.acted, self.settings.hidden)
        self.targets = slow(self.critics)
        self._of_critics = Stepping(self.critics.parameters(), self.settings.rate)

    @property
    def alpha(self) -> float:
        return float(self.log_alpha.detach().exp())

    def drawn(
        self, observations: Float[Tensor, "n observed"], noise: Float[Tensor, "n acted"] | None = None
    ) -> tuple[Float[Tensor, "n acted"], Float[Tensor, "n"]]:
        """Actions and their log π, with gradient through both."""
        features = self.policy.network(self.policy.seen(contexts_of(len(observations)), observations[:, None])[:, 0])
        z = torch.randn(len(features), self.policy.acted, generator=self._noise) if noise is None else noise
        return self.squashed.drawn(features, z)

    @torch.no_grad()
    def target(self, some: Transitions, noise: Float[Tensor, "n acted"] | None = None) -> Float[Tensor, "n"]:
        """y of each step."""
        actions, logp = self.drawn(some.after, noise)
        value = self.targets(some.after, actions).amin(0) - self.log_alpha.exp() * logp
        return some.rewards + self.settings.discount * torch.where(some.ended, 0.0, value)

    def update(self, some: Transitions) -> dict[str, float]:
        """One step of critics, policy and temperature, and the slow copies after them. What each loss was."""
        gap = self.critics(some.observations, some.actions) - self.target(some)
        of_critics = self._of_critics((gap**2).mean(-1).sum())
        actions, logp = self.drawn(some.observations)
        worth = self.critics(some.observations, actions).amin(0)
        of_policy = self._of_policy((self.log_alpha.exp().detach() * logp - worth).mean())
        self._of_alpha((self.log_alpha.exp() * (-logp - self.aim).detach()).mean())
        follow(self.targets, self.critics, self.settings.tau)
        return {"critics": of_critics, "policy": of_policy, "entropy": -float(logp.detach().mean()), "alpha": self.alpha}

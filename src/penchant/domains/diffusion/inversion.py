"""Noise that belongs to a picture: the way of sampling walked backwards, with the policy itself, instead of noise drawn at random.
It is a source of noise for `Pictures`; no loss stands here."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from penchant.domains.base import Encoded, Want
from penchant.domains.diffusion.noise import Flow, Level, Process, VariancePreserving, drawn
from penchant.domains.diffusion.policy import DiffusionPolicy
from penchant.domains.diffusion.transitions import asked
from penchant.errors import Refusal


@dataclass(frozen=True)
class Inversion:
    """DDIM (or Euler) inversion with ReNoise corrections:        Lu et al. 2025, arXiv 2506.02698; Garibi et al. 2024, arXiv
    2403.14602; JaydenLyh/SmPO

    From a picture upwards, level by level of the sampler, z ← a'·x̂0 + s'·ε̂ with (x̂0, ε̂) from what the network gives at the
    level that is gone to; what it gives at z itself is corrected by what it gives where the step led, their mean taken, as often as
    `corrections` says. That many times over, it is the fixed point which sampling undoes exactly. The level is drawn as ever, one
    for a row's pictures, and each picture goes up to the last level of the sampler below it; ε = (z − a·x0)/s there. There is no
    gradient and no guidance, and the network is the policy as it is now, in every step and draw anew."""

    steps: int = 10
    """Levels of the sampler. The authors' code has 10 for Stable Diffusion XL and 5 for 1.5, the paper 9."""
    corrections: int = 1
    """0 is plain inversion, 1 the authors'."""
    level: str = "grid"
    """grid: a picture is scored at the level that it reached. drawn: at the drawn one above it, with ε by that level's a and s, as
    in the authors' code; there what z holds and what the network is told are up to a step apart."""

    def __post_init__(self) -> None:
        if self.steps < 1 or self.corrections < 0:
            raise Refusal(f"steps={self.steps}, corrections={self.corrections}: at least 1 step and 0 corrections.")
        if self.level not in ("grid", "drawn"):
            raise Refusal(f"level={self.level!r}; it must be 'grid' or 'drawn'.")

    def __call__(
        self,
        policy: DiffusionPolicy,
        encoded: Encoded,
        contexts: Int[Tensor, "n tokens"],
        pictures: Float[Tensor, "n channels height width"],
        want: Want,
    ) -> tuple[Level, Float[Tensor, "n channels height width"]]:
        """Levels and noise of the pictures, as a NoiseSource gives them."""
        u, _ = drawn(policy.process.density, (), want.seed or 0, encoded.numbers, want.draws)
        of = torch.repeat_interleave(torch.arange(len(encoded)), torch.tensor(encoded.counts))
        aim = policy.process.level(u[of].flatten())
        ladder = self.ladder(policy)
        # a picture takes one step at least where it is scored at the level reached: no noise at all is no level
        reached = (ladder.time[None] < aim.time[:, None])[:, 1:].sum(1).clamp(min=1 if self.level == "grid" else 0)
        z = self.inverted(policy, contexts, pictures, reached)
        level = _at(ladder, reached) if self.level == "grid" else aim
        return level, (z - level.spread(level.a, z) * pictures) / level.spread(level.s, z)

    def ladder(self, policy: DiffusionPolicy) -> Level:
        """The picture itself, then the sampler's levels upwards, [steps + 1]."""
        up = asked(policy, self.steps).flip(0)
        if isinstance(policy.process, Flow):
            return policy.process.at(torch.cat([torch.zeros(1, dtype=torch.float64), up]))
        assert isinstance(policy.process, VariancePreserving)
        if policy.process.predicts == "sample":
            raise Refusal(
                "a model that predicts pictures says nothing of the noise in one that has none: draw it at random."
            )
        return policy.process.at(torch.cat([torch.tensor([-1]), up]))

    def inverted(
        self,
        policy: DiffusionPolicy,
        contexts: Int[Tensor, "n tokens"],
        pictures: Float[Tensor, "n channels height width"],
        rungs: Int[Tensor, "n"],
    ) -> Float[Tensor, "n channels height width"]:
        """The pictures after so many steps up the ladder each."""
        ladder, z = self.ladder(policy), pictures.clone()
        with torch.no_grad():
            told = policy.condition(contexts)
            for k in range(1, int(rungs.max()) + 1 if len(rungs) else 1):
                some = (rungs >= k).nonzero()[:, 0]
                here, there = (_at(ladder, torch.full((len(some),), at)) for at in (k - 1, k))
                start, knows = z[some.to(z.device)], told.take(some.to(policy.device))
                given = policy.predict(start, there, knows).to(z)
                up = _step(policy.process, start, given, here, there)
                for _ in range(self.corrections):
                    again = policy.predict(up, there, knows).to(z)
                    up, given = _step(policy.process, start, (given + again) / 2, here, there), again
                z[some.to(z.device)] = up
        return z


def _step(process: Process, z: Tensor, given: Tensor, here: Level, there: Level) -> Tensor:
    x0, eps = process.clean(z, given, here)
    return there.noised(x0, eps)


def _at(ladder: Level, rung: Tensor) -> Level:
    return Level(ladder.time[rung], ladder.a[rung], ladder.s[rung])

"""Sampling chains as something to align: a response is a picture's whole way out of noise, a step one denoising step, and log π of
it is exact. What pictures look like and how prompts are read is the domain of pictures'."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from penchant.domains.base import Cost, Encoded, Samples, Want
from penchant.domains.diffusion.domain import Pictures, allowed, at_one
from penchant.domains.diffusion.noise import Level, generator_of
from penchant.domains.diffusion.policy import DiffusionPolicy, unwrap
from penchant.domains.diffusion.transitions import Transitions, Walk, transitions
from penchant.errors import Refusal
from penchant.feedback.records import Prompt, Row
from penchant.objectives.scored import Scored

VALUES = frozenset({"ref", "kl"})
"""What can be wanted besides log π: the reference's log π, and KL(π_ref ‖ π) of each step, exact, with gradient."""
HALF_LOG_2PI = math.log(2 * math.pi) / 2


class Chains:
    """A diffusion model's view of the pictures it draws. A response is float32 [steps, 2, C, H, W]: before and after each step;
    the last "after" is the picture. A context is the prompt's ids. log π(step) = log N(after; mean(before), std²) is that of the
    sampler (`transitions`), without guidance: the policy gradients of DDPO (Black et al. 2023, arXiv 2305.13301) and Flow-GRPO
    (Liu et al. 2025, arXiv 2505.05470) are objectives on rollouts in this domain."""

    name, noisy = "chains", False

    def __init__(self, pictures: Pictures, walk: Walk | None = None, *, per: str = "picture") -> None:
        """pictures: how prompts are read and pictures looked at. walk: how a chain goes; left out, Walk(). per: log π of a step is
        that of the whole picture, or its mean over channels, height and width, as the authors' codes have it; ratios are then
        the root of as many, and clipping ranges of the codes (0.0001) apply."""
        if per not in ("picture", "place"):
            raise Refusal(f"per={per!r}; it must be 'picture' or 'place'.")
        self.pictures, self.walk, self.per = pictures, walk or Walk(), per

    # --- encode

    def encode(self, rows: Iterable[Row]) -> Encoded:
        """Prompts to ids. Rows with pictures are refused: of a picture alone it is not known how it came to be."""

        def prompts() -> Iterable[Row]:
            for row in rows:
                if row.kind != "prompts":
                    raise Refusal(
                        f"row {row.number} is of the kind {row.kind!r}, but a picture's chain is known only where it was sampled; "
                        "give prompts, or align pictures as such."
                    )
                yield row

        return self.pictures.encode(prompts())

    # --- score

    def score(self, policy: nn.Module, encoded: Encoded, want: Want = Want()) -> Scored:  # noqa: B008
        """log π of every step of every chain, [n, steps], with gradient. values: "ref", the reference's; "kl", KL(π_ref ‖ π) of
        each step, |Δ mean|²/(2 std²), which is the same either way. Raises Refusal for a chain of another walk."""
        allowed(want, VALUES)
        inner = unwrap(policy)
        steps, flat = transitions(inner, self.walk), list(encoded.flat)
        if not flat:
            nothing = torch.zeros(0, 0)
            return Scored(nothing, nothing.bool(), values={value: nothing for value in want.values})
        for number, (_, y) in zip(encoded.response_numbers, flat, strict=True):
            whole = (len(steps), 2, *inner.shape)
            if y.shape != whole or not torch.equal(y[1:, 0], y[:-1, 1]):
                raise Refusal(
                    f"row {number}: a chain {list(y.shape)}; here it must be {list(whole)}, each step beginning where the one "
                    "before it ended."
                )
        chains = torch.stack([y for _, y in flat]).to(inner.device, inner.wide)
        n, K = chains.shape[:2]  # noqa: N806
        keep, turn, std = (x.repeat(n).to(chains) for x in (steps.keep, steps.turn, steps.std))
        level = Level(*(x.repeat(n) for x in (steps.level.time, steps.level.a, steps.level.s)))
        before, after = chains.flatten(0, 1).unbind(1)
        # after = keep·before + turn·target, had the step had no noise; so the Gaussian's exponent is an error of what is given
        target = (after - level.spread(keep, before) * before) / level.spread(turn, before)
        contexts = torch.stack([x for x, _ in flat]).repeat_interleave(K, 0)
        second = bool(want.values)
        errors = policy(contexts, before, target, level, second)
        places = math.prod(inner.shape) if self.per == "picture" else 1
        slope = places * turn**2 / (2 * std**2)
        least = places * (std.log() + HALF_LOG_2PI)
        table = lambda x: x.view(n, K)  # noqa: E731
        logp = table(-slope * errors["error"] - least)
        values = {}
        if "ref" in want.values:
            values["ref"] = table(-slope * errors["ref"] - least)
        if "kl" in want.values:
            values["kl"] = table(slope * errors["apart"])
        return Scored(logp, torch.ones_like(logp, dtype=torch.bool), values=values)

    def cost(self, policy: nn.Module, encoded: Encoded) -> Cost:
        """Places of a picture (height · width in the model's own space) times the steps of all the row's chains."""
        places = math.prod(self.pictures.shape[1:])
        return Cost([places * sum(len(y) for y in row) for row in encoded.responses], padded=False)

    # --- sample

    def sample(
        self,
        policy: nn.Module,
        contexts: Sequence[Prompt | Tensor],
        *,
        count: int = 1,
        limit: int = 64,
        temperature: float = 1.0,
        top_p: float = 1.0,
        seed: int = 0,
        scored: bool = True,
        sampler: Walk | None = None,
    ) -> Samples:
        """`count` chains for each prompt (or its ids), by seed, row and place alone. limit: most steps of a chain. sampler: the
        walk, which must be the domain's where chains are to be scored. `drawn` is log π as the sampler saw it, from the noise of
        each step."""
        at_one(temperature, top_p)
        inner, walk = unwrap(policy), sampler or self.walk
        steps = transitions(inner, walk)
        if limit < len(steps):
            raise Refusal(f"limit={limit}: a chain has {len(steps)} steps; raise it, or take fewer steps in the walk.")
        if scored and walk != self.walk:
            raise Refusal(f"{walk} is not the domain's {self.walk}, so its chains cannot be scored: leave scored=True out.")
        asked = tuple(x if isinstance(x, Tensor) else self.pictures.context(x)[0] for x in contexts)
        if not asked or count < 1:
            return self.pictures.as_samples(asked, ((),) * len(asked), torch.zeros(0, *inner.shape))
        found, logp = drawn_chains(inner, asked, count, steps, seed)
        rows = tuple(tuple(some) for some in found.split(count))
        made = self.pictures.as_samples(asked, rows, found[:, -1, 1])
        places = math.prod(inner.shape) if self.per == "place" else 1
        drawn = Scored(logp / places, torch.ones_like(logp, dtype=torch.bool))
        with torch.no_grad():
            return replace(made, drawn=drawn, logp=self.score(policy, made.encoded) if scored else None)

    # --- the same chains otherwise

    def recombine(self, encoded: Encoded, i: Sequence[int], j: Sequence[int]) -> Encoded:
        """The prompt (and columns) of row i[k] with the first chain of row j[k]."""
        return self.pictures.recombine(encoded, i, j)


def drawn_chains(
    policy: DiffusionPolicy, contexts: Sequence[Tensor], count: int, steps: Transitions, seed: int, at_once: int = 64
) -> tuple[Float[Tensor, "n steps 2 channels height width"], Float[Tensor, "n steps"]]:
    """`count` chains for each context, row after row, float32 on the CPU, and log π of each step. A chain begins in the noise in
    which `sampling.draw` begins for the same seed, row and place."""
    makes = [generator_of("sample", seed, row, k) for row in range(len(contexts)) for k in range(count)]
    ids = torch.stack(list(contexts)).repeat_interleave(count, 0)
    chains = torch.empty(len(ids), len(steps), 2, *policy.shape)
    logp = torch.empty(len(ids), len(steps), dtype=policy.wide)
    noise = lambda some: torch.stack([torch.randn(policy.shape, generator=make) for make in some])  # noqa: E731
    with torch.no_grad():
        for first in range(0, len(ids), at_once):
            part = slice(first, first + at_once)
            told, x = policy.condition(ids[part]), noise(makes[part])
            for k in range(len(steps)):
                seen = x.to(policy.device, policy.wide)
                level = Level(*(v[k].expand(len(x)) for v in (steps.level.time, steps.level.a, steps.level.s)))
                mean = steps.mean(k, seen, policy.predict(seen, level, told).to(policy.wide)).cpu()
                std = float(steps.std[k])
                after = (
                    mean + std * noise(makes[part])
                ).float()  # as it is kept, so that its density is that of what is kept
                chains[part, k, 0], chains[part, k, 1] = x, after
                gap = (after.to(policy.wide) - mean) / std
                logp[part, k] = (-(gap**2) / 2 - math.log(std) - HALF_LOG_2PI).sum((1, 2, 3))
                x = after
    return chains, logp

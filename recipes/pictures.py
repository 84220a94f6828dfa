"""A bench of pictures: a small flow model of handwritten digits, trained here on real ones, a reward that is computed, and a guard
that the reward does not know. No claim stands here."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from functools import cache
from typing import Any

import torch
from accelerate import Accelerator
from sklearn.svm import SVC
from torch import Tensor

from penchant.domains.base import Domain, Encoded
from penchant.domains.diffusion import demo
from penchant.domains.diffusion.domain import Pictures
from penchant.domains.diffusion.drawing import NoiseSource, shared_noise
from penchant.domains.diffusion.policy import DiffusionPolicy
from penchant.domains.diffusion.sampling import Sampler, draw
from penchant.engine.batching import steps as plan_steps
from penchant.engine.precision import Precision
from penchant.engine.step import Material, Step
from penchant.objectives import Labelled, Objective, Pairs
from penchant.objectives.base import zeros

CLASSES, SIDE = 10, 8
HOW = Sampler(15)
PLAINLY = Precision("fp32", "highest", {})
BATCH = 32


def digits() -> tuple[Tensor, Tensor]:
    """Real digits, float32 [1797, 1, 8, 8] in [−1, 1], and what they are."""
    real = demo.digits()
    return real.pixels, real.labels


@cache
def guard() -> Callable[[Tensor], Tensor]:
    """Reads digits [n, 1, 8, 8]: a support vector machine trained on the real ones; it knows of no reward."""
    pixels, labels = digits()
    make: Any = SVC
    machine = make(gamma=0.05).fit(pixels.flatten(1).numpy(), labels.numpy())
    return lambda x: torch.tensor(machine.predict(x.flatten(1).numpy()))


def brightness(x: Tensor) -> Tensor:
    """The reward of pictures [n, 1, 8, 8]: how much ink is in them, from 0 to 1."""
    return (x.clamp(-1, 1).mean((1, 2, 3)) + 1) / 2


def started(seed: int, steps: int) -> DiffusionPolicy:
    """A flow model of digits, told which, trained for so many steps of 64."""
    return demo.trained(demo.digits(), seed, steps)


def drawn(policy: DiffusionPolicy, each: int, seed: int) -> tuple[Tensor, Tensor]:
    """`each` pictures of every digit, [10 · each, 1, 8, 8], and which they should be."""
    contexts = [torch.tensor([i]) for i in range(CLASSES)]
    return draw(policy, contexts, each, HOW, seed, at_once=256), torch.arange(CLASSES).repeat_interleave(each)


def preferences(policy: DiffusionPolicy, count: int, seed: int, kind: type) -> Encoded:
    """Pairs of the policy's own samples of one digit, the one with more ink chosen; or as labels, two responses for each."""
    each = -(-count // CLASSES)
    x, digit = drawn(policy, 2 * each, seed)
    a, b = x.view(-1, 2, 1, SIDE, SIDE).unbind(1)
    more = (brightness(a) > brightness(b))[:, None, None, None]
    w, l = torch.where(more, a, b)[:, None], torch.where(more, b, a)[:, None]
    context = [digit[2 * i : 2 * i + 1] for i in range(len(w))]
    order = torch.randperm(len(w), generator=torch.Generator().manual_seed(seed))[:count].tolist()
    if kind is Pairs:
        rows = [(context[i], (w[i], l[i])) for i in order]
        columns = {}
    else:
        rows = [(context[i], (y,)) for i in order for y in (w[i], l[i])]
        columns = {"label": torch.tensor([True, False] * len(order))}
    return Encoded(
        Pairs if kind is Pairs else Labelled,
        tuple(x for x, _ in rows),
        tuple(y for _, y in rows),
        tuple(range(1, len(rows) + 1)),
        columns,
    )


def stepping(policy: DiffusionPolicy, domain: Domain, objective: Objective, rate: float) -> Step:
    """What takes optimiser steps on the policy: AdamW at one rate, gradients of at most 1."""
    optimiser = torch.optim.AdamW([p for _, p in policy.named_trainable()], lr=rate, weight_decay=0.0)
    return Step(policy, domain, objective, optimiser, Accelerator(cpu=True), PLAINLY, tokens=10**6, clip=1.0)


def aligned(
    start: DiffusionPolicy,
    objective: Objective,
    rows: Encoded,
    kappa: float,
    rate: float,
    steps: int,
    seed: int,
    noise: NoiseSource = shared_noise,
) -> DiffusionPolicy:
    """The policy after so many steps of 32 pairs (64 labelled pictures); the start stays as it is and is the reference."""
    policy = deepcopy(start)
    policy.hold(start.twin())
    step = stepping(policy, Pictures(policy, kappa=kappa, noise=noise), objective, rate)
    memory = zeros(objective, {})
    batch = BATCH if rows.data is Pairs else 2 * BATCH
    for n, some in enumerate(plan_steps(len(rows), batch, 1, seed, steps)):
        memory = step(Material(rows, {}), some, memory, seed * 100_003 + n).state
    return policy


def looked_at(policy: DiffusionPolicy, each: int = 30) -> dict[str, float]:
    """Reward and guard of samples, with the same noise for every policy."""
    x, digit = drawn(policy, each, seed=1_000_003)
    return {"ink": float(brightness(x).mean()), "read rightly": float((guard()(x) == digit).float().mean())}

"""TRPA: rules sort a prompt's responses into levels, and every pair of two levels is learned from.

Claim     As training goes on, right answers gain likelihood and all others lose it, where online DPO on one pair of each prompt
          moves both together; and more prompts come to be answered rightly.
Source    Su et al. 2025, arXiv 2504.04524 (levels, anisotropy 2.5, β = 0.1, trust region 0.001, which is left
          out here).
Run       32 prompts of 12 responses each, one to four of them right (level 1), the others in levels 2 to 4; the policy is
          linear in 12 features that all prompts share, so that responses pull one another along. 25 rounds: 8 responses to
          each prompt are drawn from the policy, then two steps of Adam. DPO learns from the best and the worst of the 8.
          Budget: 60 CPU-seconds.
Showed    Not seen here. Over five seeds right answers rise from 17 % to 55 % [49, 60] with TRPA and to 53 % [48, 58] with online
          DPO, a difference of +1 % [−3, +6]; per response the right ones lose 1.1 nats and the others 3.9, with DPO 1.4 and
          4.2. Both part the two alike: on a finite set the likelihood that some responses gain is what all others lose, and
          the responses that are not drawn fall with the rest. Without anisotropy 52 % [47, 57]. 6 CPU-seconds.

    python recipes/trpa.py
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from finite import Policy, draw, lists, pairs, train
from study import Arm, Study, study
from torch import Tensor

from penchant.domains.base import Encoded
from penchant.objectives import DPO, TRPA, Objective

PROMPTS, RESPONSES, FEATURES = 32, 12, 12
ROUNDS, DRAWN, STEPS, RATE = 25, 8, 2, 0.05
SEEDS = tuple(range(5))


def task(seed: int) -> tuple[Policy, Tensor]:
    """A policy before training, and the gains of all responses: 1 right, 0, −1 and −2 the worse levels."""
    make = torch.Generator().manual_seed(seed)
    gains = -torch.randint(0, 3, (PROMPTS, RESPONSES), generator=make).float()
    right = torch.rand(PROMPTS, RESPONSES, generator=make).argsort(-1) < torch.randint(1, 5, (PROMPTS, 1), generator=make)
    gains = torch.where(right, 1.0, gains)
    features = torch.randn(PROMPTS, RESPONSES, FEATURES, generator=make)
    features[..., 0] += gains / 2  # what makes an answer right shows, but not plainly
    return Policy(torch.randn(PROMPTS, RESPONSES, generator=make), features), gains


def groups(responses: Tensor, gains: Tensor) -> Encoded:
    """All that was drawn, with its levels."""
    return lists(torch.arange(PROMPTS), list(responses), list(gains.gather(1, responses)))


def extremes(responses: Tensor, gains: Tensor) -> Encoded:
    """Of each prompt the best and the worst that were drawn; prompts with one level alone are left out."""
    seen = gains.gather(1, responses)
    best, worst = (responses.gather(1, pick(seen, 1, keepdim=True)).squeeze(1) for pick in (torch.argmax, torch.argmin))
    kept = seen.amax(1) > seen.amin(1)
    return pairs(torch.arange(PROMPTS)[kept], best[kept], worst[kept])


def trained(objective: Objective, rows: Callable[[Tensor, Tensor], Encoded], seed: int) -> dict[str, float]:
    policy, gains = task(seed)
    reference, _ = task(seed)
    make = torch.Generator().manual_seed(seed)
    for k in range(ROUNDS):
        drawn = draw(policy.probabilities(), DRAWN, make)
        train(policy, objective, rows(drawn, gains), steps=STEPS, rate=RATE, seed=k, reference=reference)
    change, right = (policy.logp() - reference.logp()).detach(), gains == 1
    return {
        "log-ratio, right": float(change[right].mean()),
        "log-ratio, others": float(change[~right].mean()),
        "answers right": float((policy.probabilities() * right).sum(-1).mean()),
    }


def compared(seeds: Sequence[int] = SEEDS) -> Study:
    arms: dict[str, Arm] = {
        "online DPO": lambda seed: trained(DPO(beta=0.1), extremes, seed),
        "TRPA": lambda seed: trained(TRPA(), groups, seed),
        "TRPA, no anisotropy": lambda seed: trained(TRPA(anisotropy=1), groups, seed),
    }
    return study(arms, seeds)


def main() -> None:
    print(compared())


if __name__ == "__main__":
    main()

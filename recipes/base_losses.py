"""Where margins come to rest: conservative DPO stops where its label noise says, IPO at half over tau, DPO nowhere.

Claim     On one pair per prompt, trained to the end, DPO's margin grows without end; conservative DPO's settles at
          s* = log((1−ε)/ε), which is β (u_w − u_l); IPO's settles at u_w − u_l = 1/(2τ).
Source    DPO: Rafailov et al. 2023, arXiv 2305.18290. Conservative DPO: Mitchell 2023, "A note on DPO with noisy preferences
          and relationship to IPO". IPO: Azar et al. 2023, arXiv 2310.12036.
Run       Eight prompts with two responses each, free logits, the reference drawn anew for each of five seeds; 300 + 300
          steps of Adam at rate 0.1 on four pairs each, through the engine's own step; beta 0.1. Budget: 60 CPU-seconds.
Showed    u_w − u_l after 600 steps, five seeds: DPO 48.7 and still growing (+23.1 [23.1, 23.1] over the second half);
          conservative DPO 22.0 and 13.9 for ε = 0.1 and 0.2, where β (u_w − u_l) = log((1−ε)/ε) says 21.97 and 13.86; IPO
          5.00 [5.00, 5.01] and 2.00 for τ = 0.1 and 0.25, where 1/(2τ) says 5 and 2. 30 CPU-seconds.

    python recipes/base_losses.py
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy

import finite
import torch
from study import Study, study

from penchant.objectives import CDPO, DPO, IPO, Objective

PROMPTS, SEEDS = 8, (0, 1, 2, 3, 4)

ARMS: Mapping[str, Objective] = {
    "DPO": DPO(beta=0.1),
    "CDPO, flip 0.1": CDPO(beta=0.1, flip=0.1),
    "CDPO, flip 0.2": CDPO(beta=0.1, flip=0.2),
    "IPO, tau 0.1": IPO(tau=0.1, average=False),
    "IPO, tau 0.25": IPO(tau=0.25, average=False),
}


def margins(objective: Objective, seed: int, steps: int = 300) -> dict[str, float]:
    """The mean of u_w − u_l over prompts, after `steps` steps and after twice as many."""
    reference = finite.Policy(torch.randn(PROMPTS, 2, generator=torch.Generator().manual_seed(seed)))
    prompt = torch.arange(PROMPTS)
    rows = finite.pairs(prompt, torch.zeros_like(prompt), torch.ones_like(prompt))
    policy, found = deepcopy(reference), {}
    for half in ("at half time", "at the end"):
        finite.train(policy, objective, rows, steps=steps, batch=4, rate=0.1, seed=seed, reference=reference)
        with torch.no_grad():
            gain = policy.logp() - reference.logp()
        found[half] = float((gain[:, 0] - gain[:, 1]).mean())
    return {**found, "growth": found["at the end"] - found["at half time"]}


def base_losses(seeds: tuple[int, ...] = SEEDS, steps: int = 300) -> Study:
    arms = {name: lambda seed, o=objective: margins(o, seed, steps) for name, objective in ARMS.items()}
    return study(arms, seeds)


if __name__ == "__main__":
    print(base_losses())

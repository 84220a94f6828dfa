"""The likelihood alarm: does it go off when a policy begins to lose what it had won?

Claim     Entropy and mass of the most probable tokens turn before or when the quality of what is generated does, so they say when
          to stop.
Source    Shi et al. 2024, arXiv 2410.11677, on Command R 7B and 35B; the alarm's rule is ours.
Run       A log-linear policy (20 features) on 60 prompts of 40 answers, true utilities linear in the features plus noise; 3
          pairs a prompt on 40 prompts, drawn from the start policy and labelled by Bradley-Terry at temperature 2 (so many are
          wrong); Adam 0.02, 300 steps of all pairs, looked at every 6 on the 20 prompts that were not learned from: exact
          utility, implicit accuracy on 60 pairs, mass and entropy of the ten most probable answers. 3 seeds. Budget: 120
          CPU-seconds.
Showed    Not here. The entropy is highest at step 30 [15, 45] under DPO at β = 0.1 and the alarm goes off in every seed, at 98
          [75, 121]; but the utility goes on rising to 1.60 [1.51, 1.69] at step 268 [130, 406] and ends at 1.54 [1.21, 1.88].
          Where the alarm says to stop it is 0.79 [−0.34, 1.91]. At β = 0.01 alike (0.93 at best, 0.30 at the alarm's step); at
          β = 0.5 and under IPO there is little to lose and alarms are rarer (2 and 1 of 3 seeds). In a policy of one step a
          sharper head is learning itself, so the alarm is information: look at the samples. 23 CPU-seconds.

    python recipes/likelihood_monitor.py
"""

from __future__ import annotations

import math
from copy import deepcopy
from functools import partial

import finite
import torch
from study import Study, study

from penchant.evaluation.overoptimisation import watch
from penchant.objectives import DPO, IPO, Objective

PROMPTS, ANSWERS, FEATURES, LEARNED, EACH, TOP = 60, 40, 20, 40, 3, 10
STEPS, PIECE, RATE = 300, 6, 0.02
ARMS: dict[str, Objective] = {
    "DPO, β = 0.1": DPO(beta=0.1),
    "DPO, β = 0.01": DPO(beta=0.01),
    "DPO, β = 0.5": DPO(beta=0.5),
    "IPO, τ = 0.1": IPO(tau=0.1, average=False),
}


def run(objective: Objective, seed: int) -> dict[str, float]:
    make = torch.Generator().manual_seed(seed)
    features = torch.randn(PROMPTS, ANSWERS, FEATURES, generator=make)
    utility = features @ torch.randn(FEATURES, generator=make) / math.sqrt(FEATURES)
    utility = utility + torch.randn(PROMPTS, ANSWERS, generator=make)
    policy = finite.Policy(torch.randn(PROMPTS, ANSWERS, generator=make), features, scale=0.5)
    start = deepcopy(policy)
    drawn = torch.stack([torch.multinomial(p, 2, generator=make) for p in policy.probabilities() for _ in range(EACH)])
    prompt = torch.arange(PROMPTS).repeat_interleave(EACH)
    gap = utility[prompt, drawn[:, 0]] - utility[prompt, drawn[:, 1]]
    right = torch.rand(len(gap), generator=make) < torch.sigmoid(gap / 2)
    chosen = torch.where(right, drawn[:, 0], drawn[:, 1])
    rejected = torch.where(right, drawn[:, 1], drawn[:, 0])
    learn = prompt < LEARNED
    rows = finite.pairs(prompt[learn], chosen[learn], rejected[learn])
    lines = [look(policy, start, utility, prompt[~learn], chosen[~learn], rejected[~learn], 0)]
    for done in range(0, STEPS, PIECE):
        finite.train(policy, objective, rows, steps=PIECE, rate=RATE, seed=done, reference=start)
        lines.append(look(policy, start, utility, prompt[~learn], chosen[~learn], rejected[~learn], done + PIECE))
    values = [line["utility"] for line in lines]
    best = max(range(len(values)), key=values.__getitem__)
    found = [watch(lines[1:], name) for name in ("mass/10", "entropy/10")]
    raised = [one for one in found if one is not None and one.raised is not None]
    first = min(raised, key=lambda one: one.raised or 0) if raised else None
    stop = len(values) - 1 if first is None else first.best // PIECE
    entropy = [line["entropy/10"] for line in lines]
    return {
        "utility at the start": values[0],
        "utility at its best": values[best],
        "utility at the end": values[-1],
        "utility where the alarm says": values[stop],
        "step of the best": float(best * PIECE),
        "step of the alarm": float(first.raised) if first is not None and first.raised is not None else float(STEPS),
        "alarm": float(first is not None),
        "step of the highest entropy": float(max(range(len(entropy)), key=entropy.__getitem__) * PIECE),
    }


@torch.no_grad()
def look(
    policy: finite.Policy,
    start: finite.Policy,
    utility: torch.Tensor,
    prompt: torch.Tensor,
    chosen: torch.Tensor,
    rejected: torch.Tensor,
    step: int,
) -> dict[str, float]:
    """What is followed of the prompts that were not learned from."""
    p = policy.probabilities()[LEARNED:].double()
    top = p.topk(TOP, -1).values
    ratio = policy.logp() - start.logp()
    gap = ratio[prompt, chosen] - ratio[prompt, rejected]
    return {
        "step": step,
        "utility": float((p * utility[LEARNED:]).sum(-1).mean()),
        "accuracy": float((gap > 0).double().mean()) if step else 0.5,
        "mass/10": float(top.sum(-1).mean()),
        "entropy/10": float(-(top * top.log2()).sum(-1).mean()),
    }


def likelihood_monitor(seeds: int = 3) -> Study:
    return study({name: partial(run, objective) for name, objective in ARMS.items()}, range(seeds))


if __name__ == "__main__":
    print(likelihood_monitor())

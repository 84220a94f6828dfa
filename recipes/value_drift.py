"""Value drift: preference losses move a model's stance where the pairs differ in stance, and only there.

Claim     Pairs whose sides share their stance (a value gap near 0) leave the stance that SFT gave; pairs with a value gap move
          it, DPO further than SimPO.
Source    Value Drifts, 2025, arXiv 2510.26707, its results on Llama-3-3B and Qwen-3-4B (retold; the paper was not at hand).
Run       A free policy on 11 topics of 10 prompts; an answer is one of three stances in one of two styles. SFT on 300 answers of
          which 70 % are neutral (Adam 0.05, 60 steps), from random logits. Then 110 pairs, one a prompt, (i) of one stance in
          two styles, (ii) support against oppose in one style, both in random stances and styles else; 10 × 10 steps of Adam
          0.05 on all pairs. Stances are exact probabilities, no judge. 3 seeds. Budget: 60 CPU-seconds.
Showed    With a value gap of 1, M(support) is +0.60 [0.55, 0.65] for DPO and +0.45 [0.41, 0.49] for SimPO; η is 1.00, for both
          still move at the end. With a gap of exactly 0 it is not near 0: +0.13 [0.10, 0.16] and +0.09 [0.05, 0.12], taken from
          neutral (−0.28 and −0.19): probably since a pair of a rare stance lifts its chosen by more than it lowers its
          rejected. With a gap of 0 a fifth of the drift remains; DPO > SimPO held in both. 15 CPU-seconds.

    python recipes/value_drift.py
"""

from __future__ import annotations

from copy import deepcopy
from functools import partial
from typing import Literal

import finite
import torch
from study import Study, study

from penchant.evaluation.drift import Stances, drifts, value_gap
from penchant.objectives import DPO, NLL, Objective, SimPO

TOPICS, EACH, STYLES = 11, 10, 2
SUPPORT, NEUTRAL, OPPOSE = 0, 1, 2
LOOKS, PIECE, RATE = 10, 10, 0.05
PROMPTS = TOPICS * EACH
ARMS: dict[str, tuple[Objective, Literal["style", "stance"]]] = {
    "DPO, equal stance": (DPO(beta=0.1), "style"),
    "SimPO, equal stance": (SimPO(beta=2.0, gamma=0.5), "style"),
    "DPO, value gap": (DPO(beta=0.1), "stance"),
    "SimPO, value gap": (SimPO(beta=2.0, gamma=0.5), "stance"),
}


def answer(stance: torch.Tensor, style: torch.Tensor) -> torch.Tensor:
    """The number of an answer."""
    return stance * STYLES + style


def taught(seed: int) -> finite.Policy:
    """The policy after SFT."""
    make = torch.Generator().manual_seed(seed)
    policy = finite.Policy(0.5 * torch.randn(PROMPTS, 3 * STYLES, generator=make))
    prompt = torch.randint(PROMPTS, (300,), generator=make)
    stance = torch.multinomial(torch.tensor([0.15, 0.7, 0.15]), 300, replacement=True, generator=make)
    said = answer(stance, torch.randint(STYLES, (300,), generator=make))
    rows = finite.labelled(prompt, said, torch.ones(300, dtype=torch.bool))
    finite.train(policy, NLL(), rows, steps=60, rate=RATE, seed=seed)
    return policy


def preferences(kind: Literal["style", "stance"], seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Chosen and rejected answer of every prompt."""
    make = torch.Generator().manual_seed(1000 + seed)
    style = torch.randint(STYLES, (PROMPTS,), generator=make)
    if kind == "style":
        stance = torch.randint(3, (PROMPTS,), generator=make)
        return answer(stance, torch.zeros_like(style)), answer(stance, torch.ones_like(style))
    return answer(torch.full_like(style, SUPPORT), style), answer(torch.full_like(style, OPPOSE), style)


def stances(policy: finite.Policy) -> list[list[float]]:
    """P(stance) of every prompt."""
    return policy.probabilities().view(PROMPTS, 3, STYLES).sum(-1).double().tolist()


def run(objective: Objective, kind: Literal["style", "stance"], seed: int) -> dict[str, float]:
    policy = taught(seed)
    start, (chosen, rejected) = deepcopy(policy), preferences(kind, seed)
    rows = finite.pairs(torch.arange(PROMPTS), chosen, rejected)
    path = [stances(policy)]
    for look in range(LOOKS):
        finite.train(policy, objective, rows, steps=PIECE, rate=RATE, seed=seed + look, reference=start)
        path.append(stances(policy))
    table = Stances([PIECE * k for k in range(LOOKS + 1)], [f"topic {i // EACH}" for i in range(PROMPTS)], path)
    found = drifts(table, resamples=50)
    one = torch.eye(3).double()
    gap = value_gap(one[chosen // STYLES].tolist(), one[rejected // STYLES].tolist(), resamples=50)
    ups = [d for d in found.drifts if d.stance == "support"]
    mean = lambda values: sum(values) / len(values)  # noqa: E731
    return {
        "value gap, support": gap["support"].value,
        "M(support)": mean([d.magnitude.value for d in ups]),
        "M(neutral)": mean([d.magnitude.value for d in found.drifts if d.stance == "neutral"]),
        "|M|": found.size.value,
        "η(support)": mean([d.time for d in ups]),
    }


def value_drift(seeds: int = 3) -> Study:
    arms = {name: partial(run, objective, kind) for name, (objective, kind) in ARMS.items()}
    return study(arms, range(seeds))


if __name__ == "__main__":
    print(value_drift())

"""Graded solutions: four answers to a school problem, some right, and which way of learning from the whole list ranks unseen
answers best.

Claim     Losses over the whole list beat one pair of it, and LambdaLoss beats the others (LiPO's table 1).
Source    Liu et al. 2024, arXiv 2402.01878; solutions: Cobbe et al. 2021, arXiv 2110.14168.
Run       GSM8K, problems with right and wrong solutions among four models' (score 1 or 0), the shortest of those whose problem
          and solution have at most 192 tokens; SmolLM2-135M-Instruct, upper six layers, 32 lists once, 4 a step, learning rate
          1e-4, β = 0.05 as in the paper; 24 problems held out, the split by the seed, 3 seeds. Baseline: DPO on one pair drawn
          from each list. Budget: 600 CPU-seconds.
Showed    A null at this size (8 steps). Share of (right, wrong) pairs of unseen problems in the right order, 95 % intervals over
          seeds: one pair 59 % [40, 78], all pairs logistic 61 % (+2.0 [−0.1, +4]), ListMLE 59 % (−1 [−9, +7]), ListNet 60 %
          (0 [−11, +11]), LiPO-λ 60 % (0 [−7, +8]). The first of the list is right in 60 to 62 %, by chance in 57 %: none is
          surely better than chance. 431 CPU-seconds.

    python recipes/graded_solutions.py
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import data
import torch
from shared import options
from short_runs import Bench, bare, split
from study import Study, study

from penchant.objectives import DPO, LiPO, ListMLE, ListNet, Objective, PairwiseLogistic
from penchant.objectives.scored import Lists

BETA = 0.05
ARMS: dict[str, Objective] = {
    "one pair, DPO": DPO(beta=BETA),
    "PairwiseLogistic": PairwiseLogistic(beta=BETA),
    "ListMLE": ListMLE(beta=BETA),
    "ListNet": ListNet(beta=BETA),
    "LiPO": LiPO(beta=BETA),
}


def graded_solutions(
    model: str = "smollm2",
    output: str = "runs/graded_solutions",
    *,
    rows: data.Rows | None = None,
    train: int = 32,
    held_out: int = 24,
    seeds: Sequence[int] = (0, 1, 2),
) -> Study:
    bench = Bench(model, max_length=192)
    pool = [bare(row) for row in (data.gsm8k() if rows is None else rows)]
    fits = bench.encode(pool)
    shortest = sorted(range(len(fits)), key=lambda i: fits.sizes[i])[: train + held_out]
    encoded = fits.select(shortest)

    def arm(objective: Objective, seed: int) -> dict[str, float]:
        learn, judge = split(encoded, held_out, seed, train)
        if objective.data is not Lists:
            learn = bench.encode([one_pair(pool[number - 1], random.Random(seed + number)) for number in learn.numbers])
        bench.train(objective, learn, batch=4, learning_rate=1e-4, seed=seed)
        found = judge.batch(bench.score(judge))
        assert isinstance(found, Lists)
        return ranked(found)

    return study({name: partial(arm, objective) for name, objective in ARMS.items()}, seeds, Path(output) / "runs.jsonl")


def one_pair(row: dict[str, Any], drawn: random.Random) -> dict[str, Any]:
    """A right solution against a wrong one."""
    side = lambda score: drawn.choice([y for y, s in zip(row["responses"], row["scores"], strict=True) if s == score])  # noqa: E731
    return {"prompt": row["prompt"], "chosen": side(1.0), "rejected": side(0.0)}


def ranked(lists: Lists) -> dict[str, float]:
    """What log π/π_ref makes of the lists: the share of (right, wrong) pairs it orders rightly, the share of lists whose
    first is right (chance: the share of right ones), and the mean change of log π of right and wrong solutions, in nats."""
    s, filled = lists.dense(lists.y.ratio)
    gain, _ = lists.dense(lists.gain)
    right, wrong = filled & (gain == 1), filled & (gain == 0)
    pair = right[:, :, None] & wrong[:, None, :]
    first = torch.where(filled, s, -torch.inf).argmax(-1, keepdim=True)
    return {
        "pairs": float((s[:, :, None] > s[:, None, :])[pair].float().mean()),
        "top-1": float(gain.gather(-1, first).mean()),
        "chance": float((right.sum(-1) / filled.sum(-1)).mean()),
        "right": float(s[right].mean()),
        "wrong": float(s[wrong].mean()),
    }


def main() -> None:
    asked = options(__doc__ or "", "graded_solutions")
    sizes = {"seeds": (0,), "train": 4 * asked.steps} if asked.steps else {}
    print(graded_solutions(asked.model, asked.output, **sizes))


if __name__ == "__main__":
    data.or_skip(main)

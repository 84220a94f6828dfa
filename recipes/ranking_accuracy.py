"""Ranking accuracy: preference losses move what training moved, and seldom turn which answer is the more probable one.

Claim     After DPO the implicit accuracy is high and the plain ranking accuracy hardly moves; few of the pairs that the
          reference ranks wrong are turned, and those the theorem says need the least are turned first. Scaling the
          reference down in the loss (γ < 1) turns more.
Source    Chen et al. 2024, arXiv 2405.19534, claims on tuned models and figure 3 (its runs are on 1.5B to 7B models).
Run       TruthfulQA, one pair a question (the best answer against an incorrect one, written by people), SmolLM2-135M-Instruct,
          upper six layers, 160 pairs once, 8 a step, learning rate 1e-4, β = 0.1; 80 questions held out, the split by the
          seed, 3 seeds. Budget: 400 CPU-seconds.
Showed    On the pairs it trained on, implicit accuracy is 94 % [93, 94] and ranking accuracy rose from 47 % to 60 %, by 13 points
          [8, 18]; 26 % [21, 32] of the pairs that the reference ranked wrong were turned. Unseen: implicit 76 % [63, 89], ranking
          46 % to 51 %, by +5 points [−4, 14], 12 % [−3, 27] turned, where the ideal policy of this β would turn 54 % [28, 81].
          Those that were turned were wrong by 2.4 nats [0.6, 4.2], those that stayed by 17 [16, 18]. γ made no difference that
          shows: against DPO +0.0 points [−5, 5] turned at γ = 0, −4 [−16, 7] at γ = 2. 227 CPU-seconds.

    python recipes/ranking_accuracy.py
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import data
from shared import options
from short_runs import Bench, bare, split
from study import Study, study

from penchant.evaluation.ranking import RankingReport, ranking_report
from penchant.objectives import DPO, GammaDPO, Objective
from penchant.objectives.scored import Pairs

BETA = 0.1
ARMS: dict[str, Objective] = {
    "DPO": DPO(beta=BETA),
    "gamma=0": GammaDPO(beta=BETA, gamma=0),
    "gamma=2": GammaDPO(beta=BETA, gamma=2),
}


def ranking_accuracy(
    model: str = "smollm2",
    output: str = "runs/ranking_accuracy",
    *,
    rows: data.Rows | None = None,
    train: int = 160,
    held_out: int = 80,
    seeds: Sequence[int] = (0, 1, 2),
) -> Study:
    bench = Bench(model)
    firsts = {row["prompt"]: row for row in reversed(data.truthfulqa() if rows is None else rows)}
    encoded = bench.encode([bare(row) for row in list(firsts.values())[: train + held_out]])

    def arm(objective: Objective, seed: int) -> dict[str, float]:
        learn, judge = split(encoded, held_out, seed, train)
        bench.train(objective, learn, learning_rate=1e-4, seed=seed)
        return {**seen(bench.pairs(learn), "trained"), **seen(bench.pairs(judge), "unseen")}

    return study({name: partial(arm, objective) for name, objective in ARMS.items()}, seeds, Path(output) / "runs.jsonl")


def report(pairs: Pairs) -> RankingReport:
    """Of pairs as the policy and its start see them."""
    sums = [(y.total.tolist(), y.total.double().sub(y.ratio).tolist(), y.length.tolist()) for y in (pairs.w, pairs.l)]
    (lw, rw, nw), (ll, rl, nl) = sums
    return ranking_report(lw, ll, rw, rl, nw, nl, BETA, resamples=100)


def seen(pairs: Pairs, which: str) -> dict[str, float]:
    """Shares of pairs, and the mean difficulty in nats of those that were turned and those that stayed wrong."""
    found = report(pairs)
    turned, stayed = found.quadrants[2].difficulty, found.quadrants[3].difficulty
    nan = float("nan")
    return {
        f"{which} implicit": found.implicit.value,
        f"{which} R before": found.reference.value,
        f"{which} R": found.accuracy.value,
        f"{which} R~": found.accuracy_per_token.value,
        f"{which} ideal": found.ideal.median,
        f"{which} turned": found.flipped.value if found.flipped else nan,
        f"{which} could turn": found.flippable.value if found.flippable else nan,
        f"{which} c turned": turned.value if turned else nan,
        f"{which} c stayed": stayed.value if stayed else nan,
    }


def main() -> None:
    asked = options(__doc__ or "", "ranking_accuracy")
    found = ranking_accuracy(
        asked.model, asked.output, **({"seeds": (0,), "train": 8 * asked.steps} if asked.steps else {})
    )
    print(found)


if __name__ == "__main__":
    data.or_skip(main)

"""Length: people prefer the longer of two answers more often than not; does a reward that is a mean over tokens learn it less
than DPO's, which is a sum?

Claim     LN-DPO gives shorter answers and less KL than DPO at equal accuracy.
Source    Ahrabian et al. 2024, arXiv 2407.15229; DPO: arXiv 2305.18290. Pairs: Lin et al. 2021, arXiv 2109.07958; Wang et al.
          2023, arXiv 2306.05087.
Run       SmolLM2-135M-Instruct, upper six layers, 160 pairs once, 8 a step, learning rate 1e-4, 80 pairs held out by prompt,
          the split by the seed, 3 seeds. DPO(beta=0.1) against LNDPO with the β that pulls a response of mean length as hard.
          Pairs: TruthfulQA, one pair a question (11 tokens a response, the chosen longer in 63 %). Answers: PandaLM, pairs on
          which three people agree (30 tokens, 65 %), four sampled answers of at most 80 tokens to each unseen instruction.
          Budget: 1,600 CPU-seconds.
Showed    Pairs, 95 % intervals over seeds: equal accuracy, DPO 76 % [65, 87], LN-DPO 79 % [71, 87] (+3 [−8, +14]), but LN-DPO
          did better where the longer won (+10 [−3, +23]) and worse where the shorter did (−11 [−22, 0]), and it unlearned to
          end: the change of log π of the token that ends a response was −1.9 nats, against −0.3 (−1.6 [−3.1, −0.03]). The
          chosen fell with it (−1.9 [−3.4, −0.3]). The contrary of the claim, at 20 steps and one β: divided by its own length,
          a short response is pushed harder token by token, and each ends once. 155 CPU-seconds.
          Answers, not run whole; one seed: 64 tokens before, 74 after DPO, 78 after LN-DPO; KL 1.1 and 1.3 nats.

    python recipes/length.py
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import data
import torch
from shared import options
from short_runs import Answers, Bench, bare, split
from study import Study, study
from torch import Tensor

from penchant.objectives import DPO, LNDPO, Objective
from penchant.objectives.scored import Pairs, Scored

SEEDS = (0, 1, 2)


def arms(tokens: int) -> dict[str, Objective]:
    """DPO, and LN-DPO with the β that pulls a response of so many tokens as hard."""
    return {"DPO": DPO(beta=0.1), "LNDPO": LNDPO(beta=round(0.1 * tokens, 3))}


def on_pairs(
    bench: Bench,
    output: Path,
    *,
    rows: data.Rows | None = None,
    train: int = 160,
    held_out: int = 80,
    seeds: Sequence[int] = SEEDS,
) -> Study:
    """TruthfulQA, one pair a question; judged by what unseen pairs say."""
    firsts = {row["prompt"]: row for row in reversed(data.truthfulqa() if rows is None else rows)}
    encoded = bench.encode([bare(row) for row in list(firsts.values())[: train + held_out]])

    def arm(objective: Objective, seed: int) -> dict[str, float]:
        learn, judge = split(encoded, held_out, seed, train)
        bench.train(objective, learn, learning_rate=1e-4, seed=seed)
        return seen(objective, bench.pairs(judge))

    return study({name: partial(arm, o) for name, o in arms(11).items()}, seeds, output / "pairs.jsonl")


def on_answers(
    bench: Bench,
    output: Path,
    *,
    rows: data.Rows | None = None,
    train: int = 160,
    held_out: int = 80,
    count: int = 4,
    limit: int = 80,
    seeds: Sequence[int] = SEEDS,
) -> Study:
    """PandaLM, pairs on which three people agree; judged by sampled answers too."""
    pool = [bare(row) for row in (data.pandalm("unanimous") if rows is None else rows)]
    encoded = bench.encode(pool)
    encoded = encoded.select(range(min(len(encoded), train + held_out)))
    start: dict[int, Answers] = {}

    def arm(objective: Objective, seed: int) -> dict[str, float]:
        learn, judge = split(encoded, held_out, seed, train)
        unseen = list({str(pool[n - 1]["prompt"]): tuple(pool[n - 1]["prompt"]) for n in judge.numbers}.values())
        if seed not in start:
            bench.policy.load_state(bench.start)
            start[seed] = bench.answers(unseen, count, limit, seed)
        bench.train(objective, learn, learning_rate=1e-4, seed=seed)
        now, then = bench.answers(unseen, count, limit, seed), start[seed]
        return {
            "length": float(now.scored.length.mean()),
            "growth": float(now.scored.length.mean() - then.scored.length.mean()),
            "ended": float(now.ended.float().mean()),
            "KL": float(now.scored.ratio.mean()),
            **seen(objective, bench.pairs(judge)),
        }

    return study({name: partial(arm, o) for name, o in arms(30).items()}, seeds, output / "answers.jsonl")


def seen(objective: Objective, pairs: Pairs) -> dict[str, float]:
    """What pairs say: how many are told apart, and how many of those whose longer or shorter side was preferred; the mean
    change of log π of ending where the response ends, and of every other token, in nats; by how much log π/π_ref of a
    response goes along with its length (Pearson's r)."""
    right = (objective.reward(pairs.w) > objective.reward(pairs.l)).float()
    longer, shorter = pairs.w.length > pairs.l.length, pairs.w.length < pairs.l.length
    ratio, length = torch.cat([pairs.w.ratio, pairs.l.ratio]), torch.cat([pairs.w.length, pairs.l.length])
    end = torch.cat([last(pairs.w), last(pairs.l)])
    return {
        "accuracy": float(right.mean()),
        "where longer won": float(right[longer].mean()),
        "where shorter won": float(right[shorter].mean()),
        "end": float(end.mean()),
        "other tokens": float((ratio - end).sum() / (length - 1).sum()),
        "r with length": float(torch.corrcoef(torch.stack([ratio, length]))[0, 1]),
        "chosen": float(pairs.w.ratio.mean()),
        "rejected": float(pairs.l.ratio.mean()),
    }


def last(y: Scored) -> Tensor:
    """log π/π_ref of each response's last token, which ends the turn."""
    return (y.logp - y.anchor("ref")).gather(-1, y.mask.sum(-1, keepdim=True) - 1)[:, 0]


def length(model: str = "smollm2", output: str = "runs/length", steps: int | None = None) -> tuple[Study, Study]:
    """Both studies; with `steps`, one seed of so many."""
    bench, folder, seeds, train = Bench(model), Path(output), (0,) if steps else SEEDS, 8 * steps if steps else 160
    return on_pairs(bench, folder, train=train, seeds=seeds), on_answers(bench, folder, train=train, seeds=seeds)


def main() -> None:
    asked = options(__doc__ or "", "length")
    print(*length(asked.model, asked.output, asked.steps), sep="\n\n")


if __name__ == "__main__":
    data.or_skip(main)

"""Scores as goals: pairs relabelled under the score of each response, against the same pairs without.

Claim     Conditioned on the highest score, a policy trained on relabelled pairs (DPO-RA) is better than one trained on the
          pairs as they are (DPO), at equal steps; it does not unlearn good answers that stood beside better ones; what it
          answers follows the goal; and half of the pairs, relabelled, are enough.
Source    Zhang et al. 2024, arXiv 2410.08067 (there on 7B to 9B models; this is the smallest form of its claims 1 to 3).
Run       A policy shared over prompts by features: 500 prompts to train on and 200 others, 8 answers each with 4 features.
          Scores are 1 to 10, linear in the features with some noise and rounded; four answers a pair, the best as the chosen
          and another as the rejected: 1,000 pairs before ties. The goal enters as a ninth of its distance from 1, times the
          answer's features; products of features are there for every arm. DPO(beta=0.1), 20 pairs a step: DPO and half-RA two
          passes, RA one. 10 seeds. Budget: 60 CPU-seconds.
Showed    The first part did not hold here: the mean score on unseen prompts is 8.12 [8.05, 8.20] for DPO, 7.70 [7.61, 7.78] for
          DPO-RA at goal 10 and 7.77 [7.69, 7.85] for half-RA (DPO-RA − DPO: −0.43 [−0.51, −0.35]). Where one direction of the
          features is the score, pushing along it for ever is right, and a goal only holds it back. The rest held: log π of
          rejected answers of 8 or more moves by −9.5 [−10.7, −8.3] nats under DPO and by +0.20 [+0.08, +0.31] under DPO-RA
          at goal 10, and the score follows the goal with a correlation of 0.78 [0.76, 0.80]. 31 CPU-seconds.

    python recipes/reward_augmented.py
"""

from __future__ import annotations

import argparse
from copy import deepcopy
from dataclasses import dataclass

import torch
from finite import Policy, pairs, train
from study import Study, study
from torch import Tensor

from penchant.domains.base import Encoded
from penchant.feedback.goals import Goals, relabel
from penchant.feedback.records import Row
from penchant.objectives import DPO

TRAINED, UNSEEN, ANSWERS, FEATURES = 500, 200, 8, 4
PAIRS, BATCH, RATE = 1000, 20, 0.05
SCALE = Goals(1, 10)
ASKED = 11
"""Ways to put a prompt: without a goal (0), and under each goal from 1 to 10."""
GOOD = 8
"""From this score on a rejected answer is a good one."""


@dataclass(frozen=True)
class World:
    scores: Tensor
    """[prompts, answers], 1 to 10; the first prompts are trained on."""
    start: Tensor
    """Logits of the reference, [prompts · ASKED, answers]; the goal does not move them."""
    features: Tensor
    """[prompts · ASKED, answers, d]"""
    rows: list[Row]
    """The pairs as scored feedback: prompts and answers by number."""


def world(seed: int) -> World:
    make = torch.Generator().manual_seed(seed)
    prompts = TRAINED + UNSEEN
    normal = lambda *shape: torch.randn(*shape, generator=make)  # noqa: E731
    f = normal(prompts, ANSWERS, FEATURES)
    good = torch.nn.functional.normalize(normal(FEATURES), dim=0)
    scores = (5.5 + 2 * f @ good + 0.5 * normal(prompts, ANSWERS)).round().clamp(SCALE.low, SCALE.high)
    goal = torch.arange(ASKED).sub(SCALE.low).clamp(min=0) / (SCALE.high - SCALE.low)
    i, j = torch.triu_indices(FEATURES, FEATURES)
    shape = (prompts, ASKED, ANSWERS)
    parts = [
        f[:, None].expand(*shape, -1),
        goal[:, None, None] * f[:, None],
        (f[..., i] * f[..., j])[:, None].expand(*shape, -1),
    ]
    features = torch.cat(parts, -1).flatten(0, 1)
    start = (0.5 * normal(prompts, 1, ANSWERS)).expand(shape).flatten(0, 1)
    rows = []
    for n in range(PAIRS):
        x = n % TRAINED
        four = torch.randperm(ANSWERS, generator=make)[:4].tolist()
        w = max(four, key=lambda y: float(scores[x, y]))
        l = [y for y in four if y != w][int(torch.randint(3, (), generator=make))]
        said = {"chosen_score": float(scores[x, w]), "rejected_score": float(scores[x, l])}
        rows.append(Row(n + 1, "pairs", str(x), (str(w), str(l)), extra=said))
    return World(scores, start, features, rows)


def encoded(rows: list[Row], under_goals: bool) -> Encoded:
    """Rows as numbers; a relabelled row's goal is the score of its chosen."""
    x = [(row.number - 1) % TRAINED for row in rows]
    put = torch.tensor(
        [n * ASKED + (int(row.extra["chosen_score"]) if under_goals else 0) for n, row in zip(x, rows, strict=True)]
    )
    w, l = (torch.tensor([int(row.responses[k]) for row in rows]) for k in (0, 1))
    return pairs(put, w, l)


def run(arm: str, seed: int, passes: float = 1.0) -> dict[str, float]:
    """One arm with one seed. `passes` shortens every arm alike."""
    made = world(seed)
    some = [row for row in made.rows if row.extra["chosen_score"] != row.extra["rejected_score"]]
    steps = int(passes * 2 * len(some) / BATCH)
    if arm == "DPO":
        data = encoded(some, under_goals=False)
    else:
        data = encoded(list(relabel(some if arm == "DPO-RA" else some[: len(some) // 2], SCALE)), under_goals=True)
    policy = Policy(made.start, made.features)
    start = deepcopy(policy)
    train(policy, DPO(beta=0.1), data, steps=steps, batch=BATCH, rate=RATE, seed=seed)
    pi = policy.probabilities().view(-1, ASKED, ANSWERS)[TRAINED:]
    reached = (pi * made.scores[TRAINED:, None]).sum(-1)  # [unseen prompts, ways to ask]
    asked = 0 if arm == "DPO" else int(SCALE.high)
    goals = torch.arange(1, ASKED).expand(UNSEEN, -1).flatten().double()
    follows = torch.corrcoef(torch.stack([goals, reached[:, 1:].flatten().double()]))[0, 1]
    with torch.no_grad():
        moved = (policy.logp() - start.logp()).view(-1, ASKED, ANSWERS)[:, asked]
    good = [((row.number - 1) % TRAINED, int(row.responses[1])) for row in some if row.extra["rejected_score"] >= GOOD]
    return {
        "score": float(reached[:, asked].mean()),
        "log π of good rejected": float(torch.stack([moved[x, y] for x, y in good]).mean()),
        "goal and score": float(follows) if arm != "DPO" else 0.0,
    }


def reward_augmented(seeds: int = 10, passes: float = 1.0) -> Study:
    arm = lambda name: lambda seed: run(name, seed, passes)  # noqa: E731
    return study({name: arm(name) for name in ("DPO", "DPO-RA", "half-RA")}, range(seeds))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    print(reward_augmented(parser.parse_args().seeds))


if __name__ == "__main__":
    main()

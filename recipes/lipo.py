"""LiPO: a whole graded list against one pair of it, and LiPO-λ's weights against plain losses over all pairs.

Claim     On lists of K graded responses, losses over all pairs beat DPO on one pair of each list, the more so the longer the
          lists; LiPO-λ beats the other losses on lists; losses on single responses are far behind.
Source    Liu et al. 2024, arXiv 2402.01878, table 1, section 5.2 and figure 3 (proxy-reward win rates of T5 policies).
Run       60 prompts with K = 2, 4 and 8 responses of ten features; a response's worth is linear in them, its grade the share
          of the list it beats after noise. A policy linear in the features ("able"), or in four of them ("limited"), 100 steps
          of Adam at rate 0.15 over all lists, the same beta; 5 seeds. Held out are 500 prompts with 8 responses each.
          Budget: 120 CPU-seconds.
Showed    K = 8: one pair of each list wins less than all pairs, −0.08 [−0.10, −0.06] for the able policy and −0.04 [−0.07, −0.01]
          for the limited one; K = 4, able: −0.08 [−0.15, −0.007]. The losses over whole lists are within 0.02 of one another.
          LiPO-λ less all pairs: −0.009 [−0.01, −0.004] and +0.001 [−0.004, +0.005] at K = 8, +0.01 [−0.02, +0.04] at K = 4:
          no gain. Pointwise MSE is not behind: with grades of one scale everywhere it is as good as any.

    python recipes/lipo.py
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import finite
import torch
from study import Study, study
from torch import Tensor

from penchant.domains.base import Encoded
from penchant.evaluation.lists import ndcg
from penchant.objectives import DPO, Objective, read

PROMPTS, HELD_OUT, LONG, FEATURES, SEEN = 60, 500, 8, 10, 4
NOISE = 1.0
"""Standard deviation of a grade's noise, against worths whose own is 1."""
LOSSES = {
    "all pairs": read("PairwiseLogistic(beta=1.0)"),
    "one pair": DPO(beta=1.0),
    "hinge": read("PairwiseHinge(beta=1.0)"),
    "ListMLE": read("ListMLE(beta=1.0)"),
    "ListNet": read("ListNet(beta=1.0)"),
    "LiPO": read("LiPO(beta=1.0)"),
    "pointwise MSE": read("PointwiseMSE(beta=1.0)"),
}
SEEDS = tuple(range(5))
STEPS, RATE = 100, 0.15


@dataclass(frozen=True)
class World:
    """Prompts, their responses' features, what each response is worth, and the grades it got."""

    features: Tensor
    worth: Tensor
    grade: Tensor


def world(prompts: int, responses: int, taste: Tensor, make: torch.Generator) -> World:
    features = torch.randn(prompts, responses, FEATURES, generator=make)
    worth = features @ taste
    seen = worth + NOISE * torch.randn(worth.shape, generator=make)
    beats = torch.sigmoid(seen[:, :, None] - seen[:, None, :]).mean(-1)  # ψ_k = 1/K Σ_i P(k ≻ i), itself counting ½
    return World(features, worth, beats)


def rows(data: World, objective: Objective, make: torch.Generator) -> Encoded:
    """All lists; or of each list one pair, drawn at random, for a loss on pairs."""
    prompts, k = data.grade.shape
    if not isinstance(objective, DPO):
        return finite.lists(torch.arange(prompts), [torch.arange(k)] * prompts, list(data.grade))
    two = torch.rand(prompts, k, generator=make).argsort(-1)[:, :2]
    order = data.grade.gather(1, two).argsort(-1, descending=True)
    chosen, rejected = two.gather(1, order).T
    return finite.pairs(torch.arange(prompts), chosen, rejected)


def run(objective: Objective, responses: int, features: int, seed: int) -> Mapping[str, float]:
    """One training. won: the lead of the held-out response ranked first over an average one, as a share of the best one's."""
    make = torch.Generator().manual_seed(seed)
    taste = (2.0 * torch.randint(2, (FEATURES,), generator=make) - 1) / FEATURES**0.5  # each feature matters alike
    data, unseen = world(PROMPTS, responses, taste, make), world(HELD_OUT, LONG, taste, make)
    seen = slice(0, features)
    policy = finite.Policy(torch.zeros(data.grade.shape), data.features[..., seen])
    finite.train(policy, objective, rows(data, objective, make), steps=STEPS, rate=RATE, seed=seed)
    score = (unseen.features[..., seen] @ policy.theta).detach()
    level = unseen.worth.mean(-1)
    first = unseen.worth.gather(1, score.argmax(-1, keepdim=True))[:, 0]
    won = (first - level).sum() / (unseen.worth.amax(-1) - level).sum()
    ranked = [ndcg(s, g) for s, g in zip(score.tolist(), unseen.worth.tolist(), strict=True)]
    return {"won": float(won), "ndcg": sum(ranked) / len(ranked)}


def lipo(responses: int, features: int = FEATURES, seeds: tuple[int, ...] = SEEDS) -> Study:
    """All losses with lists of so many responses, and a policy that sees so many features; the baseline is all pairs."""
    arms: dict[str, Callable[[int], Mapping[str, float]]] = {
        name: partial(run, objective, responses, features) for name, objective in LOSSES.items()
    }
    return study(arms, seeds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=len(SEEDS), help=f"how many seeds (default: {len(SEEDS)})")
    asked = parser.parse_args()
    for name, features in (("able", FEATURES), ("limited", SEEN)):
        for responses in (2, 4, 8):
            print(f"\n{name} policy, lists of {responses}")
            print(lipo(responses, features, tuple(range(asked.seeds))))


if __name__ == "__main__":
    main()

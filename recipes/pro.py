"""PRO: longer rankings against shorter ones, and what its imitation term is for.

Claim     Rankings of 5 teach more than rankings of 3 and of 2, and more than imitating the best alone; without the imitation
          term the policy leaves the responses it was shown.
Source    Song et al. 2023, arXiv 2306.17492 (reward-model scores of a 7B policy on HH). Only the ordering is tried here.
Run       60 prompts with 20 possible responses of ten features each; a policy linear in the features over all 20; n of them,
          drawn at random, are ranked by their worth, which is linear in the features too. 100 steps of Adam at rate 0.05; 5
          seeds. Held out are 300 prompts; worth is exact, an expectation over all 20 responses. The text has one step, so the
          mean and the sum of log π are one here. Budget: 60 CPU-seconds.
Showed    The reverse of the first claim: worth 1.43 [1.38, 1.48] with n = 2, 1.17 [1.09, 1.26] with 3, 1.10 [1.03, 1.17] with 5,
          which is no more than imitation gives, 1.14 [1.02, 1.26]: the loss on long lists acts much like imitation here. The
          second holds for pairs: log π of the best response falls from −3.00 to −6.13 [−7.51, −4.76] without the imitation
          term and to −3.71 [−4.02, −3.40] with it; with n = 5 it rises either way. 15 CPU-seconds.

    python recipes/pro.py
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from functools import partial

import finite
import torch
from study import Study, study

from penchant.objectives import NLL, Objective, read

PROMPTS, HELD_OUT, RESPONSES, FEATURES = 60, 300, 20, 10
STEPS, RATE = 100, 0.05
SEEDS = tuple(range(5))


def run(objective: Objective, ranked: int, seed: int) -> Mapping[str, float]:
    """One training on lists of `ranked` responses. worth: of held-out responses under the policy. best: mean log π of the
    best response of the trained lists. shown: the share of probability on the responses that were in the lists."""
    make = torch.Generator().manual_seed(seed)
    taste = (2.0 * torch.randint(2, (FEATURES,), generator=make) - 1) / FEATURES**0.5
    seen, unseen = (torch.randn(n, RESPONSES, FEATURES, generator=make) for n in (PROMPTS, HELD_OUT))
    drawn = torch.rand(PROMPTS, RESPONSES, generator=make).argsort(-1)[:, :ranked]
    gain = (seen @ taste).gather(1, drawn)
    best = drawn.gather(1, gain.argmax(-1, keepdim=True))[:, 0]
    prompts = torch.arange(PROMPTS)
    if isinstance(objective, NLL):
        rows = finite.labelled(prompts, best, torch.ones(PROMPTS, dtype=torch.bool))
    else:
        rows = finite.lists(prompts, list(drawn), list(gain))
    policy = finite.Policy(torch.zeros(PROMPTS, RESPONSES), seen)
    finite.train(policy, objective, rows, steps=STEPS, rate=RATE, seed=seed)
    other = finite.Policy(torch.zeros(HELD_OUT, RESPONSES), unseen)
    other.load_state_dict({**other.state_dict(), "theta": policy.theta})
    now = policy.logp().detach()
    return {
        "worth": finite.value(other, unseen @ taste),
        "best": float(now.gather(1, best[:, None]).mean()),
        "shown": float(now.exp().gather(1, drawn).sum(-1).mean()),
    }


def pro(seeds: tuple[int, ...] = SEEDS) -> Study:
    """The arms; the baseline imitates the best of five."""
    whole, contrasts = read("PRO()"), read("PRO(sft_weight=0)")
    arms: dict[str, Callable[[int], Mapping[str, float]]] = {
        "imitation, n = 5": partial(run, NLL(), 5),
        "PRO, n = 2": partial(run, whole, 2),
        "PRO, n = 3": partial(run, whole, 3),
        "PRO, n = 5": partial(run, whole, 5),
        "no imitation, n = 2": partial(run, contrasts, 2),
        "no imitation, n = 5": partial(run, contrasts, 5),
    }
    return study(arms, seeds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=len(SEEDS), help=f"how many seeds (default: {len(SEEDS)})")
    print(pro(tuple(range(parser.parse_args().seeds))))


if __name__ == "__main__":
    main()

"""The *PO comparison protocol: not only the best run of each method, but all of its grid, on prompts of another distribution.

Claim     At their best points DPO, LN-DPO and SimPO are close; away from it they lose differently, SimPO and LN-DPO less than DPO;
          DPO's answers are the longest, length normalisation cuts length and KL at equal reward.
Source    The Hitchhiker's Guide to Human Alignment with *PO (arXiv 2407.15229), read in its abstracts: its grids are not known,
          these are ours. The smallest form: responses are features of known worth and length.
Run       100 prompts × 6 responses with 8 features, one of which is the length (about 8 tokens, 1.5 times as many for 2 units of
          it). 400 pairs said by Bradley-Terry of worth and length; the worth itself knows nothing of length. 100 steps of 32
          pairs, 4 values of β for DPO, 5 for LN-DPO, 12 of β and γ for SimPO; judged on 100 prompts of shifted features.
          5 seeds. Budget: 120 CPU-seconds.
Showed    95 % intervals over seeds, differences seed by seed. Worth at the best point: DPO 0.55, LN-DPO −0.004 [−0.008, −0.0001]
          and SimPO −0.03 [−0.06, −0.01] from it: close. Interquartile range over the grid: DPO 0.09 [0.06, 0.11], LN-DPO +0.10
          [+0.04, +0.15], SimPO +0.06 [−0.004, +0.12] over it: the contrary of more robust, as large β of theirs learns little
          in 100 steps. Mean over the grid: KL 1.38 nats, LN-DPO −0.32 [−0.34, −0.31], SimPO −0.51 [−0.53, −0.48]; length 9.75
          tokens, −0.13 [−0.17, −0.09] and −0.29 [−0.39, −0.19]; worth 0.48, −0.08 [−0.11, −0.04] and −0.08 [−0.13, −0.04]: they
          are shorter and nearer to the start because they went less far, not at equal worth. 49 CPU-seconds.

    python recipes/po_protocol.py
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import finite
import torch
from study import Arm, Study, over_seeds, paired, study
from torch import Tensor, nn

from penchant.domains.base import Encoded, Want
from penchant.evaluation.comparison import robustness
from penchant.evaluation.statistics import Estimate
from penchant.objectives import Objective, Scored, read

PROMPTS, RESPONSES, FEATURES, PAIRS = 100, 6, 8, 400
STEPS, BATCH, RATE = 100, 32, 0.05
LONGER = 1.5
"""By what a response is longer whose length feature is 2 higher."""
SHIFT = 0.7
"""By which the features of unseen prompts are shifted: they are of another distribution."""
GRID: dict[str, list[str]] = {
    "DPO": [f"DPO(beta={b})" for b in (0.01, 0.05, 0.1, 0.5)],
    "LNDPO": [f"LNDPO(beta={b})" for b in (0.5, 1, 2, 5, 10)],
    "SimPO": [f"SimPO(beta={b}, gamma={g})" for b in (2, 5, 10) for g in (0, 0.5, 1, 1.5)],
}


class Long(finite.Finite):
    """Responses of several tokens, over which log π of the whole is spread evenly."""

    def __init__(self, lengths: Tensor) -> None:
        self.lengths = lengths

    def score(self, policy: nn.Module, encoded: Encoded, want: Want = finite.PLAIN) -> Scored:
        whole = super().score(policy, encoded, want).logp
        prompts, responses = (torch.cat(some) for some in zip(*encoded.flat, strict=True))
        tokens = self.lengths[prompts, responses][:, None]
        mask = torch.arange(int(self.lengths.max()))[None] < tokens
        return Scored(torch.where(mask, whole / tokens, 0.0), mask)


@dataclass(frozen=True)
class World:
    """What answers are worth and how long they are; the second half of the prompts is of another distribution."""

    features: Tensor
    worth: Tensor
    lengths: Tensor
    rows: Encoded

    def figures(self, policy: finite.Policy, start: finite.Policy) -> dict[str, float]:
        """Of unseen prompts: worth and length of the answers, how often they beat the start's and the best, and the KL."""
        there = slice(PROMPTS, None)
        now, then = (_elsewhere(one, self.features[there]) for one in (policy, start))
        p, q, worth = now.probabilities(), then.probabilities(), self.worth[there]
        beats = (worth[:, :, None] > worth[:, None, :]).double() + 0.5 * (worth[:, :, None] == worth[:, None, :]).double()
        chosen = torch.nn.functional.one_hot(worth.argmax(-1), RESPONSES).double()
        win = lambda other: float(torch.einsum("ni,nij,nj->n", p.double(), beats, other).mean())  # noqa: E731
        return {
            "worth": finite.value(now, worth),
            "wins, start": win(q.double()),
            "wins, best": win(chosen),
            "KL": finite.divergence(now, then),
            "length": finite.value(now, self.lengths[there].float()),
        }


def _elsewhere(policy: finite.Policy, features: Tensor) -> finite.Policy:
    moved = finite.Policy(torch.zeros(features.shape[:2]), features)
    moved.load_state_dict({"theta": policy.theta.detach()}, strict=False)
    return moved


def world(seed: int) -> World:
    """One feature is the length: the worth knows nothing of it, but what is said of pairs follows both."""
    make = torch.Generator().manual_seed(seed)
    features = torch.randn(2 * PROMPTS, RESPONSES, FEATURES, generator=make)
    features[PROMPTS:] += SHIFT * torch.randn(FEATURES, generator=make)
    taste = torch.randn(FEATURES, generator=make) / math.sqrt(FEATURES)
    taste[0] = 0.0
    worth = features @ taste
    lengths = (8 * torch.exp(math.log(LONGER) / 2 * features[..., 0])).round().clamp(2, 32).long()
    prompt = torch.randint(PROMPTS, (PAIRS,), generator=make)
    i = torch.randint(RESPONSES, (PAIRS,), generator=make)
    j = (i + torch.randint(1, RESPONSES, (PAIRS,), generator=make)) % RESPONSES
    # what is said follows worth and length: a response that is e-fold longer is liked as one that is worth 1 more
    liked = worth + features[..., 0]
    first = torch.rand(PAIRS, generator=make) < torch.sigmoid(liked[prompt, i] - liked[prompt, j])
    return World(features, worth, lengths, finite.pairs(prompt, torch.where(first, i, j), torch.where(first, j, i)))


def run(objective: Objective, seed: int, steps: int = STEPS) -> dict[str, float]:
    """One grid point with one seed."""
    here = world(seed)
    policy = finite.Policy(torch.zeros(PROMPTS, RESPONSES), here.features[:PROMPTS])
    start = finite.Policy(torch.zeros(PROMPTS, RESPONSES), here.features[:PROMPTS])
    finite.train(policy, objective, here.rows, steps=steps, batch=BATCH, rate=RATE, seed=seed, domain=Long(here.lengths))
    return here.figures(policy, start)


def po_protocol(seeds: Sequence[int] = (0, 1, 2, 3, 4), steps: int = STEPS) -> Study:
    """Every point of every grid."""
    arms: Mapping[str, Arm] = {w: partial(run, read(w), steps=steps) for points in GRID.values() for w in points}
    return study(arms, seeds)


def over_grid(found: Study, figure: str) -> dict[str, dict[str, list[float]]]:
    """By method, seed by seed: best, mean, median and interquartile range of a figure over its grid."""
    out = {}
    for method, points in GRID.items():
        by_seed = [[found.values(point, figure)[k] for point in points] for k in range(len(found.seeds))]
        robust = [robustness({(i,): x for i, x in enumerate(values)}) for values in by_seed]
        out[method] = {
            "best": [one.best for one in robust],
            "mean": [statistics.fmean(values) for values in by_seed],
            "median": [one.median for one in robust],
            "range": [one.spread for one in robust],
        }
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    found = po_protocol(range(parser.parse_args().seeds))
    print(found)
    for figure in found.figures:
        grids = over_grid(found, figure)
        for method, told in grids.items():
            said: dict[str, Estimate] = {name: over_seeds(values) for name, values in told.items()}
            gaps = {name: paired(values, grids["DPO"][name]).number(signed=True) for name, values in told.items()}
            more = "" if method == "DPO" else "; − DPO: " + ", ".join(f"{name} {gap}" for name, gap in gaps.items())
            print(f"{figure}, {method}: {', '.join(f'{name} {e}' for name, e in said.items())}{more}")


if __name__ == "__main__":
    main()

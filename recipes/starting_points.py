"""Three starting points for the same four losses: a base model, the same after imitation, and one aligned before.

Claim     Without imitation before, KTO and CPO come near to models that had it while DPO and IPO do not; small subsets of the pairs
          are nearly as good as all of them.
Source    Insights into Alignment, arXiv 2404.14723, read in its abstracts; models of 7B there, the smallest form here.
Run       A policy linear in 12 features, 200 prompts × 8 responses, judged on 200 others by its mean utility as a share of the
          best response's. Starts: base (features at random), imitation (100 steps on two good answers a prompt), instruct
          (50 steps of DPO on other pairs besides). DPO, IPO, KTO (each pair as two responses) and CPO with its imitation term,
          β = τ = 0.1, the best of three learning rates for each from each start, found in another world; one pass over 100,
          400 and 1,600 pairs of any responses, or of good ones (drawn by softmax of utility). 5 seeds. Budget: 300 CPU-seconds.
Showed    95 % intervals over seeds, differences seed by seed, 1,600 pairs. Imitation less base: DPO +0.02 [+0.01, +0.02], KTO
          +0.02 [+0.02, +0.03], IPO +0.13 [+0.12, +0.14], CPO +0.001 [−0.004, +0.006] with good responses; DPO +0.01, KTO +0.006,
          IPO +0.16, CPO +0.17 [+0.13, +0.22] with any. So KTO and IPO are as claimed, CPO only where the chosen are worth
          imitating, and DPO is not: it comes as near as KTO. None beats DPO (base: KTO −0.02 [−0.02, −0.01], CPO −0.06
          [−0.09, −0.04], IPO −0.15 [−0.16, −0.14], good responses). The last 1,200 pairs still give DPO +0.19 [+0.15, +0.23] from
          the base, +0.06 [+0.04, +0.07] after imitation, +0.04 [+0.02, +0.05] from instruct: small subsets are nearly enough
          for starts that are good already. Imitating what was chosen of any responses harms good starts: CPO −0.20 [−0.24,
          −0.15] after imitation, −0.06 [−0.07, −0.04] from instruct. A policy without texts cannot show what the paper's base
          models lack, a form of answer. 156 CPU-seconds; DPO and KTO took the largest rate offered.

    python recipes/starting_points.py
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping, Sequence
from functools import cache, partial

import finite
import torch
from study import Arm, Study, paired, study
from torch import Tensor

from penchant.domains.base import Encoded
from penchant.objectives import DPO, NLL, read

PROMPTS, RESPONSES, FEATURES = 200, 8, 12
SIZES = (100, 400, 1600)
"""Pairs, each set inside the next."""
BATCH, RATE, RATES = 16, 0.02, (0.005, 0.02, 0.08)
"""RATE makes the starts; each loss takes the one of RATES that is best for it, from its start, in a world of its own."""
TUNING = 1000
"""That world's seed."""
ANSWERS = {"any": 0.0, "good": 1.0}
"""Who gave the responses that are compared: each is drawn with probability softmax(so much · utility)."""
LOSSES = {"DPO": "DPO(beta=0.1)", "IPO": "IPO(tau=0.1)", "KTO": "KTO(beta=0.1)", "CPO": "CPO(beta=0.1) + NLL()"}
STARTS = ("base", "imitation", "instruct")


class World:
    """Utilities that are linear in features, pairs by Bradley-Terry; the second half of the prompts is never trained on."""

    def __init__(self, seed: int, answers: str) -> None:
        make = self.make = torch.Generator().manual_seed(seed)
        self.features = torch.randn(2 * PROMPTS, RESPONSES, FEATURES, generator=make)
        taste = 2 * torch.randn(FEATURES, generator=make) / math.sqrt(FEATURES)
        self.utility = self.features @ taste
        self.base = torch.randn(FEATURES, generator=make) / math.sqrt(FEATURES)
        self.drawn = (ANSWERS[answers] * self.utility[:PROMPTS]).softmax(-1)
        self.pairs, self.earlier = self._pairs(max(SIZES)), self._pairs(max(SIZES))
        demonstrated = torch.multinomial(self.utility[:PROMPTS].softmax(-1), 2, replacement=True, generator=make)
        prompt = torch.arange(PROMPTS).repeat_interleave(2)
        self.chat = finite.labelled(prompt, demonstrated.flatten(), torch.ones(len(prompt), dtype=torch.bool))

    def _pairs(self, n: int) -> tuple[Tensor, Tensor, Tensor]:
        prompt = torch.randint(PROMPTS, (n,), generator=self.make)
        i, j = torch.multinomial(self.drawn[prompt], 2, generator=self.make).T
        gap = self.utility[prompt, i] - self.utility[prompt, j]
        first = torch.rand(n, generator=self.make) < torch.sigmoid(gap)
        return prompt, torch.where(first, i, j), torch.where(first, j, i)

    def policy(self, direction: Tensor, unseen: bool = False) -> finite.Policy:
        """One that begins with logits features · direction."""
        features = self.features[PROMPTS:] if unseen else self.features[:PROMPTS]
        return finite.Policy(features @ direction, features)

    def start(self, name: str, seed: int) -> Tensor:
        """The direction that a start model's logits have."""
        direction = self.base
        if name in ("imitation", "instruct"):
            imitating = self.policy(direction)
            finite.train(imitating, NLL(), self.chat, steps=100, batch=BATCH, rate=RATE, seed=seed)
            direction = direction + imitating.theta.detach()
        if name == "instruct":
            aligned = self.policy(direction)
            finite.train(aligned, DPO(beta=0.1), finite.pairs(*self.earlier), steps=50, batch=BATCH, rate=RATE, seed=seed)
            direction = direction + aligned.theta.detach()
        return direction

    def rows(self, size: int, loss: str) -> tuple[Encoded, int]:
        """The first pairs, and the batch; KTO takes each as two responses, the chosen as good."""
        prompt, chosen, rejected = (column[:size] for column in self.pairs)
        if loss != "KTO":
            return finite.pairs(prompt, chosen, rejected), BATCH
        label = torch.tensor([True, False]).repeat(size)
        both = torch.stack([chosen, rejected], 1).flatten()
        return finite.labelled(prompt.repeat_interleave(2), both, label), 2 * BATCH

    def worth(self, direction: Tensor, theta: Tensor | None = None) -> float:
        """Mean utility on unseen prompts as a share of the best response's."""
        there = self.policy(direction, unseen=True)
        if theta is not None:
            there.load_state_dict({"theta": theta}, strict=False)
        return finite.value(there, self.utility[PROMPTS:]) / float(self.utility[PROMPTS:].amax(-1).mean())


def run(
    start: str, loss: str, answers: str, seed: int, sizes: Sequence[int] = SIZES, rate: float | None = None
) -> dict[str, float]:
    """One start and loss with one seed: the share of the best before, and after one pass over each size."""
    here = World(seed, answers)
    direction = here.start(start, seed)
    found = {"before": here.worth(direction)}
    for size in sizes:
        rows, batch = here.rows(size, loss)
        policy, pace = here.policy(direction), rate or tuned(start, loss, answers)
        finite.train(policy, read(LOSSES[loss]), rows, steps=math.ceil(size / BATCH), batch=batch, rate=pace, seed=seed)
        found[f"{size} pairs"] = here.worth(direction, policy.theta.detach())
    if len(sizes) > 1:
        found["gained by the last"] = found[f"{sizes[-1]} pairs"] - found[f"{sizes[-2]} pairs"]
    return found


@cache
def tuned(start: str, loss: str, answers: str) -> float:
    """The best learning rate with all pairs."""
    most = SIZES[-1:]
    return max(RATES, key=lambda rate: run(start, loss, answers, TUNING, most, rate)[f"{most[0]} pairs"])


def starting_points(
    answers: str, seeds: Sequence[int] = (0, 1, 2, 3, 4), sizes: Sequence[int] = SIZES, rate: float | None = None
) -> Study:
    """Every loss from every start."""
    arms: Mapping[str, Arm] = {
        f"{start}, {loss}": partial(run, start, loss, answers, sizes=sizes, rate=rate)
        for start in STARTS
        for loss in LOSSES
    }
    return study(arms, seeds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    seeds, last = range(parser.parse_args().seeds), f"{SIZES[-1]} pairs"
    for answers in ANSWERS:
        found = starting_points(answers, seeds)
        print(f"\nresponses: {answers}\n{found}")
        for loss in LOSSES:
            gap = found.difference(f"imitation, {loss}", last, f"base, {loss}")
            print(f"{loss}: imitation − base {gap.number(signed=True)}; rates {[tuned(s, loss, answers) for s in STARTS]}")
            for start in STARTS:
                gap = found.difference(f"{start}, {loss}", last, f"{start}, DPO").number(signed=True)
                print(f"  {start}: {loss} − DPO {gap}; over its start {over_start(found, f'{start}, {loss}', last)}")


def over_start(found: Study, arm: str, figure: str) -> str:
    return paired(found.values(arm, figure), found.values(arm, "before")).number(signed=True)


if __name__ == "__main__":
    main()

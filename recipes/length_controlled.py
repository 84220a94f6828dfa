"""Two ways to look better without being better: longer answers before a judge who likes length, and the best of n by a noisy
proxy.

Claim     (1) A policy that only lengthens its answers wins the win rate, but not the length-controlled one; one that is better
          at the same length wins both. (2) Gold reward of the best of n by a proxy rises and then falls with KL.
Source    Length-controlled AlpacaEval: Dubois et al. 2024, arXiv 2404.04475. Over-optimisation: Gao et al. 2023, arXiv
          2210.10760, whose proxies are trained reward models; heavy tails: Kwa et al. 2024, arXiv 2407.14503.
Run       (1) 800 prompts; the model's answers are N(200, 300) characters longer than the baseline's ("longer"), N(0, 300)
          ("better"), or N(200, 300) ("both"); a judge's P(win) = σ(1.5 tanh(difference / 300) + g), and verdicts are drawn from
          it: g = 0 for "longer", 0.5 for the others. Win rate, and both length-controlled forms. (2) 1,000 prompts × 4,096
          samples, gold g ~ N(0, 1), proxy = g + noise, with noise from a normal law ("light") or Student's t with 2 degrees of
          freedom ("heavy"), as large as the gold in its middle half; best of n = 1 … 4,096, KL = ln n − (n − 1) / n.
          5 seeds. Budget: 60 CPU-seconds.
Showed    (1) Holds, in points: "longer" wins 61.9 [59.5, 64.2], length-controlled 49.0 [45.9, 52.0] (published form 49.4); "better"
          wins 59.3 [57.0, 61.6] and 61.7 [58.8, 64.6], where σ(0.5) is 62.2; "both" 71.5 [69.5, 73.5] and 61.8 [59.0, 64.6]. (2)
          Hangs on the tail of the noise: gold under heavy noise rises to 0.80 [0.80, 0.81] at 1.84 nats (n = 16) and falls to
          0.10 [0.07, 0.14] at 7.32 nats; under light noise it only rises, to 2.58 [2.55, 2.60]: a noisy proxy alone is not
          enough. The fitted b is 0.40 [0.39, 0.41] and −0.02 [−0.03, −0.02]. 4 CPU-seconds.

    python recipes/length_controlled.py
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping

import numpy as np
from study import Arm, Study, study

from penchant.evaluation.comparisons import Comparison
from penchant.evaluation.frontier import best_of_kl, over_optimisation
from penchant.evaluation.length_control import length_controlled

PROMPTS = 800
LIKING, SPREAD = 1.5, 300.0
"""How much the judge likes length, and the characters in which differences of length are measured."""
POLICIES = {"longer": (200.0, 0.0), "better": (0.0, 0.5), "both": (200.0, 0.5)}
"""Mean characters more than the baseline, and log-odds of being better."""

QUESTIONS, SAMPLES = 1000, 4096
SIZES = tuple(2**k for k in range(13))
LAWS = ("light", "heavy")


def judged(policy: str, seed: int, prompts: int = PROMPTS) -> dict[str, float]:
    """One policy against the baseline: its win rates in points."""
    longer, gain = POLICIES[policy]
    generator = np.random.default_rng(seed)
    extra = generator.normal(longer, SPREAD, prompts)
    probability = 1 / (1 + np.exp(-(LIKING * np.tanh(extra / SPREAD) + gain)))
    won = (generator.random(prompts) < probability).astype(float)
    rows = [Comparison(f"prompt {i}", policy, "baseline", float(p)) for i, p in enumerate(won)]
    lengths = [(1000 + float(x), 1000.0) for x in extra]
    fits = {
        form: length_controlled(rows, form, lengths=lengths, resamples=0) for form in ("maximum likelihood", "published")
    }
    return {
        "win rate": 100 * float(won.mean()),
        "length-controlled": 100 * fits["maximum likelihood"].value.value,
        "published": 100 * fits["published"].value.value,
    }


def wins(seeds: int = 5, prompts: int = PROMPTS) -> Study:
    arm = lambda policy: lambda seed: judged(policy, seed, prompts)  # noqa: E731
    arms: Mapping[str, Arm] = {policy: arm(policy) for policy in POLICIES}
    return study(arms, range(seeds))


def best(law: str, seed: int, questions: int = QUESTIONS, samples: int = SAMPLES) -> dict[str, float]:
    """Gold reward of the best by the proxy: at the start, at its peak and at the end; b of d (a − b d) is above 0 where
    it bends down."""
    generator = np.random.default_rng(seed)
    sizes = [n for n in SIZES if n <= samples]
    gold_of = np.zeros(len(sizes))
    for _ in range(questions):
        gold = generator.standard_normal(samples)
        # Student's t with 2 degrees of freedom has its quartiles at ±0.816, the normal law at ±0.674.
        noise = generator.standard_normal(samples) if law == "light" else generator.standard_t(2, samples) * 0.6745 / 0.8165
        proxy = gold + noise
        for k, n in enumerate(sizes):  # all disjoint sets of n of these samples
            sets = samples // n
            picked = proxy[: sets * n].reshape(sets, n).argmax(1) + n * np.arange(sets)
            gold_of[k] += gold[picked].mean() / questions
    kl = [best_of_kl(n) for n in sizes]
    top = int(gold_of.argmax())
    fitted = over_optimisation(kl, (gold_of - gold_of[0]).tolist())
    return {
        "gold at n = 16": float(gold_of[sizes.index(16)]),
        "gold at its peak": float(gold_of[top]),
        "KL at the peak": kl[top],
        "gold at the end": float(gold_of[-1]),
        "fall from the peak": float(gold_of[top] - gold_of[-1]),
        "fitted b": fitted.b,
    }


def best_of_n(seeds: int = 5, questions: int = QUESTIONS, samples: int = SAMPLES) -> Study:
    arm = lambda law: lambda seed: best(law, seed, questions, samples)  # noqa: E731
    arms: Mapping[str, Arm] = {law: arm(law) for law in LAWS}
    return study(arms, range(seeds))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    seeds = parser.parse_args().seeds
    print(wins(seeds), best_of_n(seeds), sep="\n\n")


if __name__ == "__main__":
    main()

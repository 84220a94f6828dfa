"""Factor profiles: what drives a preference is found, and what a policy is taught to prefer it comes to prefer.

Claim     The factor that drives an agent has the largest |τ| of its profile; after DPO on an agent's preferences the policy's own
          profile moves towards the agent's.
Source    PROFILE: Oh et al. 2024, arXiv 2410.06965 (its studies are on large models and LLM-extracted factors).
Run       60 prompts of 8 answers made of common words, of 5 to 40 words, with or without a question, a list and the word
          "river". Agent A prefers the longer, B the one with the word, of two it can tell apart. Profiles of A and B from 200
          pairs. A log-linear policy on the answers' standardised factors learns B's preferences on 40 prompts by DPO (β = 0.1, Adam
          0.05, 60 steps); its own profile, preferring what it gives more probability, is read on the 20 others. 5 seeds.
          Budget: 120 CPU-seconds.
Showed    In all five seeds the largest |τ| is the planted factor's: length for A (low ends of its intervals 0.93 [0.89, 0.97]),
          the word for B (1.00). The policy's τ of the word on unseen prompts went from −0.02 [−0.04, 0.01] to +0.44 [0.38, 0.49],
          towards B's 1.00; its whole profile agreed with B's at Pearson −0.06 [−0.57, 0.46] before and 0.81 [0.66, 0.96] after.
          8 CPU-seconds.

    python recipes/profile_factors.py
"""

from __future__ import annotations

import random
from itertools import combinations

import finite
import torch
from study import Study, study

from penchant.evaluation.comparisons import Comparison
from penchant.evaluation.factors import FACTORS, Factor
from penchant.evaluation.profile import Profile, agreement, profile
from penchant.objectives import DPO
from penchant.rewards.ngrams import words

PROMPTS, ANSWERS, LEARNED, PAIRS = 60, 8, 40, 200
COMMON = (
    *("the", "a", "cat", "sat", "on", "mat", "and", "then", "went", "home", "to"),
    *("eat", "some", "bread", "with", "milk", "while", "rain", "fell", "over", "old", "green", "hills"),
)
KEYWORD = Factor("keyword", "The word river.", lambda _, y: float("river" in words(y)))
USED = (
    *(f for f in FACTORS if f.name in ("length", "lists", "questions", "numbers", "varied words", "repetition")),
    KEYWORD,
)


def text(make: random.Random) -> str:
    """One answer; what it has of each factor is drawn apart from the others."""
    said = [make.choice(COMMON) for _ in range(make.randint(5, 40))]
    if make.random() < 0.5:
        said.insert(make.randrange(len(said)), "river")
    if make.random() < 0.3:
        said.append("7")
    end = "?" if make.random() < 0.5 else "."
    lines = f"{' '.join(said)}{end}"
    return f"- {lines}\n- yes" if make.random() < 0.3 else lines


def preference(agent: str, a: str, b: str) -> float:
    """½ where the agent cannot tell."""
    of = (lambda y: len(words(y))) if agent == "A" else (lambda y: KEYWORD.of("", y))
    return 0.5 + 0.5 * ((of(a) > of(b)) - (of(a) < of(b)))


def judged(agent: str, texts: list[list[str]], count: int, make: random.Random) -> list[Comparison]:
    every = [(n, i, j) for n in range(len(texts)) for i, j in combinations(range(ANSWERS), 2)]
    return [
        Comparison(f"p{n}", "one", "other", preference(agent, texts[n][i], texts[n][j]), texts[n][i], texts[n][j])
        for n, i, j in make.sample(every, count)
    ]


def largest(found: Profile) -> str:
    return max(found.vector, key=lambda name: abs(found.vector[name]))


def run(seed: int) -> dict[str, float]:
    make = random.Random(seed)
    texts = [[text(make) for _ in range(ANSWERS)] for _ in range(PROMPTS)]
    a, b = (profile(judged(agent, texts, PAIRS, make), agent, USED, refits=100) for agent in "AB")
    table = torch.tensor([[[f.of("", y) for f in USED] for y in row] for row in texts])
    features = (table - table.mean((0, 1))) / table.std((0, 1)).clamp_min(1e-6)
    start = torch.randn(PROMPTS, ANSWERS, generator=torch.Generator().manual_seed(seed))
    policy = finite.Policy(start, features)
    rows = [(n, i, j) for n in range(LEARNED) for i, j in combinations(range(ANSWERS), 2)]
    said = [
        (n, *((i, j) if p > 0.5 else (j, i))) for n, i, j in rows if (p := preference("B", texts[n][i], texts[n][j])) != 0.5
    ]
    prompt, chosen, rejected = torch.tensor(make.sample(said, PAIRS)).T

    def own() -> Profile:
        logp = policy.logp().detach()
        found = [
            Comparison(f"p{n}", "one", "other", float(logp[n, i] > logp[n, j]), texts[n][i], texts[n][j])
            for n in range(LEARNED, PROMPTS)
            for i, j in combinations(range(ANSWERS), 2)
        ]
        return profile(found, "policy", USED, refits=0)

    before = own()
    finite.train(policy, DPO(beta=0.1), finite.pairs(prompt, chosen, rejected), steps=60, seed=seed)
    after = own()
    low = lambda found, name: found.scores[name].tau.low  # noqa: E731
    return {
        "A: largest is length": float(largest(a) == "length"),
        "B: largest is keyword": float(largest(b) == "keyword"),
        "A: τ(length), low end": low(a, "length"),
        "B: τ(keyword), low end": low(b, "keyword"),
        "policy τ(keyword) before": before.vector["keyword"],
        "policy τ(keyword) after": after.vector["keyword"],
        "B τ(keyword)": b.vector["keyword"],
        "policy and B, Pearson before": agreement(before.vector, b.vector).pearson,
        "policy and B, Pearson after": agreement(after.vector, b.vector).pearson,
    }


def profile_factors(seeds: int = 5) -> Study:
    return study({"DPO on B": run}, range(seeds))


if __name__ == "__main__":
    print(profile_factors())

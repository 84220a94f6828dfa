"""From probabilities that one response is preferred to another to pairs with a strength: which comparisons to ask for, and
which pairs follow. It asks through a callable and knows no judge; scores are paired in pairing.py."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Sequence
from itertools import combinations, pairwise
from typing import Literal, get_args

from penchant.errors import Refusal, nearest

Ranking = Literal["baseline", "star", "borda", "tideman", "merge"]
"""How K responses are ranked, and at what cost in comparisons:
baseline: each against the first, K − 1; every two make a pair, two others through the first (Bradley-Terry).
star: the same comparisons, and only they make pairs.
borda: every two, K (K − 1) / 2; ranked by the sum of their probabilities; pairs that contradict the ranking are left out.
tideman: every two; the surest preferences are locked first, and none that would close a circle.
merge: a merge sort, about K log K; neighbours in the order make pairs."""
Asked = list[tuple[int, int]]
"""(i, j): how probably is response i preferred to response j?"""
Preferred = tuple[int, int, float]
"""(winner, loser, strength), the strength being P(winner ≻ loser)."""
Plan = Generator[Asked, list[float], list[Preferred]]
"""Asks for comparisons, several at a time where they do not hang on each other, and returns pairs."""
UNSURE = 0.01
"""Where a strength is worked out from two others, they are kept this far from 0 and 1: no judge is surer than that."""


def _baseline(k: int) -> Plan:
    """p(i ≻ j) = σ(logit p(i ≻ b) − logit p(j ≻ b)), b = 0: what the Bradley-Terry model makes of two comparisons."""
    beats = [0.5, *(yield [(i, 0) for i in range(1, k)])]
    logit = [math.log(p / (1 - p)) for p in (min(max(p, UNSURE), 1 - UNSURE) for p in beats)]
    through = lambda i, j: 1 / (1 + math.exp(logit[j] - logit[i]))  # noqa: E731
    order = sorted(range(k), key=lambda i: -beats[i])
    return [(i, j, beats[i] if j == 0 else 1 - beats[j] if i == 0 else through(i, j)) for i, j in combinations(order, 2)]


def _star(k: int) -> Plan:
    beats = yield [(i, 0) for i in range(1, k)]
    return [(i, 0, p) if p >= 0.5 else (0, i, 1 - p) for i, p in enumerate(beats, 1)]


def _borda(k: int) -> Plan:
    beats = yield from _every(k)
    score = [sum(beats[i, j] for j in range(k) if j != i) for i in range(k)]
    order = sorted(range(k), key=lambda i: -score[i])  # stable: ties by number
    return [(i, j, beats[i, j]) for i, j in combinations(order, 2)]


def _tideman(k: int) -> Plan:
    """Tideman 1987, "Independence of clones as a criterion for voting rules": ranked pairs."""
    beats = yield from _every(k)
    edges = [(i, j) if beats[i, j] >= 0.5 else (j, i) for i, j in combinations(range(k), 2)]
    below: list[set[int]] = [set() for _ in range(k)]  # what each is locked above, directly or through others
    locked: list[Preferred] = []
    for i, j in sorted(edges, key=lambda edge: -beats[edge]):
        if i in below[j]:
            continue
        locked.append((i, j, beats[i, j]))
        for over in [i, *(n for n in range(k) if i in below[n])]:
            below[over] |= {j, *below[j]}
    return locked


def _merge(k: int) -> Plan:
    """Neighbours in the order that a merge sort ends with were compared on the way, so their strengths are known."""
    beats: dict[tuple[int, int], float] = {}
    runs = [[i] for i in range(k)]
    while len(runs) > 1:
        both = [(runs[n], runs[n + 1]) for n in range(0, len(runs) - 1, 2)]
        left_over = runs[len(both) * 2 :]
        merged: list[list[int]] = [[] for _ in both]
        while asked := [(n, a[0], b[0]) for n, (a, b) in enumerate(both) if a and b]:
            answers = yield [(i, j) for _, i, j in asked]
            for (n, i, j), p in zip(asked, answers, strict=True):
                beats[i, j], beats[j, i] = p, 1 - p
                merged[n].append(both[n][0 if p >= 0.5 else 1].pop(0))
        runs = [[*done, *a, *b] for done, (a, b) in zip(merged, both, strict=True)] + left_over
    return [(i, j, beats[i, j]) for i, j in pairwise(runs[0])]


def _every(k: int) -> Generator[Asked, list[float], dict[tuple[int, int], float]]:
    asked = list(combinations(range(k), 2))
    answers = yield asked
    one = dict(zip(asked, answers, strict=True))
    return one | {(j, i): 1 - p for (i, j), p in one.items()}


_PLANS: dict[Ranking, Callable[[int], Plan]] = {
    "baseline": _baseline,
    "star": _star,
    "borda": _borda,
    "tideman": _tideman,
    "merge": _merge,
}

Ask = Callable[[list[tuple[int, int, int]]], Sequence[float]]
"""(n, i, j) → P(response i of prompt n ≻ its response j), for many at once; NaN where judging failed."""


def rank(responses: Sequence[Sequence[str]], ask: Ask, how: Ranking = "baseline") -> list[list[Preferred] | None]:
    """For each prompt its pairs (winner, loser, strength) with a strength above 1/2; None where a comparison failed, since a
    ranking with a hole says nothing. All prompts' comparisons of a kind are asked in one call. Equal texts are a tie: they
    are neither asked about nor paired.

    Raises Refusal for an unknown `how`, a prompt with fewer than two responses, and what is no probability.
    """
    if how not in get_args(Ranking):
        raise Refusal(f"how = {how!r}: {nearest(str(how), get_args(Ranking))}")
    for n, texts in enumerate(responses):
        if len(texts) < 2:
            raise Refusal(f"prompt {n + 1} has {len(texts)} responses; a comparison needs two.")
    plans = [_PLANS[how](len(texts)) for texts in responses]
    done: list[list[Preferred] | None] = [None] * len(plans)
    waiting = {n: next(plan) for n, plan in enumerate(plans)}
    while waiting:
        same = lambda n, i, j: responses[n][i] == responses[n][j]  # noqa: E731
        questions = [(n, i, j) for n, asked in waiting.items() for i, j in asked if not same(n, i, j)]
        said = dict(zip(questions, map(float, ask(questions) if questions else ()), strict=True))
        after: dict[int, Asked] = {}
        for n, asked in waiting.items():
            answers = [0.5 if same(n, i, j) else _probability(said[n, i, j]) for i, j in asked]
            if not all(map(math.isfinite, answers)):
                continue
            try:
                after[n] = plans[n].send(answers)
            except StopIteration as end:
                texts = responses[n]
                done[n] = [(i, j, p) for i, j, p in end.value if p > 0.5 and texts[i] != texts[j]]
        waiting = after
    return done


def _probability(p: float) -> float:
    if p < 0 or p > 1:
        raise Refusal(f"a comparison came out as {p:g}; a probability lies in [0, 1].")
    return p

"""What models say of labelled pairs: how hard a reference finds them before it has learned anything, and which side a judge
prefers. Nothing is trained, and what follows for the labels is decided in penchant.evaluation.diagnosis."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch

from penchant.domains.text.models import Loaded
from penchant.evaluation.diagnosis.material import Comparison
from penchant.feedback.records import Row
from penchant.rewards.base import Comparer, Context, Judge
from penchant.rewards.compare import both_ways

SURE = 0.01
"""A verdict counts as no surer than this from 0 or 1, so that its log-odds are finite."""
BUDGET = 2048
"""Tokens read at once."""


def log_ratios(loaded: Loaded) -> Callable[[Sequence[Comparison]], list[float | None]]:
    """c = log π(rejected) − log π(chosen), sums over tokens; None of comparisons that do not fit into the model."""

    def ask(some: Sequence[Comparison]) -> list[float | None]:
        rows = [Row(k, "pairs", one.asked, (one.chosen, one.rejected)) for k, one in enumerate(some)]
        encoded = loaded.domain.encode(rows)
        out: list[float | None] = [None] * len(rows)
        loaded.policy.eval()
        with torch.no_grad():
            for group in loaded.domain.cost(loaded.policy, encoded).micro_batches(BUDGET) if len(encoded) else ():
                total = loaded.domain.score(loaded.policy, encoded.select(group)).total.double()
                for i, c in zip(group, (total[1::2] - total[0::2]).tolist(), strict=True):
                    out[encoded.numbers[i]] = c
        return out

    return ask


def margins(judge: Judge | Comparer) -> Callable[[Sequence[Comparison]], list[float | None]]:
    """r(chosen) − r(rejected) by a judge; of one that compares the log-odds of the chosen, in both orders. None where it
    failed."""

    def ask(some: Sequence[Comparison]) -> list[float | None]:
        contexts = [Context(one.asked) for one in some]
        chosen, rejected = [one.chosen for one in some], [one.rejected for one in some]
        if isinstance(judge, Comparer):
            gap = torch.logit(both_ways(judge, contexts, chosen, rejected).double(), eps=SURE)
        else:
            gap = judge(contexts, chosen).total.double() - judge(contexts, rejected).total.double()
        return [x if math.isfinite(x) else None for x in gap.tolist()]

    return ask

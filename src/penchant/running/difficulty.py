"""How hard a model finds pairs before it has learned anything: its log-ratio of rejected and chosen. It trains nothing, and it
judges neither the model nor the pairs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from penchant.domains.models import Loaded
from penchant.evaluation.diagnosis.material import Comparison
from penchant.feedback.records import Row

BUDGET = 2048
"""Tokens read at once."""


def log_ratios(loaded: Loaded) -> Callable[[Sequence[Comparison]], list[float]]:
    """c = log π(rejected) − log π(chosen), sums over tokens, of those comparisons that fit into the model."""

    def ask(some: Sequence[Comparison]) -> list[float]:
        rows = [Row(one.number, "pairs", one.asked, (one.chosen, one.rejected)) for one in some]
        encoded = loaded.domain.encode(rows)
        out: list[float] = []
        loaded.policy.eval()
        with torch.no_grad():
            for group in loaded.domain.cost(loaded.policy, encoded).micro_batches(BUDGET) if len(encoded) else ():
                total = loaded.domain.score(loaded.policy, encoded.select(group)).total.double()
                out += (total[1::2] - total[0::2]).tolist()
        return out

    return ask

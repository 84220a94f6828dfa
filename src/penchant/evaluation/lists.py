"""What graded lists say of a model: does its best response stand first, are its pairs in order, how good is its ranking.
It reads scored batches or the evidence made from them; no model or file is known here."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby

import torch

from penchant.evaluation.evidence import ListEvidence
from penchant.objectives.base import Objective
from penchant.objectives.scored import Lists, Scored

Measure = Callable[[Sequence[float], Sequence[float]], float]
"""A number of one list's rewards and grades."""


@torch.no_grad()
def list_evidence(objective: Objective, batches: Iterable[Lists], numbers: Sequence[int]) -> ListEvidence:
    """The numbers of scored batches, in order; `numbers` are the rows' numbers in their source. Lists whose grades are all
    equal prefer nothing and are left out."""
    columns: dict[str, list[list[float]]] = {name: [] for name in ("reward", "gain", "logp", "ref", "length")}
    speaks, referenced = objective.needs.head == "lm", True
    for batch in batches:
        batch = batch.kept()
        y, found = batch.y, {"reward": objective.reward(batch.y), "gain": batch.gain}
        if speaks:
            found |= {"logp": _total(y.logp, y), "length": y.mask.sum(-1).double()}
        if speaks and y.ref is not None:
            found["ref"] = _total(y.ref, y)
        referenced &= "ref" in found
        for name, x in found.items():
            table, mask = batch.dense(x)
            columns[name] += [row[there].tolist() for row, there in zip(table, mask, strict=True)]
    if len(columns["reward"]) != len(numbers):
        raise ValueError(f"{len(columns['reward'])} scored lists but {len(numbers)} row numbers.")
    kept = [i for i, gain in enumerate(columns["gain"]) if len(set(gain)) > 1]
    some = {name: [x[i] for i in kept] for name, x in columns.items() if x}
    return ListEvidence(
        [numbers[i] for i in kept],
        some.get("reward", []),
        some.get("gain", []),
        some.get("logp", []) if speaks else None,
        some.get("ref", []) if referenced else None,
        [[int(n) for n in row] for row in some.get("length", [])] if speaks else None,
    )


def _total(x: torch.Tensor, y: Scored) -> torch.Tensor:
    """Σ over each response's steps, [n], each counted once whatever the batch's weights are."""
    return torch.where(y.mask, x.double(), 0.0).sum(-1)


def best_first(reward: Sequence[float], gain: Sequence[float]) -> float:
    """1 where the response of the highest reward is one of those with the best grade. Of several that share the highest
    reward one is drawn, so a model that knows nothing gets the share of the best."""
    first = [g for r, g in zip(reward, gain, strict=True) if r == max(reward)]
    return sum(g == max(gain) for g in first) / len(first)


def in_order(reward: Sequence[float], gain: Sequence[float]) -> float:
    """Share of the list's pairs of unequal grade whose better response has the higher reward; equal rewards count half, so
    a guess gets ½. It is (1 + τ) / 2 of Kendall's τ over those pairs."""
    both = list(zip(reward, gain, strict=True))
    gaps = [r - s for r, g in both for s, h in both if g > h]
    return sum(1.0 if gap > 0 else 0.5 if gap == 0 else 0.0 for gap in gaps) / len(gaps)


def ndcg(reward: Sequence[float], gain: Sequence[float]) -> float:
    """Σ (2^g − 1) / log2(1 + place) over that of the best ranking, the grades g scaled to [0, 1] within the list, whatever
    their range (Järvelin and Kekäläinen 2002). Responses of equal reward share their places."""
    low, high = min(gain), max(gain)
    worth = [2 ** ((g - low) / (high - low)) - 1 for g in gain]
    return _dcg(reward, worth) / _dcg(worth, worth)


def _dcg(reward: Sequence[float], worth: Sequence[float]) -> float:
    place, total = 1, 0.0
    ranked = sorted(zip(reward, worth, strict=True), key=lambda both: -both[0])
    for _, tied in groupby(ranked, key=lambda both: both[0]):
        values = [w for _, w in tied]
        places = range(place, place := place + len(values))
        total += sum(values) / len(values) * sum(1 / math.log2(1 + k) for k in places)
    return total


def over(evidence: ListEvidence, measure: Measure) -> list[float]:
    """The measure of every list."""
    return [measure(reward, gain) for reward, gain in zip(evidence.reward, evidence.gain, strict=True)]

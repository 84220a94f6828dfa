"""Sums and counts of what a step saw, reduced once over micro-batches and ranks. Rewards are the objective's own: there is
no second formula to disagree with it."""

from __future__ import annotations

import torch
from accelerate import Accelerator
from torch import Tensor

from penchant.objectives.base import Objective, rewards
from penchant.objectives.scored import Batch, Labelled, Pairs, Scored


class Totals:
    """Running (sum, count) by name."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}

    def add(self, name: str, total: Tensor, count: Tensor | float) -> None:
        pair = torch.stack([total.double(), torch.as_tensor(count, dtype=torch.float64, device=total.device)])
        self._sums[name] = self._sums[name] + pair if name in self._sums else pair

    def scale(self, factor: float) -> None:
        self._sums = {name: pair * factor for name, pair in self._sums.items()}

    def reduce(self, accelerator: Accelerator) -> dict[str, tuple[float, float]]:
        """(sum, count) by name over all ranks. Every rank has added the same names, if only zeros."""
        names = sorted(self._sums)
        table = reduced(accelerator, torch.stack([self._sums[name] for name in names]).to(accelerator.device))
        return {name: (total, count) for name, (total, count) in zip(names, table.tolist(), strict=True)}


def measure(objective: Objective, batch: Batch, totals: Totals) -> None:
    """Adds what can be said of a batch: rewards, margin and accuracy where there is a reward, log π and lengths."""
    with torch.no_grad():
        if isinstance(batch, Pairs):
            _responses("chosen", objective, batch.w, totals)
            _responses("rejected", objective, batch.l, totals)
            if rewards(objective):
                margin = objective.reward(batch.w) - objective.reward(batch.l)
                totals.add("reward/margin", margin.sum(), len(margin))
                totals.add("reward/accuracy", (margin > 0).sum() + 0.5 * (margin == 0).sum(), len(margin))
        elif isinstance(batch, Labelled):
            _responses("good", objective, batch.y.take(batch.label), totals)
            _responses("bad", objective, batch.y.take(~batch.label), totals)
        else:
            _responses("all", objective, batch.responses, totals)


def _responses(name: str, objective: Objective, y: Scored, totals: Totals) -> None:
    if objective.needs.head == "lm":  # a score is no log-prob, and its one step no length
        totals.add(f"logp/{name}", y.unweighted().total.sum(), y.mask.sum())
        totals.add(f"length/{name}", y.length.sum(), len(y))
    if rewards(objective):
        totals.add(f"reward/{name}", objective.reward(y).sum(), len(y))


def reduced(accelerator: Accelerator, x: Tensor) -> Tensor:
    """The sum over all ranks."""
    return accelerator.reduce(x, "sum") if accelerator.num_processes > 1 else x  # pyright: ignore[reportReturnType]

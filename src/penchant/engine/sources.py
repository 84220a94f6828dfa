"""Rows with their reference log-probs, ready for the loop, and the plainest source of them: a file. Sampled rounds are the
other source, in rounds.py; the loop cannot tell them apart."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from penchant.domains.base import Domain, Encoded
from penchant.engine.batching import micro_batches, strangers
from penchant.engine.metrics import reduced
from penchant.engine.precision import Precision
from penchant.engine.settings import Settings
from penchant.engine.step import Material
from penchant.errors import Refusal
from penchant.objectives.base import Objective
from penchant.references.store import Store, fill

Progress = Callable[[str, int, int], None]
"""What is being done, how far it is, of how much."""

EVERYONE = "everyone"
"""The one annotator of data that names none."""


class Scorer:
    """Scores rows without gradient, as the policy or as its reference, in micro-batches."""

    def __init__(
        self,
        domain: Domain,
        policy: nn.Module,
        precision: Precision,
        device: torch.device,
        budget: int,
        as_reference: Callable[[], Any] | None,
        start: Callable[[], nn.Module],
    ) -> None:
        self.domain, self.policy, self.precision, self.device, self.budget = domain, policy, precision, device, budget
        self.moved = False
        """Whether the policy has left its start; until then it is its own reference."""
        self._as_reference, self._start = as_reference, start
        self._copy: nn.Module | None = None

    def now(self, encoded: Encoded) -> Tensor:
        """log π of every response, [n, steps]."""
        return self._score(self.policy, encoded)

    def at_start(self, encoded: Encoded) -> Tensor:
        """log π_ref of every response, [n, steps]: the policy without its adapter, or as it was when the run began."""
        with self.start() as policy:
            return self._score(policy, encoded)

    @contextmanager
    def start(self) -> Iterator[nn.Module]:
        """The policy as it was when the run began: without its adapter, itself until it moves, or a frozen copy."""
        if self._as_reference is not None:
            with self._as_reference():
                yield self.policy
        elif not self.moved:
            yield self.policy
        else:
            if self._copy is None:
                self._copy = self._start().requires_grad_(False).to(self.device)
            yield self._copy

    def _score(self, policy: nn.Module, encoded: Encoded) -> Tensor:
        with torch.no_grad(), self.precision.forward(self.device):
            return self.domain.score(policy, encoded).logp


class Anchors:
    """Makes Material of encoded rows: their reference log-probs and mismatched responses, as far as the objective asks."""

    def __init__(
        self,
        scorer: Scorer,
        objective: Objective,
        settings: Settings,
        accelerator: Accelerator,
        cache: Path,
        progress: Progress,
    ) -> None:
        self.scorer, self.objective, self.settings, self.accelerator = scorer, objective, settings, accelerator
        self.cache, self.progress = cache, progress

    def annotators(self, names: Iterable[str | None]) -> tuple[str, ...]:
        """The annotators of a run, each once. Where the objective asks for them and nobody is named, all rows are one's."""
        found = tuple(dict.fromkeys(name for name in names if name is not None))
        return found or ((EVERYONE,) if "annotator" in self.objective.needs.columns else ())

    def material(self, rows: Encoded, title: str, annotators: tuple[str, ...] | None = None) -> Material:
        """annotators: the run's, where these rows are only a part of it."""
        needs = self.objective.needs
        rows = rows.numbered(self.annotators(rows.annotators) if annotators is None else annotators)
        if rows.annotators == (EVERYONE,):
            rows = replace(rows, columns={**rows.columns, "annotator": torch.zeros(len(rows), dtype=torch.long)})
        unknown = needs.anchors - {"ref"}
        if unknown:
            raise Refusal(f"{self.objective!r} is held against {', '.join(sorted(unknown))}; this run provides only ref.")
        missing = needs.columns - set(rows.columns)
        if missing:
            have = ", ".join(sorted(rows.columns)) or "none"
            raise Refusal(f"{self.objective!r} needs the column {', '.join(sorted(missing))}; the data has: {have}.")
        for name in sorted(needs.columns):
            _everywhere(rows, name, self.objective)
        ref = self.stored(rows, title) if "ref" in needs.anchors else None
        if not needs.mismatched:
            return Material(rows, ref)
        other = strangers([c.numpy().tobytes() for c in rows.contexts], self.settings.seed)
        if not other:
            raise Refusal(
                f"{self.objective!r} compares prompts with other rows' responses, but all {len(rows)} rows have one prompt."
            )
        mixed = self.scorer.domain.recombine(rows, range(len(rows)), other)
        return Material(rows, ref, mixed, self.stored(mixed, f"{title}, mismatched") if ref is not None else None)

    def stored(self, rows: Encoded, title: str) -> Store:
        """log π_ref of the rows, from the cache or computed now."""
        store = Store(rows.counts, rows.lengths, rows.keys)
        fill(
            store,
            lambda some: self.scorer.at_start(rows.select(some)),
            micro_batches(rows.sizes, self.settings.tokens),
            folder=self.cache,
            gather=lambda x: reduced(self.accelerator, x.to(self.accelerator.device)).cpu(),
            rank=self.accelerator.process_index,
            world=self.accelerator.num_processes,
            progress=lambda done, total: self.progress(f"reference, {title}", done, total),
        )
        return store


def _everywhere(rows: Encoded, name: str, objective: Objective) -> None:
    """Refuses rows whose column has no value, which stands as NaN or −1."""
    column = rows.columns[name]
    empty = (column.isnan() if column.is_floating_point() else column < 0).nonzero()[:, 0].tolist()
    if empty:
        of = range(len(rows)) if len(column) == len(rows) else [i for i, n in enumerate(rows.counts) for _ in range(n)]
        some = ", ".join(str(rows.numbers[of[i]]) for i in empty[:10])
        raise Refusal(
            f"{objective!r} reads the {name} of every row, but {len(empty):,} of {len(column):,} have none: rows "
            f"{some}{' …' if len(empty) > 10 else ''}. Give it in these rows or leave them out."
        )


class FromFile:
    """Rows that are there: one phase."""

    phases = 1

    def __init__(self, rows: Encoded, anchors: Anchors) -> None:
        self._material = anchors.material(rows, "training rows")
        self.rows = self._material.rows
        self.annotators = self.rows.annotators

    def material(self, phase: int, step: int) -> Material:
        return self._material

"""Rows with their anchors, ready for the loop, and the plainest source of them: a file. Sampled rounds are the
other source, in rounds.py; the loop cannot tell them apart."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from penchant.domains.base import Domain, Encoded, Want
from penchant.engine.batching import strangers
from penchant.engine.metrics import reduced
from penchant.engine.precision import Precision
from penchant.engine.settings import Settings
from penchant.engine.step import Material, reads_reference
from penchant.errors import Refusal
from penchant.objectives.base import Objective, weighs
from penchant.objectives.scored import Scored
from penchant.references.store import Store, fill, shards

Progress = Callable[[str, int, int], None]
"""What is being done, how far it is, of how much."""

ANCHORS = frozenset({"ref", "prev", "history"})
"""What an objective can be held against in a run; `Anchors` says what each is."""
DRAWS = 8
"""Draws of noise that a measurement averages, where the domain has noise; the same ones at every measurement."""
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
        head: str = "lm",
    ) -> None:
        """head: what of the policy is read, in an objective's words."""
        self.domain, self.policy, self.precision, self.device, self.budget = domain, policy, precision, device, budget
        self.moved = False
        """Whether the policy has left its start; until then it is its own reference."""
        self._as_reference, self._start, self.head = as_reference, start, head
        self._copy: nn.Module | None = None

    def now(self, encoded: Encoded) -> Tensor:
        """log π of every response, [n, steps]."""
        return self.by(self.policy, encoded).logp

    def at_start(self, encoded: Encoded) -> Tensor:
        """log π_ref of every response, [n, steps]: the policy without its adapter, or as it was when the run began."""
        with self.start() as policy:
            return self.by(policy, encoded).logp

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

    def micro_batches(self, encoded: Encoded) -> list[list[int]]:
        """Positions of the rows in groups that are scored at once."""
        return self.domain.cost(self.policy, encoded).micro_batches(self.budget)

    def by(self, policy: nn.Module, encoded: Encoded, values: frozenset[str] = frozenset()) -> Scored:
        """What a policy says of every response, with the wanted values."""
        with torch.no_grad(), self.precision.forward(self.device):
            draws = DRAWS if self.domain.noisy else 1
            return self.domain.score(policy, encoded, Want(values=values, head=self.head, seed=0, draws=draws))


@dataclass(frozen=True)
class Past:
    """A saved model that a policy is held against."""

    name: str
    cache: Path
    """Where its log-probs are kept: a folder named by everything they depend on but the rows."""
    open: Callable[[], nn.Module]
    """Loads it, frozen. It is held in memory only while rows are scored that the cache lacks."""


@dataclass(frozen=True)
class Kept:
    """Where a phase keeps what the policy said at its start, for as long as the run lasts."""

    folder: Path
    begun: bool
    """Whether the policy has left that start, so that nothing can be added."""


class Anchors:
    """Makes Material of encoded rows: their anchors and mismatched responses, as far as the objective asks.

    ref: the policy as the run began. prev: as the phase began; in a run on a file that is the same. history: a family,
    history/0 = prev, then the saved models of the settings, newest first."""

    def __init__(
        self,
        scorer: Scorer,
        objective: Objective,
        settings: Settings,
        accelerator: Accelerator,
        cache: Path,
        progress: Progress,
        history: Sequence[Past] = (),
    ) -> None:
        self.history = tuple(history)
        self.scorer, self.objective, self.settings, self.accelerator = scorer, objective, settings, accelerator
        self.cache, self.progress = cache, progress

    def annotators(self, names: Iterable[str | None]) -> tuple[str, ...]:
        """The annotators of a run, each once. Where the objective asks for them and nobody is named, all rows are one's."""
        found = tuple(dict.fromkeys(name for name in names if name is not None))
        return found or ((EVERYONE,) if "annotator" in self.objective.needs.columns else ())

    def material(
        self, rows: Encoded, title: str, annotators: tuple[str, ...] | None = None, kept: Kept | None = None
    ) -> Material:
        """annotators: the run's, where these rows are only a part of it. kept: where the phase keeps its start, unless that
        is the run's. Raises Refusal where the objective reads what the rows lack."""
        needs = self.objective.needs
        rows = rows.numbered(self.annotators(rows.annotators) if annotators is None else annotators)
        if rows.annotators == (EVERYONE,):
            rows = replace(rows, columns={**rows.columns, "annotator": torch.zeros(len(rows), dtype=torch.long)})
        missing = needs.columns - set(rows.columns)
        if missing:
            have = ", ".join(sorted(rows.columns)) or "none"
            raise Refusal(f"{self.objective!r} needs the column {', '.join(sorted(missing))}; the data has: {have}.")
        for name in sorted(needs.columns):
            _everywhere(rows, name, self.objective)
        if weighs(self.objective) and rows.weights is None:
            raise Refusal(
                f"{self.objective!r} reads how much each token counts, but no row says so: give `chosen_weights`, "
                "`rejected_weights` (or `completion_weights`, `response_weights`) as [[start, end, weight], …] in characters."
            )
        live = reads_reference(self.objective, self.scorer.domain)
        anchors = {} if live else self.anchors(rows, title, kept=kept)
        if not needs.mismatched:
            return Material(rows, anchors)
        other = strangers([c.numpy().tobytes() for c in rows.contexts], self.settings.seed)
        if not other:
            raise Refusal(
                f"{self.objective!r} compares prompts with other rows' responses, but all {len(rows)} rows have one prompt."
            )
        mixed = self.scorer.domain.recombine(rows, range(len(rows)), other)
        beside = None if kept is None else Kept(kept.folder / "mismatched", kept.begun)
        held = {} if live and self.scorer.domain.noisy else self.anchors(mixed, f"{title}, mismatched", kept=beside)
        return Material(rows, anchors, mixed, held)

    def anchors(self, rows: Encoded, title: str, kept: Kept | None = None, also: Collection[str] = ()) -> dict[str, Store]:
        """The log-probs of every anchor that the objective needs, and of those in `also`, by name."""
        wanted = self.objective.needs.anchors | set(also)
        for name in sorted(wanted - ANCHORS):
            raise Refusal(f"{self.objective!r} is held against {name!r}, but a run provides {', '.join(sorted(ANCHORS))}.")
        if wanted and self.scorer.domain.noisy:
            raise Refusal(
                f"{self.objective!r} is held against {', '.join(sorted(wanted))}, but log-probs of {self.scorer.domain.name} "
                "hang on the noise of each step, so that only the reference is read along with the policy."
            )
        made: dict[str, Store] = {}
        if "ref" in wanted or (wanted and kept is None):
            made["ref"] = self.stored(rows, title)
        if wanted & {"prev", "history"}:
            made["prev"] = made["ref"] if kept is None else self._previous(rows, title, kept)
        if "history" in wanted:
            made["history/0"] = made["prev"]
            for i, past in enumerate(self.history, 1):
                made[f"history/{i}"] = self._past(rows, title, past)
        return {name: store for name, store in made.items() if name.partition("/")[0] in wanted}

    def stored(self, rows: Encoded, title: str) -> Store:
        """log π_ref of the rows, from the cache or computed now."""
        store = Store(rows.counts, rows.lengths, rows.keys)
        return self._filled(store, rows, self.scorer.at_start, self.cache, f"reference, {title}")

    def _previous(self, rows: Encoded, title: str, kept: Kept) -> Store:
        """What the policy said as this phase began: scored then, only read ever after."""
        store = Store(rows.counts, rows.lengths, rows.keys)
        if kept.begun:
            store.recall(kept.folder, shards(self.scorer.micro_batches(rows)))
            if store.missing:
                raise Refusal(
                    f"{kept.folder} lacks {len(store.missing):,} of {len(rows):,} rows: what the policy said as {title} began "
                    "is gone, and the policy has moved on. Start the run anew with --overwrite."
                )
            return store
        return self._filled(store, rows, self.scorer.now, kept.folder, f"start of {title}")

    def _past(self, rows: Encoded, title: str, past: Past) -> Store:
        """What a saved model says of the rows. It is loaded only if the cache lacks some, and let go at once."""
        model = cache(past.open)
        store = Store(rows.counts, rows.lengths, rows.keys)
        score = lambda some: self.scorer.by(model(), some).logp  # noqa: E731
        return self._filled(store, rows, score, past.cache, f"{past.name}, {title}")

    def _filled(self, store: Store, rows: Encoded, score: Callable[[Encoded], Tensor], folder: Path, title: str) -> Store:
        """The store with every row, from the folder or scored now."""
        fill(
            store,
            lambda some: score(rows.select(some)),
            self.scorer.micro_batches(rows),
            folder=folder,
            gather=lambda x: reduced(self.accelerator, x.to(self.accelerator.device)).cpu(),
            rank=self.accelerator.process_index,
            world=self.accelerator.num_processes,
            progress=lambda done, total: self.progress(title, done, total),
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

    def material(self, phase: int, step: int, begun: bool = False) -> Material:
        return self._material

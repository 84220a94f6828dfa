"""One optimiser step of any objective: count the units of the whole step, then sum. Accumulation, ranks and memory are
handled here once, so that 1×8 = 2×4 = 8×1 and one rank equals two; no method is named."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule

from penchant.domains.base import Domain, Encoded, Want
from penchant.domains.sharding import whole
from penchant.engine.batching import share
from penchant.engine.budget import halved
from penchant.engine.metrics import Totals, measure, reduced
from penchant.engine.precision import Precision
from penchant.errors import StoppedRun
from penchant.objectives.base import Objective, call, weighs
from penchant.objectives.scored import Batch, Scored, masks

Anchor = Callable[[Sequence[int]], Tensor]
"""An anchor's log-probs of all responses of the given rows, [n, steps], flat in row order."""


@dataclass(frozen=True, eq=False)
class Material:
    """What a step takes its rows from: the encoded rows, their anchors by name ("ref", "prev", "history/0", …), and (where
    an objective asks for them) the same prompts with another row's response."""

    rows: Encoded
    anchors: Mapping[str, Anchor] = field(default_factory=dict)
    """Without "ref" where the objective `reads_reference`."""
    mismatched: Encoded | None = None
    mismatched_anchors: Mapping[str, Anchor] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """What a step did."""

    loss: float
    grad_norm: float
    """Before clipping."""
    units: dict[str, int]
    """What each term counted over the whole step."""
    metrics: dict[str, float]
    tokens: int
    state: dict[str, Tensor] = field(default_factory=dict)


class BrokenStep(StoppedRun):
    """A loss or gradient that is not finite. No weight was changed."""

    def __init__(self, said: str, rows: list[int]) -> None:
        super().__init__(said)
        self.rows = rows
        """Positions of the rows concerned."""


class Step:
    """Carries out optimiser steps on a policy."""

    def __init__(
        self,
        policy: nn.Module,
        domain: Domain,
        objective: Objective,
        optimiser: torch.optim.Optimizer,
        accelerator: Accelerator,
        precision: Precision,
        *,
        tokens: int,
        clip: float,
        shrunk: Callable[[int, str], None] = lambda tokens, said: None,
    ) -> None:
        """shrunk: told the new token budget, and why, when a device had no memory for the old one."""
        self.policy, self.domain, self.objective, self.optimiser = policy, domain, objective, optimiser
        self.accelerator, self.precision, self.budget, self.clip = accelerator, precision, tokens, clip
        self.shrunk = shrunk
        self.parameters = [p for group in optimiser.param_groups for p in group["params"]]

    def __call__(self, material: Material, rows: Sequence[int], state: Mapping[str, Tensor], seed: int = 0) -> Outcome:
        """One step on the given rows, with the objective's state; the new state is in the outcome. seed: of the step's noise,
        where the domain has any. Raises BrokenStep,
        before any weight has changed, where the loss or its gradient is not finite. Where the device has no memory left, the
        step begins anew with half the token budget."""
        every, run = material.rows.select(rows), None
        while run is None:
            try:
                run = self._summed(material, every, rows, state, seed)
            except torch.OutOfMemoryError:
                self.optimiser.zero_grad(set_to_none=True)
            if run is None:  # out here: as long as the error is handled, it keeps what was computed
                self._halve(every)
        norm = whole(torch.nn.utils.clip_grad_norm_(self.parameters, self.clip))
        outcome = run.outcome(sum(every.sizes), float(norm))
        self.optimiser.step()
        return outcome

    def _summed(
        self, material: Material, every: Encoded, rows: Sequence[int], state: Mapping[str, Tensor], seed: int
    ) -> _Running:
        """The step's gradient, summed over micro-batches and ranks."""
        groups = [[rows[i] for i in group] for group in self._micro_batches(every)]
        mine = share(groups, self.accelerator.process_index, self.accelerator.num_processes)
        run = _Running(self, material, list(rows), dict(state), once=len(groups) == 1, seed=seed)

        self.optimiser.zero_grad(set_to_none=True)
        if self.objective.remembers and not run.once:
            with torch.no_grad():
                run.remember(run.batch(group, *run.score(group)) for group in mine)
        slopes = run.slopes(mine) if self.objective.couples and not run.once else None
        for k, group in enumerate(mine):
            with self._waiting(last=k == len(mine) - 1):
                encoded, y = run.score(group)
                batch = run.batch(group, encoded, y)
                if self.objective.remembers and run.once:
                    run.remember([batch])
                loss = run.loss(group, batch) if slopes is None else run.replay(group, y, slopes, batch)
                # Data-parallel wrappers average gradients over ranks, but the step is a sum over them.
                (loss * self.accelerator.num_processes).backward()
        return run

    def _halve(self, every: Encoded) -> None:
        """Cuts the step smaller. Several ranks cannot: the others may be waiting within a backward pass for this one's
        gradient, and would cut theirs otherwise than it does."""
        if self.accelerator.num_processes > 1:
            raise StoppedRun(
                f"rank {self.accelerator.process_index} has no memory left for a micro-batch of {self.budget:,} tokens, and "
                f"the other ranks are waiting for its gradient. Start again with --max-memory, or --tokens {self.budget // 2}."
            )
        fewer = halved(self.budget, self.domain.cost(self.policy, every).micro_batches)
        if fewer is None:
            raise StoppedRun(
                f"the device has no memory left for the longest of rows {', '.join(map(str, every.numbers[:10]))} alone; no "
                "weight was changed. Lower --max-length, train an adapter with --lora, or take a larger device."
            )
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        before, self.budget = self.budget, fewer
        self.shrunk(
            fewer,
            f"no memory left for micro-batches of {before:,} tokens: from this step on they have {fewer:,}, which changes "
            "results by rounding alone",
        )

    def _waiting(self, last: bool) -> AbstractContextManager[Any]:
        """Only the last micro-batch waits for the other ranks' gradients; where parameters are split, every one does: whole
        gradients would have to be kept in their place."""
        return nullcontext() if last or isinstance(self.policy, FSDPModule) else self.accelerator.no_sync(self.policy)

    def _micro_batches(self, rows: Encoded) -> list[list[int]]:
        return self.domain.cost(self.policy, rows).micro_batches(self.budget)

    def drift(self, material: Material, rows: Sequence[int]) -> float:
        """Largest |log π − log π_ref| of any token of these rows, as the step itself would score them."""
        run, worst = _Running(self, material, list(rows), {}, once=False, seed=0), 0.0
        with torch.no_grad():
            for group in self._micro_batches(material.rows.select(rows)):
                _, y = run.score([rows[i] for i in group])
                worst = max(worst, float(torch.where(y.mask, y.logp - y.anchor("ref"), 0.0).abs().max()))
        return worst


class _Running:
    """A step under way: its rows, its unit counts, the objective's state and the sums so far."""

    def __init__(
        self, step: Step, material: Material, rows: list[int], state: dict[str, Tensor], once: bool, seed: int
    ) -> None:
        self.step, self.material, self.rows, self.state, self.seed = step, material, rows, state, seed
        self.objective = step.objective
        self.once = once
        """One micro-batch: its statistics, its loss and what its loss couples come from one scoring."""
        self.whole = material.rows.select(rows)
        blank = self.whole.blank()
        self.counts = [term.count(blank) for _, term in self.objective.terms]
        self.totals = Totals()
        self.seen: list[tuple[list[int], Tensor]] = []

    def score(self, group: Sequence[int]) -> tuple[Encoded, Scored]:
        """Some rows with policy and anchors. An empty group scores one row and masks it out: the other ranks are waiting
        for this one's part in the reduction."""
        present = group or self.rows[:1]
        encoded = self.material.rows.select(present)
        return encoded, self._scored(encoded, self.material.anchors, present, blind=not group)

    def batch(self, group: Sequence[int], encoded: Encoded, y: Scored) -> Batch:
        """The batch an objective reads, with mismatched responses (never with gradient) where its statistics need them."""
        other, strange = None, self.material.mismatched
        if self.objective.needs.mismatched and strange is not None:
            present = group or self.rows[:1]
            with torch.no_grad():
                other = self._scored(
                    strange.select(present), self.material.mismatched_anchors, present, blind=not group, alone=True
                )
        return encoded.batch(y, other).kept()

    def _scored(
        self,
        encoded: Encoded,
        anchors: Mapping[str, Anchor],
        rows: Sequence[int],
        blind: bool,
        alone: bool = False,
    ) -> Scored:
        """blind: with no step counted. alone: without the values and weights that the objective reads of its own rows."""
        values = frozenset() if alone else self.objective.needs.scoring
        live = reads_reference(self.objective, self.step.domain) and "ref" not in anchors
        if live:
            values |= {"ref"}
        want = Want(values=values, head=self.objective.needs.head, seed=self.seed)
        with self.step.precision.forward(self.step.accelerator.device):
            y = self.step.domain.score(self.step.policy, encoded, want)
        beside = None if alone else self._weight(encoded, y.logp)
        held = _at(anchors, rows, y.logp) | ({"ref": y.value("ref")} if live else {})
        return Scored(y.logp, y.mask & False if blind else y.mask, None, held, y.values, beside)

    def _weight(self, encoded: Encoded, like: Tensor) -> Tensor | None:
        """The data's weights of single steps, where the objective reads them."""
        return encoded.weight.to(like) if weighs(self.objective) else None

    def remember(self, batches: Iterable[Batch]) -> None:
        """The objective's state, from statistics added up over micro-batches and ranks."""
        device = self.step.accelerator.device
        sums: dict[str, Tensor] = {}
        for batch in batches:
            with torch.no_grad():
                for name, pair in self.objective.statistics(batch, self.state).items():
                    table = torch.stack([x.detach().to(device, torch.float64) for x in pair])
                    sums[name] = sums[name] + table if name in sums else table
        names = sorted(sums)
        flat = reduced(self.step.accelerator, torch.cat([sums[name].flatten() for name in names])).float()
        tables = [
            part.view_as(sums[name]) for name, part in zip(names, flat.split([sums[n].numel() for n in names]), strict=True)
        ]
        self.state = self.objective.update(
            self.state, {name: (table[0], table[1]) for name, table in zip(names, tables, strict=True)}
        )

    def loss(self, group: Sequence[int], batch: Batch) -> Tensor:
        """Σ over terms of weight · Σ values / the whole step's units of that term."""
        loss = batch.responses.logp.sum() * 0.0  # padding has no values, but its backward pass must still run
        for i, ((weight, term), part) in enumerate(
            zip(self.objective.terms, self.objective.split(self.state), strict=True)
        ):
            values = call(term, batch, part)
            if self.counts[i]:
                loss = loss + weight * values.sum() / self.counts[i]
                self.totals.add(f"term/{i}", values.detach().sum() / self.counts[i], 0.0)
            self.seen.append((list(group), values.detach()))
        measure(self.objective, batch, self.totals)
        return loss

    def slopes(self, mine: Sequence[Sequence[int]]) -> Tensor:
        """dL/dlog π of every response of the step, [n, steps], for a loss that couples them: all log-probs of all ranks are
        gathered without a graph through the model, and the loss is differentiated with respect to them."""
        if self.objective.needs.scoring:
            raise StoppedRun(f"{self.objective!r} couples the whole step and reads values; only log-probs are replayed.")
        mask = masks(self.whole.steps(self.objective.needs.head)).to(self.step.accelerator.device)
        live = ("ref",) if reads_reference(self.objective, self.step.domain) and "ref" not in self.material.anchors else ()
        tables = torch.zeros(1 + len(live), *mask.shape, device=mask.device)
        with torch.no_grad():
            for group in mine:
                _, y = self.score(group)  # an empty one too: the other ranks are scoring
                if group:
                    for table, x in zip(tables, (y.logp, *map(y.anchor, live)), strict=True):
                        table[self._places(group), : x.shape[1]] = torch.where(y.mask, x, 0.0)
        tables = reduced(self.step.accelerator, tables)
        logp = tables[0].clone().requires_grad_()
        anchors = _at(self.material.anchors, self.rows, logp) | dict(zip(live, tables[1:], strict=True))
        whole = Scored(logp, mask, None, anchors, weight=self._weight(self.whole, logp))
        loss = self.loss(self.rows, self.whole.batch(whole))
        self.totals.scale(1 / self.step.accelerator.num_processes)  # every rank has just seen the whole step
        return torch.autograd.grad(loss, logp)[0]

    def replay(self, group: Sequence[int], y: Scored, slopes: Tensor, batch: Batch) -> Tensor:
        """A micro-batch's part of a coupled loss: log π times its slope has the right gradient."""
        if not group:
            return batch.responses.logp.sum() * 0.0
        slope = slopes[self._places(group), : y.logp.shape[1]]
        return torch.where(y.mask, y.logp * slope, 0.0).sum()

    def _places(self, group: Sequence[int]) -> list[int]:
        """Where the responses of these rows stand among the step's."""
        at = {row: k for k, row in enumerate(self.rows)}
        return self.whole.places([at[row] for row in group])

    def outcome(self, tokens: int, norm: float) -> Outcome:
        """The step's numbers over all ranks; refuses what is not finite."""
        table = self.totals.reduce(self.step.accelerator)
        terms = [table.pop(f"term/{i}", (0.0, 0.0))[0] for i in range(len(self.counts))]
        loss = sum(weight * value for (weight, _), value in zip(self.objective.terms, terms, strict=True))
        if not (math.isfinite(loss) and math.isfinite(norm)):
            culprits = sorted({i for group, values in self.seen if not bool(values.isfinite().all()) for i in group})
            rows = culprits or self.rows
            numbers = ", ".join(str(self.material.rows.numbers[i]) for i in rows[:10])
            what = "loss" if not math.isfinite(loss) else "gradient"
            raise BrokenStep(
                f"the {what} is not finite (loss {loss}, gradient norm {norm}) on rows {numbers}"
                f"{' …' if len(rows) > 10 else ''}; no weight was changed. Look at these rows, lower the learning rate, or "
                "run with --precision fp32.",
                rows,
            )
        metrics = {name: total / count for name, (total, count) in table.items() if count}
        if len(terms) > 1:
            metrics |= {f"loss/{name}": value for name, value in zip(_names(self.objective), terms, strict=True)}
        units = {name: count for name, count in zip(_names(self.objective), self.counts, strict=True)}
        return Outcome(loss, norm, units, metrics, tokens, {name: x.detach() for name, x in self.state.items()})


def reads_reference(objective: Objective, domain: Domain) -> bool:
    """Whether every step has the reference read, so that a pass over all rows before would be one too many: for a divergence
    of whole distributions, or because log π is an estimate in noise that policy and reference must share."""
    return objective.needs.anchors == {"ref"} and (domain.noisy or "kl" in objective.needs.values)


def _at(anchors: Mapping[str, Anchor], rows: Sequence[int], like: Tensor) -> dict[str, Tensor]:
    """Every anchor's log-probs of some rows."""
    return {name: anchor(rows).to(like) for name, anchor in anchors.items()}


def _names(objective: Objective) -> list[str]:
    """A name for each term: its class, numbered where two are of one class."""
    names = [type(term).__name__ for _, term in objective.terms]
    return [name if names.count(name) == 1 else f"{name}.{i}" for i, name in enumerate(names)]

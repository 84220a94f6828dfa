"""Batches of every kind, made up for any objective by what it needs, and what can be done to them: change every response,
take rows, put micro-batches together. No law stands here, and no method's name."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from penchant.objectives import Batch, Labelled, Lists, Objective, Pairs, Rollouts, Scored
from penchant.objectives.base import weighs
from penchant.objectives.scored import FAMILIES, Grouped

Kind = type[Batch]
LEVELS = {"annotator": 3}
"""How many values the categorical columns take here."""


def anchors_of(need: str) -> list[str]:
    """The anchors that a need stands for: of a family, two."""
    return [f"{need}/0", f"{need}/1"] if need in FAMILIES else [need]


def responses(objective: Objective, n: int, seed: int, junk: float = math.nan, widest: int = 4) -> Scored:
    """n responses of 1 to `widest` steps with what the objective needs, in float64; `junk` stands in the pads."""
    make = torch.Generator().manual_seed(seed)
    normal = lambda: torch.randn(n, widest, generator=make, dtype=torch.float64)  # noqa: E731
    lengths = torch.randint(1, widest + 1, (n,), generator=make)
    mask = torch.arange(widest)[None] < lengths[:, None]
    pads = lambda x: torch.where(mask, x, junk)  # noqa: E731
    logp = -normal().exp()
    anchors = {name: pads(logp + 0.7 * normal()) for need in sorted(objective.needs.anchors) for name in anchors_of(need)}
    values = {name: pads(normal()) for name in sorted(objective.needs.values - {"weight"})}
    seen = pads(logp).requires_grad_()
    return Scored(
        seen,
        mask,
        anchors=anchors,
        values=tied(seen, values),
        weight=pads(0.5 + torch.rand(n, widest, generator=make, dtype=torch.float64)) if weighs(objective) else None,
    )


def columns_of(objective: Objective, rows: int, make: torch.Generator) -> dict[str, Tensor]:
    """What the objective reads of each row: who said so; how surely (the chosen is what is preferred, so from 1/2 to 1);
    other numbers in [0, 1)."""
    number = lambda: torch.rand(rows, generator=make, dtype=torch.float64)  # noqa: E731
    known = {
        "annotator": lambda: torch.randint(LEVELS["annotator"], (rows,), generator=make),
        "strength": lambda: 0.5 + number() / 2,
    }
    return {name: known.get(name, number)() for name in sorted(objective.needs.columns)}


def example(objective: Objective, kind: Kind, rows: int = 4, seed: int = 0, **how: Any) -> Any:
    """A batch of `rows` rows of the given kind."""
    make = torch.Generator().manual_seed(seed + 10_000)
    columns = columns_of(objective, rows, make)
    scored = lambda k, n=rows: responses(objective, n, seed * 10 + k, **how)  # noqa: E731
    if kind is Pairs:
        return Pairs(scored(1), scored(2), **columns)
    if kind is Labelled:
        label = torch.arange(rows) % 2 == seed % 2
        other = scored(3).detach() if objective.needs.mismatched else None
        return Labelled(scored(1), label, other, **columns)
    if issubclass(kind, Grouped):
        group = torch.arange(rows).repeat_interleave(2 + torch.arange(rows) % 3)  # lists of 2, 3, 4, 2 … responses
        gain = torch.rand(len(group), generator=make, dtype=torch.float64)
        gain = torch.where(group == group.roll(1), gain, 1.0)  # the first of each list is as good as can be
        y = scored(1, len(group))
        mean = torch.stack([gain[group == g].mean() for g in group])
        return Lists(y, group, gain, **columns) if kind is Lists else Rollouts(y, group, gain, gain - mean, **columns)
    raise NotImplementedError(f"the laws do not make {kind.__name__} yet")


def mapped(batch: Any, f: Callable[[Scored], Scored]) -> Any:
    """The batch with every set of scored responses changed by f."""
    if isinstance(batch, Pairs):
        return Pairs(f(batch.w), f(batch.l), **batch.columns)
    if isinstance(batch, Labelled):
        other = None if batch.mismatched is None else f(batch.mismatched)
        return Labelled(f(batch.y), batch.label, other, **batch.columns)
    return regrouped(batch, f(batch.y), slice(None), batch.columns)


def regrouped(batch: Any, y: Scored, at: Any, columns: Mapping[str, Tensor]) -> Any:
    """A batch of the same kind with other responses, what was said of those at `at`, and columns."""
    if isinstance(batch, Rollouts):
        return Rollouts(y, batch.group[at], batch.reward[at], batch.advantage[at], **columns)
    assert isinstance(batch, Lists)
    return Lists(y, batch.group[at], batch.gain[at], **columns)


def rows_of(batch: Any, index: Sequence[int]) -> Any:
    """Some rows (pairs, labelled responses, whole lists) of a batch, in the given order."""
    at = torch.tensor(list(index), dtype=torch.long)
    columns = {name: x[at] for name, x in batch.columns.items()}
    if isinstance(batch, Pairs):
        return Pairs(batch.w.take(at), batch.l.take(at), **columns)
    if isinstance(batch, Labelled):
        other = None if batch.mismatched is None else batch.mismatched.take(at)
        return Labelled(batch.y.take(at), batch.label[at], other, **columns)
    flat = torch.cat([(batch.group == batch.group.unique()[i]).nonzero()[:, 0] for i in at])
    return regrouped(batch, batch.y.take(flat), flat, columns)


def size(batch: Any) -> int:
    return (
        len(batch.group.unique()) if isinstance(batch, Grouped) else len(batch.w if isinstance(batch, Pairs) else batch.y)
    )


def tied(logp: Tensor, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The values that go with these log-probs: of a picture the log-prob is its error times a negative number."""
    return {**values, "error": -logp} if "error" in values else dict(values)


def leaves(batch: Any) -> list[Tensor]:
    return [batch.w.logp, batch.l.logp] if isinstance(batch, Pairs) else [batch.y.logp]


def changed(y: Scored, f: Callable[[Tensor], Tensor], mask: Tensor | None = None) -> Scored:
    """The responses with f applied to every table of numbers."""
    anchors = {name: f(x) for name, x in y.anchors.items()}
    logp, values = f(y.logp), {name: f(x) for name, x in y.values.items()}
    weight = None if y.weight is None else f(y.weight).detach()
    return Scored(logp, y.mask if mask is None else mask, None, anchors, tied(logp, values), weight)


def merged(batches: Sequence[Any]) -> Any:
    """The micro-batches as one batch, padded to one width."""

    def one(parts: Sequence[Scored]) -> Scored:
        widest = max(y.logp.shape[1] for y in parts)
        cat = lambda of: torch.cat([pad(of(y), (0, widest - y.logp.shape[1])) for y in parts])  # noqa: E731
        anchors = {name: cat(lambda y, name=name: y.anchors[name]) for name in parts[0].anchors}
        values = {name: cat(lambda y, name=name: y.values[name]) for name in parts[0].values}
        weight = cat(lambda y: y.weight) if weighed else None
        return Scored(cat(lambda y: y.logp), cat(lambda y: y.mask), None, anchors, values, weight)

    first, pad = batches[0], torch.nn.functional.pad
    weighed = first.responses.weight is not None
    join = lambda of: torch.cat([of(batch) for batch in batches])  # noqa: E731
    columns = {name: join(lambda batch, name=name: batch.columns[name]) for name in first.columns}
    if isinstance(first, Pairs):
        return Pairs(one([batch.w for batch in batches]), one([batch.l for batch in batches]), **columns)
    y = one([batch.y for batch in batches])
    if isinstance(first, Labelled):
        other = None if first.mismatched is None else one([batch.mismatched for batch in batches])
        return Labelled(y, join(lambda batch: batch.label), other, **columns)
    assert isinstance(first, Lists)
    return Lists(y, join(lambda batch: batch.group), join(lambda batch: batch.gain), **columns)


def shuffled(batch: Grouped) -> Any:
    """The same lists, their responses in another order and among one another."""
    at = torch.randperm(len(batch.y), generator=torch.Generator().manual_seed(0))
    return regrouped(batch, batch.y.take(at), at, batch.columns)


def leaf(batch: Any) -> Scored:
    return batch.w if isinstance(batch, Pairs) else batch.y

"""What every objective promises, each law a function that raises AssertionError where it does not hold. `test_laws.py` runs
them on all objectives and shows for each that a wrong objective breaks it; nothing here knows a method by name."""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from examples import (
    LEVELS,
    Kind,
    anchors_of,
    changed,
    columns_of,
    example,
    leaf,
    leaves,
    mapped,
    merged,
    responses,
    rows_of,
    shuffled,
    tied,
)
from penchant.objectives import Labelled, Objective, Pairs, Scored, read
from penchant.objectives.base import Range, call, zeros
from penchant.objectives.scored import Grouped

# The step, as the engine does it -------------------------------------------------------------------


def state_of(objective: Objective, batches: Sequence[Any]) -> dict[str, Tensor]:
    """The state of a step: statistics added over its micro-batches."""
    state, sums = zeros(objective, LEVELS), {}
    if not objective.remembers:
        return state
    for batch in batches:
        for name, (total, count) in objective.statistics(batch.kept(), state).items():
            assert not total.requires_grad and not count.requires_grad, "statistics carry no gradient"
            old = sums.get(name, (0.0, 0.0))
            sums[name] = (old[0] + total.double(), old[1] + count.double())
    return objective.update(state, sums)


def step(objective: Objective, batches: Sequence[Any]) -> Tensor:
    """Count over the whole step, then sum: Σ over terms and micro-batches of weight · Σ values / count. A loss that couples
    the step is evaluated once, on all micro-batches together."""
    parts = objective.split(state_of(objective, batches))
    batches = [merged(batches)] if objective.couples else batches
    loss = torch.zeros((), dtype=torch.float64)
    for (weight, term), part in zip(objective.terms, parts, strict=True):
        count = sum(term.count(batch) for batch in batches)
        loss = loss + weight * sum(call(term, batch.kept(), part).sum() for batch in batches) / max(count, 1)
    return loss


def slopes(loss: Tensor, batch: Any) -> list[Tensor]:
    found = torch.autograd.grad(loss, leaves(batch), allow_unused=True)
    return [torch.zeros_like(x) if g is None else g for g, x in zip(found, leaves(batch), strict=True)]


def values_of(objective: Objective, batch: Any) -> Tensor:
    return objective(batch, state=state_of(objective, [batch]))


# The laws ------------------------------------------------------------------------------------------


def finite(objective: Objective, kind: Kind, numbers: Sequence[float]) -> None:
    """Value and gradient are finite for all finite inputs, in float32 (a square may overflow where 1e16 tokens would)."""
    supply = torch.tensor(numbers, dtype=torch.float32)
    start = example(objective, kind)

    def filled(y: Scored) -> Scored:
        k = 0

        def fill(x: Tensor) -> Tensor:
            nonlocal k
            k += 1
            return supply.roll(k)[torch.arange(x.numel()) % len(supply)].view(x.shape).requires_grad_()

        return changed(y, fill)

    batch = mapped(start, filled)
    values = values_of(objective, batch)
    assert values.isfinite().all(), f"loss {values}"
    for slope in slopes(values.sum(), batch):
        assert slope.isfinite().all(), f"gradient {slope}"


def gradient(objective: Objective, kind: Kind) -> None:
    """The gradient is the derivative: it equals finite differences in float64."""
    batch = example(objective, kind, rows=3, seed=1, junk=-7.0)
    state = state_of(objective, [batch])

    def loss(*logps: Tensor) -> Tensor:
        each = iter(logps)

        def swap(y: Scored) -> Scored:
            logp = next(each, y.logp) if y.logp.requires_grad else y.logp
            return dataclasses.replace(y, logp=logp, values=tied(logp, y.values))

        return objective(mapped(batch, swap), state=state)

    assert torch.autograd.gradcheck(loss, leaves(batch), raise_exception=False), "autograd and finite differences disagree"


def descent(objective: Objective, kind: Kind) -> None:
    """At policy = reference, a descent step raises the good responses and lowers the bad ones."""
    batch = example(objective, kind, junk=0.0)

    def level(y: Scored) -> Scored:
        logp = -1.0 + torch.where(y.mask, y.logp.detach() / 200, 0.0)
        two = (torch.arange(y.mask.shape[1]) < 2).expand_as(y.mask)  # of one length, so that sums are level too
        weight = None if y.weight is None else torch.where(y.mask, y.weight, 1.0)
        logp.requires_grad_()
        return Scored(logp, two, None, dict.fromkeys(y.anchors, logp.detach()), tied(logp, y.values), weight)

    batch = mapped(batch, level)
    found = [g[:, :2] for g in slopes(values_of(objective, batch).sum(), batch)]
    if isinstance(batch, Pairs):
        good, bad = found
    elif isinstance(batch, Labelled):
        good, bad = found[0][batch.label], found[0][~batch.label]
    else:
        by_list = lambda pick: torch.stack([found[0][i] for i in pick])  # noqa: E731
        rank = [[i for i in range(len(batch.y)) if batch.group[i] == g] for g in batch.group.unique()]
        good = by_list([max(r, key=lambda i: float(batch.gain[i])) for r in rank])
        bad = by_list([min(r, key=lambda i: float(batch.gain[i])) for r in rank])
    assert (good < 0).all(), f"a descent step lowers a good response: {good}"
    assert (bad > 0).all(), f"a descent step raises a bad response: {bad}"


def mirror(objective: Objective, kind: Kind) -> None:
    """Swapping the pair negates the reward margin, and the order that the rewards agree with is never the costlier."""
    w, l = responses(objective, 32, 5), responses(objective, 32, 6)
    margin = objective.reward(w) - objective.reward(l)
    assert torch.equal(margin, -(objective.reward(l) - objective.reward(w)))
    columns = columns_of(objective, 32, torch.Generator().manual_seed(7))
    state = state_of(objective, [Pairs(w, l, **columns)])
    right, wrong = (objective(Pairs(*both, **columns), state=state) for both in ((w, l), (l, w)))
    assert (torch.where(margin > 0, right - wrong, wrong - right) <= 1e-9).all(), "the wrong order costs less"


def strength(objective: Objective, kind: Kind) -> None:
    """That w is preferred to l with probability p, and l to w with 1 − p, is the same thing said twice."""
    w, l = responses(objective, 32, 5), responses(objective, 32, 6)
    columns = columns_of(objective, 32, torch.Generator().manual_seed(7))
    one = Pairs(w, l, **columns)
    other = Pairs(l, w, **{**columns, "strength": 1 - columns["strength"]})
    state = state_of(objective, [one])
    torch.testing.assert_close(objective(one, state=state), objective(other, state=state), rtol=1e-9, atol=1e-12)


def every_field(objective: Objective, kind: Kind) -> None:
    """Changing any field changes the loss, the reward or what the objective remembers."""
    hints = typing.get_type_hints(type(objective), include_extras=True)

    def outcome(o: Objective, batch: Any) -> list[Tensor]:
        state = state_of(o, [batch])
        made = [o(batch, state=state), *state.values()]
        if type(o).reward is not Objective.reward:
            made.append(o.reward(leaf(batch)))
        return made

    for field in dataclasses.fields(typing.cast(Any, objective)):
        for other in others(getattr(objective, field.name), hints[field.name]):
            twin = dataclasses.replace(typing.cast(Any, objective), **{field.name: other})
            batch = example(objective + twin, kind, rows=6, seed=3)  # a field may change what is needed
            pairs = zip(outcome(objective, batch), outcome(twin, batch), strict=True)
            same = all(a.shape == b.shape and torch.allclose(a, b, rtol=1e-9) for a, b in pairs)
            assert not same, f"{field.name}={other!r} changes nothing"


def others(value: Any, hint: Any) -> list[Any]:
    """Other allowed values of a field."""
    if typing.get_origin(hint) is typing.Annotated:
        (allowed,) = (extra for extra in hint.__metadata__ if isinstance(extra, Range))
        return [next(x for x in (value * 1.5 + 0.01, value / 2 + 0.001, (value + allowed.low) / 2) if x in allowed)]
    if typing.get_origin(hint) is typing.Literal:
        return [x for x in typing.get_args(hint) if x != value]
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, Objective):
        return [read("CPO(beta=0.7)")]
    raise NotImplementedError(f"the laws know no other value of {hint}")


def accumulation(objective: Objective, kind: Kind) -> None:
    """1×8 = 2×4 = 4×2 = 8×1: Σ over micro-batches / the step's count is the whole batch's, value and gradient."""
    whole = example(objective, kind, rows=8, seed=2)
    value = step(objective, [whole])
    slope = slopes(value, whole)
    for parts in (2, 4, 8):
        split = [rows_of(whole, range(k, 8, parts)) for k in range(parts)]
        again = step(objective, split)
        torch.testing.assert_close(again, value, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(slopes(again, whole), slope, rtol=1e-9, atol=1e-12)


def order_and_padding(objective: Objective, kind: Kind) -> None:
    """More padding, whatever stands in it, and another order of the rows change nothing."""
    batch = example(objective, kind, rows=5, seed=4)
    state = state_of(objective, [batch])
    value = objective(batch, state=state)
    more = lambda x: torch.cat([x, torch.full((len(x), 3), math.inf, dtype=x.dtype)], 1)  # noqa: E731
    wider = mapped(batch, lambda y: changed(y, more, torch.cat([y.mask, y.mask[:, :1].expand(-1, 3) & False], 1)))
    torch.testing.assert_close(objective(wider, state=state_of(objective, [wider])), value)
    torch.testing.assert_close(slopes(objective(wider, state=state).sum(), batch), slopes(value.sum(), batch))
    turned = rows_of(batch, [3, 0, 4, 1, 2])
    assert objective.count(turned) == objective.count(batch) == len(value)
    torch.testing.assert_close(step(objective, [turned]), step(objective, [batch]))
    torch.testing.assert_close(slopes(step(objective, [turned]), batch), slopes(step(objective, [batch]), batch))
    if isinstance(batch, Grouped):
        mixed = shuffled(batch)
        torch.testing.assert_close(step(objective, [mixed]), step(objective, [batch]))
        torch.testing.assert_close(slopes(step(objective, [mixed]), batch), slopes(step(objective, [batch]), batch))


def padding_rows(objective: Objective, kind: Kind) -> None:
    """Rows without a single step count nothing, move no statistic and have no loss value."""
    batch = example(objective, kind, rows=4, seed=6)
    empty = torch.tensor([False, True, False, True])[:, None]
    if isinstance(batch, Grouped):
        empty = empty[batch.group]
    hollow = mapped(batch, lambda y: changed(y, lambda x: x, y.mask & ~empty))
    full = rows_of(batch, [0, 2])
    assert objective.count(hollow) == objective.count(full) == objective.count(hollow.kept())
    torch.testing.assert_close(step(objective, [hollow]), step(objective, [full]))
    nothing = mapped(batch, lambda y: changed(y, lambda x: x, y.mask & False))
    assert objective.count(nothing) == 0
    assert objective(nothing.kept(), state=state_of(objective, [full])).shape == (0,)


def missing_need(objective: Objective, kind: Kind) -> None:
    """What an objective needs and the batch lacks is named in a sentence."""
    needs, batch = objective.needs, example(objective, kind)
    state = state_of(objective, [batch])
    for name in sorted(needs.anchors | needs.values):
        lacking = mapped(
            batch,
            lambda y, name=name: Scored(
                y.logp, y.mask, None, {k: x for k, x in y.anchors.items() if k not in anchors_of(name)},
                {k: x for k, x in y.values.items() if k != name}, None if name == "weight" else y.weight,
            ),
        )  # fmt: skip
        _says(name, lambda lacking=lacking: objective(lacking, state=state))
    for name in sorted(needs.columns):
        lacking = mapped(batch, lambda y: y)
        lacking.columns = {k: x for k, x in batch.columns.items() if k != name}
        _says(name, lambda lacking=lacking: objective(lacking, state=state))
    if needs.mismatched:
        _says("mismatched", lambda: objective.statistics(Labelled(batch.y, batch.label), state))
    totals = objective.statistics(batch, state)
    for name in objective.init(LEVELS):
        lacking = {k: x for k, x in state.items() if k != name}  # read by the loss, or by the update before it
        _says(name, lambda lacking=lacking: (objective(batch, state=lacking), objective.update(lacking, totals)))


def _says(name: str, act: Callable[[], object]) -> None:
    try:
        act()
    except ValueError as said:
        assert "needs" in str(said) and repr(name) in str(said), f"the sentence does not name {name}: {said}"
        return
    raise AssertionError(f"{name} is needed, but its absence went unnoticed")


def half_precision(objective: Objective, kind: Kind) -> None:
    """float16 and bfloat16 inputs are summed in float32 and give what float32 gives for the same numbers."""
    batch = example(objective, kind, rows=4, seed=7)
    for half in (torch.float16, torch.bfloat16):
        low = mapped(batch, lambda y, half=half: changed(y, lambda x: x.detach().to(half).requires_grad_()))
        same = mapped(low, lambda y: changed(y, lambda x: x.detach().float().requires_grad_()))
        got = values_of(objective, low)
        assert got.dtype == torch.float32, f"the loss came out as {got.dtype}"
        torch.testing.assert_close(got, values_of(objective, same), rtol=1e-5, atol=1e-6)
        assert all(bool(g.isfinite().all()) for g in slopes(got.sum(), low))


def plain_dataclass(objective: Objective, kind: Kind) -> None:
    """Frozen, hashable, equal by its fields, written so that it can be read back, and deaf to unknown names."""
    fields = dataclasses.fields(typing.cast(Any, objective))
    twin = dataclasses.replace(typing.cast(Any, objective))
    assert twin == objective and hash(twin) == hash(objective)
    assert read(repr(objective)) == objective
    for field in fields:
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(objective, field.name, getattr(objective, field.name))
    with pytest.raises(TypeError, match="unexpected keyword"):
        type(objective)(**{f.name: getattr(objective, f.name) for f in fields}, **{"label_smoothing": 0.1})

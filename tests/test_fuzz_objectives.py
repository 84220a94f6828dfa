"""No objective gives anything but finite numbers for finite scores, whatever they are: the extremes that real runs come to, all
objectives, the sums the field knows, and what can be wrapped around them. That the numbers are right is tested elsewhere."""

from __future__ import annotations

import copy
import math
import random
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from examples import LEVELS, Kind, anchors_of, leaves
from laws import slopes, state_of
from penchant.errors import Refusal
from penchant.feedback.fields import LARGEST
from penchant.feedback.spans import LEAST, MOST
from penchant.objectives import Labelled, Lists, Objective, Pairs, Rollouts, Scored, Wrapper, catalogue, read
from penchant.objectives.base import Range, call, kinds_of, weighs
from penchant.objectives.composed import COMPOSED
from test_laws import ALL, SUMS, WRAPPED, NotANumberAtOne, Overflows

LOGP = [0.0, -0.0, -1e-38, -1e-45, -1e-7, -1e-3, -1.0, -50.0, -1e3, -1e4]
RATIO = [0.0, 1e-7, -1e-7, 1.0, -1.0, 30.0, -30.0, 89.0, -89.0, 1e3, -1e3]
VALUE = [0.0, 1e-7, 1.0, 30.0, 1e3]
WEIGHT = [0.0, LEAST, 1.0, MOST]
STRENGTH = [0.0, 1e-7, 0.5, 1 - 2**-24, 1.0]
NUMBER = [0.0, 1e-45, -1e-7, 1.0, -1.0, LARGEST, -LARGEST]
SIZES = [1, 1, 2, 3, 8, 64]


def wrapped() -> list[tuple[Objective, Kind]]:
    """Every wrapper around everything it takes."""
    found: list[tuple[Objective, Kind]] = []
    outer = [name for name, cls in catalogue().items() if issubclass(cls, Wrapper)]
    for o, kind in ALL:
        for name in [*outer, "TokenWeighted"]:
            try:
                made = read(f"{name}({o!r})")
            except Refusal:
                continue
            if kind in kinds_of(made) and not repr(o).startswith("TokenWeighted"):
                found.append((made, kind))
    return found


COMPOSITIONS = [(o, kind) for o in (read(one.written) for one in COMPOSED) for kind in kinds_of(o)]
EVERYTHING = [*ALL, *WRAPPED, *SUMS, *COMPOSITIONS, *wrapped()]


class Draw:
    """Batches of extremes, from a seed."""

    def __init__(self, objective: Objective, seed: str) -> None:
        self.objective, self.random = objective, random.Random(seed)
        self.generator = torch.Generator().manual_seed(self.random.randrange(2**31))

    def some(self, values: list[float], *shape: int) -> Tensor:
        """A mixture of the values, or one of them throughout, or two."""
        kept = self.random.choice([values, values, [self.random.choice(values)], self.random.choices(values, k=2)])
        return torch.tensor(kept, dtype=torch.float32)[torch.randint(len(kept), shape, generator=self.generator)]

    def scored(self, n: int, steps: int) -> Scored:
        logp = self.some(LOGP, n, steps)
        if self.random.random() < 0.3:
            logp = logp * torch.rand(n, steps, generator=self.generator)
        mask = torch.arange(steps)[None] < torch.randint(1, steps + 1, (n, 1), generator=self.generator)
        junk = self.random.choice([math.nan, math.inf, -math.inf, 7.0])
        pads = lambda x: torch.where(mask, x, junk)  # noqa: E731
        names = [name for need in sorted(self.objective.needs.anchors) for name in anchors_of(need)]
        anchors = {name: pads(logp - self.some(RATIO, n, steps)) for name in names}
        values = {name: pads(self.some(VALUE, n, steps)) for name in sorted(self.objective.needs.scoring)}
        weight = pads(self.some(WEIGHT, n, steps)) if weighs(self.objective) else None
        return Scored(pads(logp).requires_grad_(), mask, anchors=anchors, values=values, weight=weight)

    def columns(self, rows: int) -> dict[str, Tensor]:
        known = {
            "annotator": lambda: torch.randint(LEVELS["annotator"], (rows,), generator=self.generator),
            "strength": lambda: self.some(STRENGTH, rows),
        }
        return {name: known.get(name, lambda: self.some(NUMBER, rows))() for name in sorted(self.objective.needs.columns)}

    def gains(self, n: int) -> Tensor:
        allowed = [getattr(term, "base", term) for _, term in self.objective.terms]
        ranges = [term.gains for term in allowed if hasattr(term, "gains")] or [Range()]
        return self.some(NUMBER, n).clamp(max(r.low for r in ranges), min(r.high for r in ranges))

    def batch(self, kind: Kind) -> Any:
        rows, steps = self.random.choice([1, 1, 2, 3, 8]), self.random.choice([1, 2, 5, 17])
        if kind is Pairs:
            return Pairs(self.scored(rows, steps), self.scored(rows, self.random.choice([steps, 1])), **self.columns(rows))
        if kind is Labelled:
            label = self.some([0.0, 1.0], rows).bool()
            other = self.scored(rows, steps).detach() if self.objective.needs.mismatched else None
            return Labelled(self.scored(rows, steps), label, other, **self.columns(rows))
        sizes = torch.tensor([self.random.choice(SIZES) for _ in range(min(rows, 3))])
        group = torch.repeat_interleave(torch.arange(len(sizes)), sizes) * self.random.choice([1, -3])
        group = group[torch.randperm(len(group), generator=self.generator)]
        gain, y = self.gains(len(group)), self.scored(len(group), steps)
        return Lists(y, group, gain) if kind is Lists else Rollouts(y, group, gain, gain.clone())


def tensors(batch: Any) -> list[Tensor]:
    """Everything a batch holds."""
    sides = [batch.w, batch.l] if isinstance(batch, Pairs) else [batch.y]
    inside = [
        x for y in sides for x in (y.logp, y.mask, *y.anchors.values(), *y.values.values(), y.weight) if x is not None
    ]
    said = [getattr(batch, name) for name in ("label", "group", "gain", "advantage") if hasattr(batch, name)]
    return [x.detach() for x in (*inside, *said, *batch.columns.values())]


def sane(objective: Objective, kind: Kind, seed: str) -> None:
    """Loss, gradient and memory are finite; there are as many values as units; pads have no gradient and inputs stay."""
    batch = Draw(objective, seed).batch(kind)
    before = copy.deepcopy(tensors(batch))
    state = state_of(objective, [batch])
    assert all(bool(x.isfinite().all()) for x in state.values()), f"state {state}"
    for (_, term), part in zip(objective.terms, objective.split(state), strict=True):
        values = call(term, batch, part)
        assert values.dtype == torch.float32 and values.shape == (term.count(batch),)
        assert values.isfinite().all(), f"loss {values}"
        found = slopes(values.sum(), batch) if values.requires_grad else [torch.zeros_like(x) for x in leaves(batch)]
        for slope, y in zip(found, [batch.w, batch.l] if isinstance(batch, Pairs) else [batch.y], strict=True):
            assert slope.isfinite().all(), f"gradient {slope}"
            assert not slope[~y.mask].any(), "a pad has a gradient"
    same = [torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in zip(before, tensors(batch), strict=True)]
    assert all(same), "an input was changed in place"


def search(examples: int) -> None:
    @settings(max_examples=examples, deadline=None, database=None, derandomize=True)
    @given(st.integers(0, 10**9))
    def check(seed: int) -> None:
        for objective, kind in EVERYTHING:
            try:
                sane(objective, kind, f"{objective!r} {kind.__name__} {seed}")
            except Exception as error:
                raise AssertionError(f"{objective!r} on {kind.__name__}, seed {seed}: {error}") from error

    check()


def test_finite_scores_give_finite_losses_and_gradients_for_every_objective() -> None:
    assert len(EVERYTHING) > 250
    search(2)


@pytest.mark.claims
def test_finite_scores_give_finite_losses_and_gradients_for_every_objective_in_thousands() -> None:
    search(500)


@pytest.mark.parametrize("wrong", [Overflows(), NotANumberAtOne()], ids=repr)
def test_a_loss_that_overflows_or_is_undefined_at_an_edge_is_found(wrong: Objective) -> None:
    with pytest.raises(AssertionError, match=r"loss|gradient"):
        for seed in range(50):
            sane(wrong, Pairs, str(seed))


def test_a_power_that_leaves_the_number_format_is_refused() -> None:
    with pytest.raises(Refusal, match=r"sft_power must lie in \[0, 8\]"):
        read("PRO(sft_power=100)")

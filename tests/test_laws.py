"""The laws, on every objective that `catalogue()` finds and on sums of them; and for each law an objective that is wrong on
purpose, which it must catch."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

import laws
from penchant.errors import Refusal
from penchant.objectives import (
    CPO,
    DPO,
    IPO,
    KTO,
    NLL,
    ORPO,
    Labelled,
    Objective,
    Paired,
    Pairs,
    Scored,
    SimPO,
    Wrapper,
    catalogue,
)
from penchant.objectives.base import REFERENCE, Needs, Positive, kinds_of, rewards

BREAKABLE = {"descent", "gradient", "mirror", "order"}


def variants(cls: type[Objective]) -> list[Objective]:
    """The objective with its defaults, and once for each other word or switch of its fields. Wrappers wrap IPO,
    whose loss is no log-likelihood, so that all their fields show; WRAPPED has others."""
    fields = dataclasses.fields(typing.cast(Any, cls))
    inner = {f.name: IPO() for f in fields if f.default is dataclasses.MISSING}
    hints = typing.get_type_hints(cls, include_extras=True)
    made = [cls(**inner)]
    for f in fields:
        if hints[f.name] is bool or typing.get_origin(hints[f.name]) is typing.Literal:
            made += [cls(**inner, **{f.name: other}) for other in laws.others(f.default, hints[f.name])]
    return made


ALL = [(o, kind) for cls in catalogue().values() for o in variants(cls) for kind in kinds_of(o)]
WRAPPED = [
    (dataclasses.replace(typing.cast(Any, o), base=base), Pairs)
    for o, _ in ALL
    if isinstance(o, Wrapper)
    for base in (DPO(), SimPO(), CPO(), ORPO())
]
SUMS = [
    (DPO() + 0.1 * NLL(), Pairs),
    (SimPO() + 0.2 * NLL(reduction="token"), Pairs),
    (KTO() + 0.3 * NLL(), Labelled),
]
name = lambda x: repr(x) if isinstance(x, Objective) else x.__name__  # noqa: E731


def objectives(law: str, which: list[Any] = ALL) -> Any:
    """The objectives that say they keep the law."""
    kept = [(o, kind) for o, kind in which if law not in o.breaks]
    return pytest.mark.parametrize(("objective", "kind"), kept, ids=[f"{name(o)} on {name(k)}" for o, k in kept])


NUMBERS = st.one_of(
    st.floats(-1e8, 0, width=32),
    st.floats(-60, 0, width=32),
    st.sampled_from([0.0, -0.0, -1e-38, -1e-7, -1e-3, -50.0, -1e4]),
)


@objectives("finite", ALL + WRAPPED)
def test_finite_for_all_finite_inputs(objective: Objective, kind: laws.Kind):
    @settings(max_examples=25, deadline=None, database=None)
    @given(st.lists(NUMBERS, min_size=1, max_size=9))
    def check(numbers: list[float]) -> None:
        laws.finite(objective, kind, numbers)

    check()


@objectives("gradient", ALL + WRAPPED)
def test_gradient_equals_finite_differences(objective: Objective, kind: laws.Kind):
    laws.gradient(objective, kind)


@objectives("descent", ALL + WRAPPED)
def test_descent_raises_the_chosen_and_lowers_the_rejected(objective: Objective, kind: laws.Kind):
    laws.descent(objective, kind)


@objectives("mirror", [(o, k) for o, k in ALL + WRAPPED if k is Pairs and rewards(o)])
def test_swapping_the_pair_mirrors(objective: Objective, kind: laws.Kind):
    laws.mirror(objective, kind)


@objectives("strength", [(o, k) for o, k in ALL if k is Pairs and "strength" in o.needs])
def test_a_strength_says_the_same_from_either_side(objective: Objective, kind: laws.Kind):
    laws.strength(objective, kind)


@objectives("every field")
def test_every_field_matters(objective: Objective, kind: laws.Kind):
    laws.every_field(objective, kind)


@objectives("accumulation", ALL + WRAPPED + SUMS)
def test_accumulation_invariance(objective: Objective, kind: laws.Kind):
    laws.accumulation(objective, kind)


@objectives("order", ALL + WRAPPED)
def test_padding_and_order_change_nothing(objective: Objective, kind: laws.Kind):
    laws.order_and_padding(objective, kind)


@objectives("padding rows", ALL + WRAPPED)
def test_padding_rows_contribute_nothing(objective: Objective, kind: laws.Kind):
    laws.padding_rows(objective, kind)


@objectives("missing need", ALL + WRAPPED + SUMS[:1])
def test_a_missing_need_is_a_sentence(objective: Objective, kind: laws.Kind):
    laws.missing_need(objective, kind)


@objectives("half precision", ALL + WRAPPED + SUMS[:1])
def test_half_precision_is_accepted(objective: Objective, kind: laws.Kind):
    laws.half_precision(objective, kind)


@objectives("plain dataclass", ALL + WRAPPED)
def test_frozen_hashable_and_written_as_python(objective: Objective, kind: laws.Kind):
    laws.plain_dataclass(objective, kind)


@pytest.mark.parametrize("objective", [o for o, _ in ALL if o.breaks], ids=repr)
def test_a_broken_law_is_really_broken_and_said_in_one_line(objective: Objective):
    check = {"descent": laws.descent, "gradient": laws.gradient, "mirror": laws.mirror, "order": laws.order_and_padding}
    for law, why in objective.breaks.items():
        assert law in BREAKABLE, f"{law} may not be broken"
        assert 10 < len(why) < 200 and "\n" not in why and why.endswith(".")
        with pytest.raises(AssertionError):
            check[law](objective, kinds_of(objective)[0])  # pyright: ignore[reportArgumentType]


# Every law can fail: an objective that is wrong on purpose, for each -------------------------------


@dataclass(frozen=True)
class _Like(Paired):
    """DPO, to be spoiled."""

    beta: Positive = 0.1
    needs = REFERENCE

    def reward(self, y: Scored) -> Float[Tensor, "n"]:
        return self.beta * y.ratio

    def loss(self, w: Tensor, l: Tensor) -> Tensor:
        return -logsigmoid(w - l)


@dataclass(frozen=True)
class Overflows(_Like):
    def loss(self, w: Tensor, l: Tensor) -> Tensor:
        return torch.log(1 + torch.exp(l - w))


@dataclass(frozen=True)
class NotANumberAtOne(_Like):
    def reward(self, y: Scored) -> Tensor:
        return y.mean - torch.log1p(-torch.exp(y.mean))


@dataclass(frozen=True)
class Detached(_Like):
    def loss(self, w: Tensor, l: Tensor) -> Tensor:
        return -logsigmoid(w - l.detach())


@dataclass(frozen=True)
class WrongSign(_Like):
    def loss(self, w: Tensor, l: Tensor) -> Tensor:
        return -logsigmoid(w) - logsigmoid(l)


@dataclass(frozen=True)
class Backwards(_Like):
    def loss(self, w: Tensor, l: Tensor) -> Tensor:
        return -logsigmoid(l - w)


@dataclass(frozen=True)
class Inert(_Like):
    label_smoothing: Positive = 0.1


@dataclass(frozen=True)
class AveragesItself(_Like):
    def loss(self, w: Tensor, l: Tensor) -> Tensor:
        return -logsigmoid(w - l) / len(w)


@dataclass(frozen=True)
class CountsPads(_Like):
    def reward(self, y: Scored) -> Tensor:
        return torch.where(y.mask, y.logp - y.anchor("ref"), 0.0).mean(-1)


@dataclass(frozen=True)
class LooksAtNeighbours(_Like):
    def loss(self, w: Tensor, l: Tensor) -> Tensor:
        return -logsigmoid(w - l.roll(1))


@dataclass(frozen=True)
class CountsRows(_Like):
    def count(self, batch: Any) -> int:
        return len(batch.w)


@dataclass(frozen=True)
class FillsIn(_Like):
    def reward(self, y: Scored) -> Tensor:
        return self.beta * (y.ratio if "ref" in y.anchors else y.total)


@dataclass(frozen=True)
class SumsInHalf(_Like):
    def reward(self, y: Scored) -> Tensor:
        return self.beta * torch.where(y.mask, y.logp - y.anchor("ref"), 0.0).sum(-1)


@dataclass(frozen=True)
class HalfAStrength(_Like):
    needs = REFERENCE | Needs(columns=frozenset({"strength"}))

    def __call__(self, batch: Any, l: Any = None, state: Any = None) -> Tensor:
        return batch.column("strength") * self.loss_scored(batch.w, batch.l)


@pytest.mark.parametrize(
    ("law", "wrong"),
    [
        (lambda o, k: laws.finite(o, k, [-1e8, -1.0]), Overflows()),
        (lambda o, k: laws.finite(o, k, [0.0]), NotANumberAtOne()),
        (laws.gradient, Detached()),
        (laws.descent, WrongSign()),
        (laws.mirror, Backwards()),
        (laws.strength, HalfAStrength()),
        (laws.every_field, Inert()),
        (laws.accumulation, AveragesItself()),
        (laws.order_and_padding, CountsPads()),
        (laws.order_and_padding, LooksAtNeighbours()),
        (laws.padding_rows, CountsRows()),
        (laws.missing_need, FillsIn()),
        (laws.half_precision, SumsInHalf()),
    ],
    ids=lambda x: type(x).__name__ if isinstance(x, Objective) else "",
)
def test_each_law_catches_an_objective_that_breaks_it(law: Callable[[Any, Any], None], wrong: Objective):
    with pytest.raises(AssertionError):
        law(wrong, Pairs)


def test_a_plain_dataclass_is_required():
    class Loose(_Like):
        def __init__(self, **anything: float) -> None:
            object.__setattr__(self, "beta", 0.1)

    with pytest.raises((AssertionError, Refusal)):
        laws.plain_dataclass(Loose(), Pairs)

"""The wrapper mechanism, shown on a toy: it asks a pairwise objective both ways round and refuses what is not pairwise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

import laws
from penchant.errors import Refusal
from penchant.objectives import CDPO, DPO, KTO, NLL, Objective, Pairs, SimPO, Wrapper
from penchant.objectives.base import Flip, Needs, State


@dataclass(frozen=True)
class Softened(Wrapper):
    """(1−ε) L(w, l) + ε L(l, w)        the label smoothing of any pairwise objective"""

    flip: Flip = 0.1
    """ε, the share of labels taken to be wrong."""

    needs = Needs(columns=frozenset({"annotator"}))

    def __call__(self, batch: Pairs, state: State | None = None) -> Tensor:
        batch.column("annotator")
        here, there = self.base.loss_scored(batch.w, batch.l), self.base.loss_scored(batch.l, batch.w)
        return (1 - self.flip) * here + self.flip * there


def pairs(objective: Objective) -> Any:
    return laws.example(objective, Pairs, rows=5)


def test_a_wrapper_reads_both_orders():
    soft = Softened(DPO(beta=0.3), flip=0.2)
    batch = pairs(soft)
    torch.testing.assert_close(soft(batch), CDPO(beta=0.3, flip=0.2)(batch))
    torch.testing.assert_close(soft.reward(batch.w), DPO(beta=0.3).reward(batch.w))


def test_its_needs_are_its_own_and_its_bases():
    assert Softened(DPO()).needs == Needs(anchors=frozenset({"ref"}), columns=frozenset({"annotator"}))
    assert Softened(SimPO()).needs == Needs(columns=frozenset({"annotator"}))
    assert Softened.needs == Needs(columns=frozenset({"annotator"})), "the class itself is untouched"


@pytest.mark.parametrize("other", [KTO(), NLL(), DPO() + DPO(), Softened(DPO()), "DPO()"], ids=repr)
def test_it_refuses_what_is_not_pairwise(other: Any):
    with pytest.raises(Refusal, match="base must be a pairwise objective"):
        Softened(other)


def test_it_is_written_and_compared_by_its_fields():
    assert repr(Softened(DPO())) == "Softened(DPO(beta=0.1), flip=0.1)"
    assert Softened(DPO()) == Softened(DPO()) != Softened(DPO(beta=0.2))
    assert repr(Softened(SimPO(), flip=0) + 0.1 * NLL()).startswith(
        "Softened(SimPO(beta=2.0, gamma=0.5), flip=0.0) + 0.1 * NLL"
    )


@pytest.mark.parametrize(
    "law",
    [
        laws.gradient,
        laws.descent,
        laws.every_field,
        laws.accumulation,
        laws.order_and_padding,
        laws.padding_rows,
        laws.missing_need,
        laws.half_precision,
    ],
    ids=lambda law: law.__name__,
)
def test_it_keeps_the_laws(law: Any):
    law(Softened(DPO()), Pairs)

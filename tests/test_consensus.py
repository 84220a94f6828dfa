"""Consensus beyond its golden numbers: the likelihood whose gradient it follows, the reliabilities it remembers, and what it
refuses. The paper's theorem is tested here as it is stated, on its operator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

import laws
from penchant.engine.memory import followed, whole
from penchant.errors import Refusal
from penchant.objectives import (
    CDPO,
    CPO,
    DPO,
    IPO,
    KTO,
    LNDPO,
    NLL,
    ORPO,
    OSP,
    RDPO,
    Consensus,
    Objective,
    Paired,
    Pairs,
    Scored,
    SimPO,
    StrengthWeighted,
    Unbiased,
)
from penchant.objectives.base import Positive

BASES = [DPO(beta=0.3), IPO(), SimPO(), CPO(), ORPO(), LNDPO()]


@dataclass(frozen=True)
class WholeCPO(Paired):
    """-log σ( β log π(y_w) − β log π(y_l) ) − log π(y_w)        the paper's CPO, whose second part is not on two rewards"""

    beta: Positive = 0.1
    """β"""

    def reward(self, y: Scored) -> Tensor:
        return self.beta * y.total

    def loss_scored(self, w: Scored, l: Scored) -> Tensor:
        return -logsigmoid(self.reward(w) - self.reward(l)) - w.total


def one(logp: float, ref: float | None = None, steps: int = 1) -> Scored:
    table = lambda x: torch.full((1, steps), x / steps, dtype=torch.float64)  # noqa: E731
    return Scored(table(logp), torch.ones(1, steps, dtype=torch.bool), None if ref is None else table(ref))


def with_logits(g: list[float], who: list[int]) -> Pairs:
    """Pairs whose DPO(beta=1) logit is g."""
    column = torch.tensor(g, dtype=torch.float64)[:, None]
    mask = torch.ones_like(column, dtype=torch.bool)
    return Pairs(Scored(column, mask, 0 * column), Scored(0 * column, mask, 0 * column), annotator=torch.tensor(who))


def remembered(eta: list[float]) -> dict[str, Tensor]:
    return {name: torch.tensor(eta, dtype=torch.float64) for name in ("eta", "eta_used")}


def after(objective: Objective, batch: Any, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return objective.update(state, objective.statistics(batch, state))


@pytest.mark.parametrize("base", [*BASES, WholeCPO()], ids=repr)
def test_the_slope_is_that_of_the_likelihood_of_the_labels(base: Paired):
    objective = Consensus(base)
    batch = laws.example(objective, Pairs, rows=8, junk=0.0)
    eta = torch.tensor([0.95, 0.6, 0.3], dtype=torch.float64)
    p = torch.sigmoid(base.loss_scored(batch.l, batch.w) - base.loss_scored(batch.w, batch.l))
    believed = eta[batch.column("annotator")]
    likelihood = -(believed * p + (1 - believed) * (1 - p)).log()
    found = laws.slopes(objective(batch, state={"eta_used": eta}).sum(), batch)
    torch.testing.assert_close(found, laws.slopes(likelihood.sum(), batch), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("base", "w", "l", "g", "p"),
    [
        (IPO(tau=0.1), one(4, 0, 30), one(0, 0), 2.666667, 0.935031),
        (SimPO(beta=1, gamma=1), one(-1.4), one(-1.0), -0.582929, 0.358258),
        (WholeCPO(beta=0.1), one(-1), one(-4), 3.3, 0.964429),
    ],
    ids=["IPO", "SimPO", "CPO with its NLL"],
)
def test_any_pairwise_loss_gives_a_probability(base: Paired, w: Scored, l: Scored, g: float, p: float):
    right, wrong = Consensus(base).both_ways(Pairs(w, l))
    assert (wrong - right).item() == pytest.approx(g, abs=1e-6)
    assert torch.sigmoid(wrong - right).item() == pytest.approx(p, abs=1e-6)


def test_a_loss_that_is_more_than_two_rewards_is_read_both_ways_round():
    whole, part = Consensus(WholeCPO(beta=0.1)), Consensus(CPO(beta=1.1))
    batch = laws.example(whole, Pairs, rows=6)
    state = remembered([0.9, 0.7, 0.6])
    torch.testing.assert_close(whole(batch, state=state), part(batch, state=state))  # the NLL enters as a difference


def test_a_step_moves_the_reliability_by_the_confidences_its_loss_used():
    objective, batch, state = Consensus(DPO(beta=1)), with_logits([0.15, -3, 3], [0, 0, 0]), remembered([0.9])
    new = after(objective, batch, state)
    assert new["eta"].item() == pytest.approx(0.883888, abs=1e-6)
    assert torch.equal(new["eta_used"], state["eta"])
    w = torch.tensor([0.912713, 0.309432, 0.994499], dtype=torch.float64)
    g = torch.tensor([0.15, -3, 3], dtype=torch.float64)
    torch.testing.assert_close(
        objective(batch, state=new), -w * logsigmoid(g) - (1 - w) * logsigmoid(-g), atol=1e-5, rtol=0
    )
    assert not torch.allclose(objective(batch, state=after(objective, batch, new)), objective(batch, state=new))


def test_who_is_not_in_a_step_keeps_the_reliability_to_the_bit():
    objective = Consensus(DPO(beta=1))
    state = {name: torch.tensor([0.9, 0.1 + 0.2, 1 / 3]) for name in ("eta", "eta_used")}
    new = after(objective, with_logits([2.0, -1.0], [2, 2]), state)["eta"]
    assert torch.equal(new[:2], state["eta"][:2]) and not torch.equal(new[2], state["eta"][2])


def test_renaming_the_annotators_renames_the_reliabilities():
    objective = Consensus(SimPO())
    batch = laws.example(objective, Pairs, rows=9)
    state = remembered([0.9, 0.8, 0.7])
    swap = torch.tensor([2, 0, 1])  # annotator k is now called swap[k]
    renamed = Pairs(batch.w, batch.l, annotator=swap[batch.column("annotator")])
    other = {name: x[swap.argsort()] for name, x in state.items()}
    torch.testing.assert_close(
        after(objective, renamed, other)["eta"][swap], after(objective, batch, state)["eta"], rtol=0, atol=0
    )
    assert torch.equal(objective(renamed, state=other), objective(batch, state=state))


@pytest.mark.parametrize("start", [0.9, 0.3, 0.02, 0.98])
def test_with_a_calibrated_policy_the_reliability_becomes_the_true_one(start: float):
    """Theorem 4.1. The operator on the population: pairs of p = 0.95, 0.8, 0.3, labels right with probability 0.7."""
    true, objective = 0.7, Consensus(DPO(beta=1), rate=1.0)
    p = torch.tensor([0.95, 0.8, 0.3], dtype=torch.float64)
    share = torch.cat([true * p + (1 - true) * (1 - p), true * (1 - p) + (1 - true) * p]) / 3
    batch = with_logits(torch.cat([p, 1 - p]).logit().tolist(), list(range(6)))
    found, eta = [], start
    for _ in range(60):
        totals = objective.statistics(batch, remembered([eta] * 6))
        weighted = {"eta": ((share * totals["eta"][0]).sum()[None], torch.ones(1))}
        eta = objective.update(remembered([eta]), weighted)["eta"].item()
        found.append(eta)
    assert eta == pytest.approx(true, abs=1e-9)
    known = {0.9: [0.844130, 0.721993, 0.700008], 0.3: [0.465403, 0.676082, 0.699992]}
    if start in known:
        assert [found[0], found[4], found[19]] == pytest.approx(known[start], abs=1e-6)


def test_at_its_start_it_smooths_labels():
    batch = with_logits([0.0], [0])
    batch.w.logp.requires_grad_()
    slope = laws.slopes(Consensus(DPO(beta=1))(batch, state=remembered([0.7])).sum(), Pairs(batch.w, batch.w))[0]
    smooth = laws.slopes(CDPO(beta=1, flip=0.3)(batch).sum(), Pairs(batch.w, batch.w))[0]
    torch.testing.assert_close(slope, smooth)


def test_in_a_sum_it_keeps_its_own_memory():
    objective = Consensus(SimPO()) + 0.1 * NLL() + Consensus(CPO(), start=0.8)
    state = objective.init({"annotator": 2})
    assert {name: x.tolist() for name, x in state.items() if name.endswith("eta")} == {
        "0.eta": pytest.approx([0.9] * 2),
        "2.eta": pytest.approx([0.8] * 2),
    }
    assert set(objective.shown(state)) == {"0.reliability/annotator", "2.reliability/annotator"}
    assert set((Consensus(SimPO()) + 0.1 * NLL()).shown(state)) == {"reliability/annotator"}


def test_few_annotators_are_followed_by_name_and_many_by_their_extremes():
    objective = Consensus(DPO())
    few = objective.shown(remembered([0.9, 0.5]))
    assert followed(few, {"annotator": ("ada", "a/b")}) == {"state/reliability/ada": 0.9, "state/reliability/a/b": 0.5}
    assert whole(few, {"annotator": ("ada", "a/b")}) == {"reliability/annotator": {"ada": 0.9, "a/b": 0.5}}
    many = objective.shown(remembered([0.9, *(k / 10 for k in range(9))]))
    names = {"annotator": tuple(map(str, range(10)))}
    assert followed(many, names) == {
        "state/reliability/lowest": 0.0,
        "state/reliability/median": 0.5,
        "state/reliability/highest": 0.9,
    }
    assert len(whole(many, names)["reliability/annotator"]) == 10
    assert followed(KTO().shown(KTO().init()), names) == {"state/z0": 0.0}


@dataclass(frozen=True)
class Coupled(DPO):
    couples = True


@pytest.mark.parametrize(
    ("base", "said"),
    [
        (KTO(), "must be a pairwise objective"),
        (CPO() + NLL(), "must be a pairwise objective"),
        (Consensus(DPO()), "must be a pairwise objective"),
        (OSP(), "must be a pairwise objective"),
        (Coupled(), "either way round"),
    ],
    ids=repr,
)
@pytest.mark.parametrize("wrapper", [Consensus, StrengthWeighted])
def test_what_has_no_loss_both_ways_round_is_refused(wrapper: Any, base: Any, said: str):
    with pytest.raises(Refusal, match=said):
        wrapper(base)


def test_every_row_has_one_of_the_annotators():
    objective = Consensus(DPO(beta=1))
    for who in ([0, -1], [0, 3]):
        with pytest.raises(Refusal, match="every row needs its annotator"):
            objective(with_logits([1.0, 1.0], who), state=remembered([0.9, 0.9]))
    with pytest.raises(Refusal, match="how many there are"):
        objective.init()
    for start in (0.5, 1, 0.2):
        with pytest.raises(Refusal, match="start must lie in"):
            Consensus(DPO(), start=start)


@pytest.mark.parametrize("base", BASES, ids=repr)
@pytest.mark.parametrize("flip", [0.1, 0.4])
def test_averaged_over_flips_the_unbiased_loss_is_that_on_true_labels(base: Paired, flip: float):
    batch = laws.example(base, Pairs, rows=8, junk=0.0)
    turned = Pairs(batch.l, batch.w)
    robust = Unbiased(base, flip=flip)
    torch.testing.assert_close((1 - flip) * robust(batch) + flip * robust(turned), base(batch), rtol=1e-9, atol=1e-9)
    if "ref" in base.needs:
        torch.testing.assert_close(Unbiased(DPO(), flip=flip)(batch), RDPO(flip=flip)(batch))

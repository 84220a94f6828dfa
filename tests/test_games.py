"""What ties the anchored and game objectives to one another and to their papers: each is a setting of another somewhere."""

from __future__ import annotations

import torch
from torch.testing import assert_close

import laws
from penchant.objectives import (
    DPO,
    EGPO,
    INPO,
    IPO,
    MNPO,
    ONPO,
    REBEL,
    SPPO,
    TRPA,
    CoPG,
    Lists,
    NashIPO,
    Objective,
    Pairs,
    Scored,
)


def pairs(objective: Objective, rows: int = 6) -> Pairs:
    return laws.example(objective, Pairs, rows)


def as_list(batch: Pairs, gain: torch.Tensor) -> Lists:
    """Each pair as a list of two, the chosen with `gain`, the rejected with 0."""
    n, whole = len(batch.w), batch.responses
    return Lists(whole, torch.arange(n).repeat(2), torch.cat([gain, torch.zeros_like(gain)]))


def test_with_all_the_pull_to_the_reference_the_mirror_steps_are_ipo():
    batch, ipo = pairs(MNPO() + INPO()), IPO(tau=0.5, average=False)
    assert_close(MNPO(eta=0.5, ratio=1)(batch), ipo(batch))
    assert_close(INPO(eta=0.5, ratio=1)(batch), ipo(batch))


def test_a_past_that_is_the_reference_makes_them_ipo_too():
    same = laws.mapped(
        pairs(MNPO()),
        lambda y: Scored(y.logp, y.mask, y.ref, dict.fromkeys(("prev", "history/0", "history/1"), y.anchor("ref"))),
    )
    assert_close(MNPO(eta=0.5, ratio=0.3)(same), IPO(tau=0.5, average=False)(same))
    assert_close(INPO(eta=0.5, ratio=0.3)(same), IPO(tau=0.5, average=False)(same))
    assert_close(ONPO(eta=2)(same), IPO(tau=0.5, average=False)(same))


def test_mnpo_with_the_newest_policy_alone_is_inpo():
    batch = laws.mapped(
        pairs(MNPO()), lambda y: Scored(y.logp, y.mask, y.ref, {**y.anchors, "prev": y.anchor("history/0")})
    )
    assert_close(MNPO(decay=0)(batch), INPO()(batch))


def test_certain_preferences_make_the_soft_losses_hard():
    batch = pairs(NashIPO() + SPPO())
    sure = Pairs(batch.w, batch.l, strength=torch.ones(len(batch.w), dtype=torch.float64))
    assert_close(NashIPO(tau=0.5)(sure), IPO(tau=0.5, average=False)(sure))
    assert_close(SPPO(eta=4)(sure), SPPO(eta=4, hard=True)(sure))
    assert "strength" in SPPO().needs and "strength" not in SPPO(hard=True).needs


def test_copg_on_pairs_is_egpo_and_ipo_by_its_rewards():
    batch = pairs(EGPO())
    lists = as_list(batch, batch.column("margin"))
    assert_close(CoPG(beta=0.3)(lists), 0.3 / 2 * EGPO(beta=0.3)(batch))
    half = as_list(batch, torch.full((len(batch.w),), 0.5, dtype=torch.float64))
    assert_close(CoPG(beta=0.3)(half), 0.3 / 2 * IPO(tau=0.3, average=False)(batch))


def test_rebel_from_the_reference_is_egpo_with_the_reciprocal():
    same = laws.mapped(pairs(EGPO() + REBEL()), lambda y: Scored(y.logp, y.mask, y.ref, {"prev": y.anchor("ref")}))
    assert_close(REBEL(eta=4)(same), EGPO(beta=1 / 4)(same) / 16)


def test_copg_pulls_each_response_by_its_leave_one_out_advantage():
    batch = laws.example(CoPG(), Lists, rows=3)
    held = batch.gain - CoPG().reward(batch.y).detach()
    wanted = torch.empty_like(held)
    for i in range(len(held)):
        others = [j for j in range(len(held)) if batch.group[j] == batch.group[i] and j != i]
        wanted[i] = -(held[i] - held[others].mean())
    (slope,) = torch.autograd.grad(CoPG()(batch).sum(), batch.y.logp)
    assert_close(slope[:, 0], wanted)
    shifted = Lists(batch.y, batch.group, batch.gain + 10.0 * batch.group)
    assert_close(CoPG()(shifted), CoPG()(batch), rtol=1e-9, atol=1e-9)


def test_trpa_with_two_levels_and_no_anisotropy_is_dpo_over_the_pairs():
    batch = pairs(DPO())
    lists = as_list(batch, torch.ones(len(batch.w), dtype=torch.float64))
    assert_close(TRPA(anisotropy=1)(lists), DPO()(batch))
    assert TRPA().count(lists) == len(batch.w)

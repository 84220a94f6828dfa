"""What ties the methods to one another and to their papers: values at the start, identities, limits. The single numbers
are in tests/golden; what holds for all of them is in tests/test_laws.py."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

import laws
from penchant.errors import Refusal
from penchant.objectives import (
    AOT,
    BCO,
    CDPO,
    CPO,
    DPO,
    DPOP,
    EXO,
    FDPO,
    IPO,
    KTO,
    LNDPO,
    NCA,
    NLL,
    ORPO,
    OSP,
    RDPO,
    AlphaDivergenceDPO,
    AOTUnpaired,
    APODown,
    APOZero,
    BetaDPO,
    Hinge,
    Labelled,
    LengthDesensitisedDPO,
    LengthRegularisedDPO,
    Objective,
    Pairs,
    RelativePO,
    RewardAwarePO,
    Scored,
    SimPO,
    catalogue,
)


def pairs(rows: int = 6, seed: int = 0) -> Pairs:
    return laws.example(DPO(), Pairs, rows, seed)


def at_reference(batch: Pairs) -> Pairs:
    return laws.mapped(batch, lambda y: Scored(y.logp, y.mask, y.logp.detach()))


def margin(batch: Pairs, beta: float) -> Tensor:
    return beta * (batch.w.ratio - batch.l.ratio)


def of_length(n: int, seed: int) -> Scored:
    y = laws.responses(DPO(), 5, seed, junk=-1.0, widest=n)
    return laws.changed(y, lambda x: x, torch.ones_like(y.mask))


@pytest.mark.parametrize(
    ("objective", "value"),
    [
        (DPO(), math.log(2)),
        (CDPO(flip=0.3), math.log(2)),
        (RDPO(flip=0.3), math.log(2)),
        (LNDPO(), math.log(2)),
        (DPOP(), math.log(2)),
        (IPO(tau=0.2), 1 / (4 * 0.2**2)),
        (IPO(tau=0.2, average=False), 1 / (4 * 0.2**2)),
        (Hinge(), 1.0),
        (NCA(), 2 * math.log(2)),
        (APOZero(), 0.0),
        (APODown(), 0.0),
        (EXO(flip=0.2), -math.log(4 * 0.2 * 0.8) / 2),
        (BCO(), 2 * math.log(2)),
        (FDPO(divergence="forward_kl"), math.log(2)),
        (FDPO(), math.log(2)),
        (AlphaDivergenceDPO(), math.log(2)),
        (LengthDesensitisedDPO(), math.log(2)),
        (AOT(), math.log(2)),
        (AOTUnpaired(), math.log(2)),
        (RelativePO(), math.log(2)),
        (BetaDPO(filter=0), math.log(2)),
    ],
    ids=repr,
)
def test_the_loss_at_policy_equal_reference(objective: Objective, value: float):
    batch = at_reference(pairs())
    values = objective(batch, state=laws.state_of(objective, [batch]))
    assert_close(values, torch.full_like(values, value))


def test_every_base_method_is_here():
    names = (
        "NLL DPO IPO SimPO KTO CDPO RDPO SLiC Hinge CPO ORPO LengthRegularisedDPO DPOP NCA InfoNCA BCO APOZero APODown EXO "
        "BetaDPO SPPO DiscoPOP LNDPO AOT AOTUnpaired FDPO AlphaDivergenceDPO LengthDesensitisedDPO"
    )
    assert set(names.split()) <= set(catalogue())


def test_kto_at_policy_equal_reference_is_a_half_each():
    y = at_reference(pairs()).w
    values = KTO()(Labelled(y, torch.arange(6) % 2 == 0), state=KTO().init())
    assert_close(values, torch.full_like(values, 0.5))


def test_cdpo_is_dpo_plus_flip_times_the_margin():
    batch = pairs(64)
    for flip in (0.0, 0.1, 0.45):
        assert_close(CDPO(0.3, flip)(batch), DPO(0.3)(batch) + flip * margin(batch, 0.3), rtol=1e-12, atol=1e-12)


def test_rdpo_is_dpo_less_its_correction_and_unbiased_over_the_flips():
    batch = pairs(64)
    turned = Pairs(batch.l, batch.w)
    for flip in (0.1, 0.4):
        corrected = DPO(0.3)(batch) - flip / (1 - 2 * flip) * margin(batch, 0.3)
        assert_close(RDPO(0.3, flip)(batch), corrected, rtol=1e-12, atol=1e-12)
        mean = (1 - flip) * RDPO(0.3, flip)(batch) + flip * RDPO(0.3, flip)(turned)
        assert_close(mean, DPO(0.3)(batch), rtol=1e-12, atol=1e-12)


OFF = (
    CDPO(0.3, 0),
    RDPO(0.3, 0),
    DPOP(0.3, 0),
    LengthRegularisedDPO(0.3, 0),
    BetaDPO(0.3, alpha=0, filter=0),
    LengthDesensitisedDPO(0.3, alpha=1),
    RelativePO(0.3, own=1),
    FDPO(0.3, "reverse_kl"),
)


@pytest.mark.parametrize("objective", OFF, ids=repr)
def test_what_is_switched_off_leaves_dpo(objective: Objective):
    batch = pairs(16)
    assert_close(objective(batch, state=laws.state_of(objective, [batch])), DPO(0.3)(batch))


@pytest.mark.parametrize("objective", [AOT(0.3), AOTUnpaired(0.3), RelativePO(0.3)], ids=repr)
def test_a_pair_alone_in_its_step_is_dpo(objective: Objective):
    for i in range(4):
        alone = laws.rows_of(pairs(4), [i])
        assert_close(objective(alone), DPO(0.3)(alone))


def test_alpha_divergences_lead_from_the_reverse_to_the_forward_kl():
    batch = pairs(16)
    for alpha, end in ((1e-9, "reverse_kl"), (1 - 1e-9, "forward_kl")):
        assert_close(AlphaDivergenceDPO(0.3, alpha)(batch), FDPO(0.3, end)(batch), rtol=1e-6, atol=1e-7)


def test_an_exponential_that_would_overflow_still_pulls_the_chosen_up():
    w = torch.tensor([[-500.0]], requires_grad=True)
    one, zero = torch.ones(1, 1, dtype=torch.bool), torch.zeros(1, 1)
    for objective in (FDPO(divergence="forward_kl"), AlphaDivergenceDPO(alpha=0.9)):
        loss = objective(Pairs(Scored(w, one, zero), Scored(zero, one, zero))).sum()
        assert loss.isfinite() and -1e28 < torch.autograd.grad(loss, w)[0].item() < -1e24


def test_length_desensitised_dpo_reads_one_response_by_the_length_of_the_other():
    long, short = of_length(4, 1), of_length(2, 2)
    w, l = torch.autograd.grad(LengthDesensitisedDPO(alpha=0.25)(Pairs(long, short)).sum(), [long.logp, short.logp])
    assert_close(w[:, 2:], 0.25 * w[:, :2])
    assert_close(l, -w[:, :2])


def test_aot_unpaired_does_not_care_which_response_answered_which_prompt():
    batch, objective = pairs(8), AOTUnpaired(0.3)
    mixed = Pairs(batch.w, batch.l.take(torch.arange(8).roll(3)))
    assert_close(objective(mixed), objective(batch))
    together = laws.merged([Labelled(batch.w, torch.ones(8) > 0), Labelled(batch.l, torch.zeros(8) > 0)])
    assert_close(objective(together), objective(batch))


def test_aot_compares_quantiles_of_unequal_numbers_by_what_they_have_in_common():
    """Three good against two bad: the middle good one stands half against each."""
    y = Scored(
        torch.tensor([[3.0], [1.0], [2.0], [0.5], [-0.5]], dtype=torch.float64), torch.ones(5, 1) > 0, torch.zeros(5, 1)
    )
    values = AOTUnpaired(1.0)(Labelled(y, torch.tensor([True, True, True, False, False])))
    cost = lambda good, bad: math.log1p(math.exp(bad - good))  # noqa: E731
    assert values.tolist() == pytest.approx([cost(1, -0.5), (cost(2, -0.5) + cost(2, 0.5)) / 2, cost(3, 0.5)])


def test_reward_aware_po_is_soft_labels_less_their_entropy_and_dpo_for_a_sure_judge():
    batch = pairs(16)
    margin = torch.linspace(-2, 2, 16, dtype=torch.float64)
    p = torch.sigmoid(0.7 * margin)
    soft = OSP(0.3)(Pairs(batch.w, batch.l, strength=p))
    entropy = torch.distributions.Bernoulli(p).entropy()
    assert_close(RewardAwarePO(0.3, 0.7)(Pairs(batch.w, batch.l, margin=margin)), soft - entropy)
    sure = Pairs(batch.w, batch.l, margin=torch.full((16,), 1e9, dtype=torch.float64))
    assert_close(RewardAwarePO(0.3)(sure), DPO(0.3)(batch))


def drawn(objective: BetaDPO, batch: Pairs, steps: int, std: float = 1.0) -> Tensor:
    state = {"mean": torch.tensor(0.0), "std": torch.tensor(std), "steps": torch.tensor(float(steps))}
    return objective(batch, state=state) != 0


def test_beta_dpo_draws_with_its_weights_and_the_same_again_after_a_resume():
    w, mask = torch.tensor([[1.5], [0.0]], dtype=torch.float64), torch.ones(2, 1) > 0
    batch = Pairs(Scored(w, mask, torch.zeros(2, 1)), Scored(torch.zeros(2, 1), mask, torch.zeros(2, 1)))
    objective, weight = BetaDPO(filter=0.5), math.exp(-(1.5**2) / 2)
    first = [bool(drawn(objective, batch, k)[0]) for k in range(2000)]
    share = weight / (1 + weight)
    assert abs(sum(first) / 2000 - share) < 4 * math.sqrt(share * (1 - share) / 2000)
    assert first[:50] == [bool(drawn(objective, batch, k)[0]) for k in range(50)]


def test_beta_dpo_leaves_the_asked_share_out_and_at_least_one_pair_in():
    for rows, share, kept in ((10, 0.2, 8), (64, 0.2, 51), (3, 0.5, 2), (1, 0.9, 1), (4, 0.0, 4)):
        assert int(drawn(BetaDPO(filter=share), pairs(rows), steps=1).sum()) == kept


def test_lndpo_is_dpo_over_the_length_and_simpo_under_a_uniform_reference():
    same = Pairs(of_length(4, 1), of_length(4, 2))
    assert_close(LNDPO(beta=2.0)(same), DPO(beta=0.5)(same))
    uniform = laws.mapped(pairs(16), lambda y: Scored(y.logp, y.mask, torch.full_like(y.logp, -math.log(50257.0))))
    assert_close(LNDPO(beta=2.0)(uniform), SimPO(beta=2.0, gamma=0)(uniform))


def test_lndpo_pulls_each_token_by_the_inverse_of_its_responses_length():
    batch = Pairs(of_length(2, 1), of_length(4, 2))
    w, l = torch.autograd.grad(LNDPO()(batch).sum(), [batch.w.logp, batch.l.logp])
    assert_close(w[:, 0], -2 * l[:, 0])


def fitted(objective: Objective, steps: int = 100) -> float:
    """The margin of one free pair after gradient descent on its log-ratio gap."""
    gap = torch.zeros(1, 1, dtype=torch.float64, requires_grad=True)
    one, zero = torch.ones(1, 1, dtype=torch.bool), torch.zeros(1, 1, dtype=torch.float64)
    for _ in range(steps):
        (slope,) = torch.autograd.grad(objective(Pairs(Scored(gap, one, zero), Scored(-gap, one, zero))).sum(), gap)
        gap = (gap - slope).detach().requires_grad_()
    return 2 * gap.item()


def test_cdpo_stops_where_its_note_says_and_dpo_does_not():
    assert fitted(CDPO(1.0, 0.2)) == pytest.approx(math.log(0.8 / 0.2), abs=1e-9)
    assert fitted(DPO(1.0), 400) > fitted(DPO(1.0), 100) + 1 > 5


def test_ipo_comes_to_rest_at_half_over_tau():
    target = 1 / (2 * 0.25)
    w = torch.tensor([[target, 0.0]], dtype=torch.float64, requires_grad=True)
    zero, mask = torch.zeros(1, 2, dtype=torch.float64), torch.tensor([[True, False]])
    loss = IPO(tau=0.25)(Pairs(Scored(w, mask, zero), Scored(zero, mask, zero))).sum()
    assert loss.item() == 0.0 and not torch.autograd.grad(loss, w)[0].any()


def test_ipo_at_the_reference_is_a_number_although_every_log_ratio_is_zero():
    batch = at_reference(pairs())
    loss = IPO(tau=0.1)(batch)
    assert_close(loss, torch.full_like(loss, 25.0))


def test_simpo_without_margin_is_cpo_with_beta_over_length_where_lengths_agree():
    batch = Pairs(of_length(4, 1), of_length(4, 2))
    assert_close(SimPO(beta=2.0, gamma=0)(batch), CPO(beta=0.5)(batch))


def test_cpo_is_dpo_under_a_uniform_reference():
    n = 3
    uniform = lambda y: Scored(y.logp, y.mask, torch.full_like(y.logp, -math.log(50257.0)))  # noqa: E731
    batch = Pairs(uniform(of_length(n, 1)), uniform(of_length(n, 2)))
    assert_close(CPO(0.2)(batch), DPO(0.2)(batch))


def test_the_papers_wholes_are_sums():
    w, l = (
        Scored(torch.full((1, 10), -1.2), torch.ones(1, 10) > 0),
        Scored(torch.full((1, 15), -1.0), torch.ones(1, 15) > 0),
    )
    batch = Pairs(w, l)
    assert (NLL() + 0.1 * ORPO())(batch).item() == pytest.approx(1.285452, abs=1e-6)
    assert (CPO() + NLL(reduction="sum"))(batch).item() == pytest.approx(12.554355, abs=1e-5)
    assert (CPO() + NLL())(batch).item() == pytest.approx(1.754355, abs=1e-6)
    with pytest.raises(Refusal, match=r"different units \(pair and token\)"):
        (CPO() + NLL(reduction="token"))(batch)


def test_a_margin_of_minus_a_thousand_is_finite_and_pulls_with_all_its_weight():
    w = torch.tensor([[-1000.0]], requires_grad=True)
    one, zero = torch.ones(1, 1, dtype=torch.bool), torch.zeros(1, 1)
    loss = DPO(beta=1.0)(Pairs(Scored(w, one, zero), Scored(zero, one, zero)))
    assert loss.item() == 1000.0
    assert torch.autograd.grad(loss.sum(), w)[0].item() == -1.0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("near", [0.0, -0.0, -1e-45, -1e-12, -1e-7, -1e-3])
def test_orpo_is_finite_where_a_response_has_become_certain(near: float, dtype: torch.dtype):
    for sides in ([near, -2.0], [-2.0, near], [near, near]):
        logps = [torch.tensor([[x, x]], dtype=dtype, requires_grad=True) for x in sides]
        loss = ORPO()(Pairs(*(Scored(x, torch.ones(1, 2, dtype=torch.bool)) for x in logps)))
        assert loss.isfinite().all()
        for slope in torch.autograd.grad(loss.sum(), logps):
            assert slope.isfinite().all()


def test_odds_keep_their_digits_where_a_plain_difference_loses_them():
    """The log-odds of p = exp(-1e-6) are 13.8155…; float32's 1 - exp(a) is wrong in the second digit there."""
    a = torch.tensor([[-1e-6]])
    got = ORPO().reward(Scored(a, torch.ones(1, 1, dtype=torch.bool))).item()
    assert got == pytest.approx(-1e-6 - math.log(-math.expm1(-1e-6)), rel=1e-6)


def test_kto_z0_is_global():
    """Micro-batches and ranks add sums and counts, so that z0 is the step's and never a mean of means."""
    whole = laws.example(KTO(), Labelled, rows=8, seed=1)
    z0 = laws.state_of(KTO(), [whole])["z0"]
    other = whole.mismatched
    assert z0.item() == pytest.approx(max(0.0, other.ratio.mean().item()), abs=1e-12)
    uneven = [laws.rows_of(whole, part) for part in ([0], [1, 2, 3, 4], [5, 6, 7])]
    assert laws.state_of(KTO(), uneven)["z0"].item() == pytest.approx(z0.item(), abs=1e-12)


def test_kto_without_any_stranger_is_refused():
    with pytest.raises(Refusal, match="at least 2 rows"):
        KTO().update({}, {"z0": (torch.tensor(0.0), torch.tensor(0.0))})


def test_kto_without_its_state_says_where_it_comes_from():
    batch = laws.example(KTO(), Labelled)
    with pytest.raises(Refusal, match=r"needs its state 'z0'.*statistics\(\) and update\(\)"):
        KTO()(batch)


def test_nll_counts_the_good_responses_alone():
    y = Scored(-torch.ones(3, 4), torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0]]) > 0)
    batch = Labelled(y, torch.tensor([True, False, True]))
    assert NLL().count(batch) == 2 and NLL(reduction="token").count(batch) == 5
    assert NLL().count(Pairs(y, y)) == 3 and NLL(reduction="token").count(Pairs(y, y)) == 7
    nobody = Labelled(y, torch.tensor([False, False, False]))
    assert NLL().count(nobody) == 0 and NLL()(nobody).shape == (0,)


def test_step_weights_reach_every_reduction_of_nll():
    y = Scored(torch.tensor([[-1.0, -3.0]]), torch.ones(1, 2) > 0, weight=torch.tensor([[1.0, 0.5]]))
    batch = Pairs(y, y)
    assert NLL(reduction="token")(batch).tolist() == [1.0, 1.5]
    assert NLL(reduction="sum")(batch).tolist() == [2.5]
    assert NLL()(batch).item() == pytest.approx(2.5 / 1.5)

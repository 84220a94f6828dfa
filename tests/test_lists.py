"""Losses on lists against plain loops and against their relatives on pairs: long lists, ties, lists of one, labels outside
the range, and that a table of pairs is no slow thing."""

from __future__ import annotations

import math
import time

import pytest
import torch
from torch import Tensor

from penchant.errors import Refusal
from penchant.objectives import DPO, Hinge, InfoNCA, Lists, Objective, Pairs, Scored, read
from penchant.objectives.lipo import LiPO
from penchant.objectives.listmle import ListMLE
from penchant.objectives.listnet import ListNet
from penchant.objectives.listwise import above, passed_over, places
from penchant.objectives.pairwise_hinge import PairwiseHinge
from penchant.objectives.pairwise_logistic import PairwiseLogistic
from penchant.objectives.pointwise_mse import PointwiseMSE
from penchant.objectives.pointwise_sigmoid import PointwiseSigmoid
from penchant.objectives.pro import PRO

ALL = [LiPO(), PairwiseLogistic(), PairwiseHinge(), ListMLE(), ListNet(), PointwiseMSE(), PointwiseSigmoid(), PRO()]
ORDER = [LiPO(), PairwiseLogistic(), PairwiseHinge(), ListMLE()]
"""Those that a list of equal labels teaches nothing."""


def lists(*sizes: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Lists:
    """Random lists of the given lengths, responses of 1 to 3 steps."""
    make = torch.Generator().manual_seed(seed)
    n = sum(sizes)
    normal = lambda: torch.randn(n, 3, generator=make, dtype=dtype)  # noqa: E731
    logp = -normal().abs() - 0.1
    mask = torch.arange(3)[None] < torch.randint(1, 4, (n,), generator=make)[:, None]
    group = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    gain = torch.rand(n, generator=make, dtype=dtype)
    return Lists(Scored(logp.requires_grad_(), mask, logp.detach() + 3 * normal()), group, gain)


def slope(objective: Objective, batch: Lists) -> Tensor:
    return torch.autograd.grad(objective(batch).sum(), batch.y.logp)[0]


@pytest.mark.parametrize(
    ("listwise", "paired"),
    [(PairwiseLogistic(beta=0.3), DPO(beta=0.3)), (ListMLE(beta=0.3), DPO(beta=0.3)), (PairwiseHinge(beta=0.3), Hinge(beta=0.3))],
    ids=repr,
)  # fmt: skip
def test_a_list_of_two_is_a_pair(listwise: Objective, paired: Objective) -> None:
    batch = lists(2, 2, 2, 2)
    by_gain = torch.argsort(batch.group - 0.9 * batch.gain).view(-1, 2)  # within each list the better one first
    w, l = (batch.y.take(side) for side in by_gain.T)
    torch.testing.assert_close(listwise(batch), paired(Pairs(w, l)))


def test_listnet_with_a_softmax_target_is_infonca() -> None:
    batch = lists(4, 2, 5)
    torch.testing.assert_close(ListNet(beta=0.3, target="softmax")(batch), InfoNCA(beta=0.3, alpha=1.0)(batch))


def test_lipo_on_a_long_list_is_the_sum_over_pairs_one_by_one() -> None:
    batch = lists(17, seed=3)
    s, gain = (0.2 * batch.y.ratio).tolist(), batch.gain.tolist()
    place = {i: k + 1 for k, i in enumerate(sorted(range(17), key=lambda i: -s[i]))}
    by_hand = sum(
        abs(2 ** gain[i] - 2 ** gain[j])
        * abs(1 / math.log(1 + place[i]) - 1 / math.log(1 + place[j]))
        * math.log1p(math.exp(s[j] - s[i]))
        for i in range(17)
        for j in range(17)
        if gain[i] > gain[j]
    )
    assert LiPO(beta=0.2)(batch).item() == pytest.approx(by_hand, rel=1e-12)


def test_listmle_is_the_sorted_lists_cumulative_likelihood() -> None:
    batch = lists(12, seed=4)
    s = (0.2 * batch.y.ratio)[torch.argsort(batch.gain, descending=True)]
    by_hand = (s.flip(0).logcumsumexp(0).flip(0) - s).sum()
    torch.testing.assert_close(ListMLE(beta=0.2)(batch)[0], by_hand)


def test_rax_means_over_the_pairs_of_all_lists_and_counts_them() -> None:
    batch = lists(2, 4, 3)
    each = PairwiseLogistic(reduction="rax")
    assert each.unit == "pair" and each.count(batch) == 1 + 6 + 3 == len(each(batch))
    torch.testing.assert_close(each(batch).sum(), PairwiseLogistic()(batch).sum())
    tied = Lists(batch.y, batch.group, batch.gain.round())
    assert each.count(tied) == len(each(tied)) < 10
    assert PointwiseMSE(reduction="rax").count(batch) == 9 == len(PointwiseMSE(reduction="rax")(batch))


@pytest.mark.parametrize("objective", ORDER, ids=repr)
def test_equal_labels_teach_nothing_whatever_stands_beside_them(objective: Objective) -> None:
    batch = lists(4, 3)
    level = Lists(batch.y, batch.group, torch.where(batch.group == 0, 0.5, batch.gain))
    assert objective(level)[0] == 0 and objective(level)[1] > 0
    assert not slope(objective, level)[:4].any()
    assert objective.count(level) == 2


@pytest.mark.parametrize("objective", ALL, ids=repr)
def test_a_list_of_one_counts_and_costs_nothing_but_in_pointwise_losses(objective: Objective) -> None:
    batch = lists(1, 3)
    assert objective.count(batch) == len(objective(batch)) == 2
    assert (objective(batch)[0] == 0) == (not isinstance(objective, PointwiseMSE | PointwiseSigmoid))


@pytest.mark.parametrize("objective", ALL[:5], ids=repr)
def test_only_differences_of_scores_count(objective: Objective) -> None:
    batch = lists(5, 2, 3)
    by_score = slope(objective, batch)[:, 0]  # the derivative by log π is the same at every step
    by_list = torch.zeros(3, dtype=torch.float64).index_add(0, batch.group, by_score)
    assert by_score.abs().sum() > 0.001
    torch.testing.assert_close(by_list, torch.zeros(3, dtype=torch.float64), atol=1e-12, rtol=0)


def test_rewards_of_pro_have_no_gradient_and_may_be_shifted_but_not_scaled() -> None:
    batch = lists(4, 3)
    gain = batch.gain.clone().requires_grad_()
    PRO()(Lists(batch.y, batch.group, gain.detach())).sum().backward()
    assert gain.grad is None
    shifted, scaled = (PRO()(Lists(batch.y, batch.group, g)) for g in (batch.gain - 40, batch.gain * 3))
    torch.testing.assert_close(shifted, PRO()(batch))
    assert not torch.allclose(scaled, PRO()(batch))


def test_a_tie_of_scores_is_broken_by_the_data_and_sends_no_gradient_through_the_places() -> None:
    mask = torch.ones(1, 3, dtype=torch.bool)
    score = torch.tensor([[0.2, 0.2, 0.5]], requires_grad=True)
    assert places(score, mask).tolist() == [[2, 3, 1]] and not places(score, mask).requires_grad
    assert places(score, torch.tensor([[True, True, False]])).tolist() == [[1, 2, 3]]
    nudged = places(score + torch.tensor([[0.0, 1e-6, 0.0]]), mask)
    assert nudged.tolist() == [[3, 2, 1]]


def test_what_is_passed_over_is_softplus_for_one_rival_and_nothing_for_none() -> None:
    own, rival = torch.tensor([[1.0, -2.0]]), torch.tensor([[[9.0, 0.5], [9.0, 9.0]]])
    among = torch.tensor([[[False, True], [False, False]]])
    torch.testing.assert_close(passed_over(own, rival, among), torch.tensor([[math.log1p(math.exp(-0.5)), 0.0]]))
    assert above(torch.tensor([[1.0, 1.0, 0.0]]), torch.tensor([[True, True, False]])).sum() == 0


@pytest.mark.parametrize(
    ("text", "gain", "allowed"),
    [("LiPO()", 10.0, "[0, 1]"), ("PointwiseSigmoid()", -0.5, "[0, 1]"), ("ListNet()", -1.0, "[0, inf)")],
)
def test_labels_a_method_is_not_defined_for_are_refused_with_the_mend(text: str, gain: float, allowed: str) -> None:
    batch = lists(2, 3)
    wrong = batch.gain.index_fill(0, torch.tensor([3]), gain)
    with pytest.raises(Refusal) as said:
        read(text)(Lists(batch.y, batch.group, wrong))
    assert f"gain 3: {gain:g}; {read(text)!r} takes scores in {allowed}. Rescale them" in str(said.value)


def test_labels_of_any_size_are_fine_where_only_their_order_or_gaps_count() -> None:
    batch = lists(3, 4)
    for objective in (PairwiseLogistic(), PairwiseHinge(), ListMLE(), PRO(), PointwiseMSE(), ListNet(target="softmax")):
        assert objective(Lists(batch.y, batch.group, 20 * batch.gain - 10)).isfinite().all()


@pytest.mark.parametrize("objective", ALL, ids=repr)
def test_long_lists_take_no_loop_over_pairs(objective: Objective) -> None:
    batch = lists(*[64] * 16, dtype=torch.float32)
    objective(batch).sum().backward()
    start = time.process_time()
    objective(batch).sum().backward()
    assert time.process_time() - start < 0.5  # 16 lists have 64,000 pairs; a loop over them takes seconds

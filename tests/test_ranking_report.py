"""The ranking report by hand: the theorem's thresholds, the ideal policy, the quadrants, and that it is not implicit accuracy.
The figures are the worked examples of arXiv 2405.19534's equations."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evidence_example import offline
from penchant.errors import Refusal
from penchant.evaluation.evidence import ListEvidence, RunEvidence
from penchant.evaluation.listwise import all_pairs, list_ranking, ranks_exactly, ranks_pairwise
from penchant.evaluation.ranking import (
    RankingReport,
    dpo_threshold,
    ideal,
    ipo_threshold,
    ranking_of,
    ranking_report,
)


def report(now: list[float], c: list[float], beta: float = 0.1, **more: Any) -> RankingReport:
    """Pairs whose policy log-ratios are `now` and whose difficulties are `c`, ten tokens each."""
    n = len(now)
    ten, low = [10] * n, [-20.0] * n
    return ranking_report(
        [x - 20 for x in now], low, [-x - 20 for x in c], low, ten, ten, beta, **{"resamples": 200, **more}
    )


def test_a_pair_is_ranked_right_exactly_where_its_loss_is_at_most_the_threshold():
    found = report([-1, 0, 1], [5, 5, 5])
    assert found.loss == pytest.approx([0.513015, 0.474077, 0.437488], abs=1e-6)
    assert found.dpo_threshold == pytest.approx([0.474077] * 3, abs=1e-6)
    assert found.accuracy.value == pytest.approx(2 / 3) and found.accuracy.n == 3  # a tie is right
    assert dpo_threshold([-5, 0, 20, 50], 0.1) == pytest.approx([0.974077, 0.693147, 0.126928, 0.006715], abs=1e-6)


@given(
    st.lists(st.tuples(*[st.integers(-60, 0).map(lambda x: x / 4)] * 4), min_size=1, max_size=8),
    st.sampled_from([0.05, 0.5, 2.0]),
)
def test_the_theorem_holds_pair_by_pair(rows: list[tuple[float, float, float, float]], beta: float):
    w, l, rw, rl = (list(x) for x in zip(*rows, strict=True))
    n = [3] * len(rows)
    found = ranking_report(w, l, rw, rl, n, n, beta, resamples=2)
    for i in range(len(rows)):
        if w[i] != l[i]:  # on the line itself the last bit decides
            assert (w[i] > l[i]) == (found.loss[i] < found.dpo_threshold[i])
        enough, h = found.ipo_threshold[i], (w[i] - rw[i]) - (l[i] - rl[i])
        if enough is None:  # the IPO optimum itself leaves the pair wrong
            assert 1 / (2 * beta) < found.difficulty[i]
        elif (h - 1 / (2 * beta)) ** 2 < enough:
            assert w[i] > l[i]


def test_beyond_one_over_two_tau_no_ipo_loss_is_small_enough():
    assert ipo_threshold([1.0, 5.0], 0.1) == pytest.approx([16.0, 0.0])
    assert math.isnan(ipo_threshold([5.01], 0.1)[0])


@pytest.mark.parametrize(
    ("c", "alpha", "beta", "right"),
    [(5, 0.75, 0.1, True), (20, 0.75, 0.1, False), (1, 0.75, 1, True), (2, 0.75, 1, False), (5, 0.999, 1, True)],
)
def test_the_ideal_policy_adds_the_raters_log_odds_over_beta(c: float, alpha: float, beta: float, right: bool):
    assert bool(ideal(c, alpha, beta)) is right
    edge = math.log(alpha / (1 - alpha)) / beta
    assert bool(ideal(edge - 1e-9, alpha, beta)) and not bool(ideal(edge + 1e-9, alpha, beta))


def test_at_the_reference_implicit_accuracy_is_none_and_ranking_accuracy_the_references():
    found = report([-1, 2, 3, -4], [1, -2, -3, 4])
    assert found.accuracy.value == found.reference.value == 0.5
    assert found.implicit.value == 0.0 and found.loss == [math.log(2)] * 4
    assert [q.n for q in found.quadrants] == [2, 0, 0, 2]
    assert found.quadrants[1].loss is None and found.quadrants[0].margin is not None


def test_the_ideal_follows_the_raters_at_small_beta_and_the_reference_at_large():
    now, c = [0.0] * 4, [1.0, -2.0, 3.0, 40.0]
    assert report(now, c, betas=[1e-9]).ideal.median == 1.0
    assert report(now, c, betas=[1e9]).ideal.median == 0.25
    assert report(now, c, alpha=0.5).ideal.by_beta == dict.fromkeys([0.01, 0.1, 1.0, 5.0, 10.0], 0.25)
    sure = report(now, c, alpha=1.0, betas=[1.0])  # α = 1 is read as 1 − 1e-3: its log-odds are 6.907
    assert sure.ideal.median == 0.75
    per_token = ranking_report([0], [0], [-4], [-1], [8], [1], 1.0, betas=[10.0], resamples=2)
    assert (per_token.ideal.median, per_token.ideal_per_token.median) == (0.0, 1.0)


def test_swapping_the_sides_and_the_raters_gives_one_less_the_ideal():
    rng = np.random.default_rng(0)
    c, alpha = rng.normal(0, 5, 40), rng.uniform(0, 1, 40)
    one = report([0.0] * 40, c.tolist(), alpha=alpha.tolist()).ideal
    other = report([0.0] * 40, (-c).tolist(), alpha=(1 - alpha).tolist()).ideal
    assert [1 - x for x in one.by_beta.values()] == pytest.approx(list(other.by_beta.values()))
    assert (one.low, one.median, one.high) == pytest.approx((1 - other.high, 1 - other.median, 1 - other.low))


def test_quadrants_share_out_all_pairs_and_say_which_could_be_turned():
    found = report([3, -1, 2, -30], [-1, -2, 4, 40])  # right stays, right lost, wrong turned, wrong stays
    assert [(q.name, q.n) for q in found.quadrants] == [
        ("reference right, policy right", 1),
        ("reference right, policy wrong", 1),
        ("reference wrong, policy right", 1),
        ("reference wrong, policy wrong", 1),
    ]
    turned = found.quadrants[2]
    assert turned.margin is not None and turned.margin.value == pytest.approx(0.6)  # 0.1 · (2 + 4)
    assert turned.difficulty is not None and turned.difficulty.value == 4
    assert found.flippable is not None and found.flippable.value == 0.5  # log 3 / 0.1 = 10.99 lies between 4 and 40
    assert found.flipped is not None and found.flipped.value == 0.5
    assert found.gap.value == found.ideal.median - found.accuracy.value
    assert report([1.0], [-1.0]).flippable is None


def test_pairs_of_one_prompt_are_drawn_together():
    now, c = [1.0, 1.0, 1.0, -1.0, -1.0, -1.0], [1.0] * 6
    apart, together = report(now, c), report(now, c, groups=[0, 0, 0, 1, 1, 1])
    assert apart.accuracy.value == together.accuracy.value == 0.5
    assert together.accuracy.high - together.accuracy.low > apart.accuracy.high - apart.accuracy.low


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"lp_w": [math.nan]}, r"lp_w\[0\] = nan"),
        ({"lp_w": []}, "lp_w has 0"),
        ({"n_w": [-1]}, "number of tokens"),
        ({"alpha": 1.2}, "between 0 and 1"),
        ({"beta": 0}, "above 0"),
    ],
)
def test_what_cannot_be_ranked_is_refused(change: dict[str, Any], said: str):
    columns = {name: [-1.0] for name in ("lp_w", "lp_l", "rp_w", "rp_l")} | {"n_w": [1], "n_l": [1], "beta": 0.1}
    with pytest.raises(Refusal, match=said):
        ranking_report(**{**columns, **change})


def test_a_response_without_tokens_divides_nothing_by_zero():
    found = ranking_report([0.0], [-3.0], [0.0], [-3.0], [0], [3], 0.1, resamples=2)
    assert found.accuracy.value == found.accuracy_per_token.value == 1.0


def test_a_list_is_right_where_the_whole_order_is_and_pair_by_pair():
    assert ranks_exactly([-1, -2, -3], [3, 2, 1]) == 1.0 and ranks_exactly([-1, -3, -2], [3, 2, 1]) == 0.0
    assert ranks_pairwise([-1, -3, -2], [3, 2, 1]) == pytest.approx(2 / 3)  # Kendall's τ is 1/3
    assert ranks_exactly([-1, -1], [2, 1]) == 1.0 and ranks_exactly([-2, -1, -3], [2, 2, 1]) == 1.0
    assert math.isnan(ranks_pairwise([-1, -2], [1, 1]))


def test_every_two_responses_of_a_list_with_different_grades_are_a_pair_of_its_group():
    logp, gain = [[-1.0, -2.0, -3.0], [-5.0, -4.0]], [[2.0, 0.0, 0.0], [0.0, 1.0]]
    start = [[-3.0, -2.0, -1.0], [-4.0, -5.0]]
    zero, length = [[0.0] * 3, [0.0] * 2], [[1, 2, 3], [4, 5]]
    after = ListEvidence([7, 9], logp, gain, logp, start, length)
    pairs = all_pairs(after)
    assert pairs is not None and (pairs.numbers, pairs.groups) == ([7, 7, 9], [0, 0, 1])
    assert (pairs.logp_chosen, pairs.logp_rejected) == ([-1.0, -1.0, -4.0], [-2.0, -3.0, -5.0])
    assert (pairs.ref_chosen, pairs.length_rejected) == ([-3.0, -3.0, -5.0], [2, 3, 4])
    run = RunEvidence({}, {}, {}, lists_before=ListEvidence([7, 9], zero, gain, start, start, length), lists_after=after)
    found, listed = ranking_of(run, resamples=50), list_ranking(run, resamples=50)
    assert found is not None and listed is not None
    assert (found.accuracy.value, found.reference.value, found.accuracy.n) == (1.0, 0.0, 3)
    assert (listed.exact.value, listed.exact_before.value, listed.exact_change.value, listed.exact.n) == (1.0, 0.0, 1.0, 2)
    assert listed.pairwise.value == 1.0 and listed.pairwise_before.value == 0.0
    assert all_pairs(ListEvidence([7], [[0.0, 1.0]], [[0.0, 1.0]])) is None  # a reward model, or a run that noted none


def test_a_runs_report_reads_beta_from_its_own_rewards():
    evidence = offline()
    found = ranking_of(evidence)
    assert found is not None and found.beta == pytest.approx(0.1) and len(found.loss) == 250
    assert ranking_of(offline(held_out=0)) is None

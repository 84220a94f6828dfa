"""What is said of a reward model's scores, against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest

from penchant.evaluation.evidence import PairEvidence, RunEvidence
from penchant.evaluation.rewards import by_subset, length_bias, length_matched, reward_accuracy
from penchant.evaluation.statistics import correlation
from penchant.report.reward import reward_section

CHOSEN, REJECTED = [1.0, 0.5, 2.0, 0.0, 3.0], [0.0, 0.5, 3.0, -1.0, 3.0]  # right, tie, wrong, right, tie


def test_a_tie_is_wrong_half_and_told():
    found = reward_accuracy(CHOSEN, REJECTED)
    assert (found.strict.value, found.half.value, found.ties.value) == pytest.approx((0.4, 0.6, 0.4))
    assert found.strict.n == 5 and found.strict.low < 0.4 < found.strict.high


def test_a_model_that_has_not_moved_is_all_ties():
    found = reward_accuracy([0.0] * 4, [0.0] * 4)
    assert (found.strict.value, found.half.value, found.ties.value) == (0.0, 0.5, 1.0)


def test_neither_scale_nor_what_a_prompt_is_worth_changes_the_accuracy():
    moved = [10 * w + 7 * i for i, w in enumerate(CHOSEN)], [10 * l + 7 * i for i, l in enumerate(REJECTED)]
    assert reward_accuracy(*moved) == reward_accuracy(CHOSEN, REJECTED)


def test_subsets_stand_in_their_order_and_share_nothing():
    found = by_subset(CHOSEN, REJECTED, ["b", "b", "a", "a", "b"], ["x", "x", "y", "z", "w"])
    assert list(found) == ["b", "a"]
    assert (found["b"].strict.value, found["a"].strict.value) == pytest.approx((1 / 3, 1 / 2))
    assert found["b"].strict.n == 3


def test_pairs_of_equal_length_are_judged_apart():
    lengths = [10, 10, 100, 10, 5], [11, 20, 91, 11, 5]  # 1/11, half, 9 %, 1/11, equal: four within a tenth
    near = length_matched(CHOSEN, REJECTED, *lengths)
    assert near is not None and near.half.n == 4
    assert near.half.value == pytest.approx((1 + 0 + 1 + 0.5) / 4)
    assert length_matched([1.0], [0.0], [1], [9]) is None


def test_length_bias_against_hand_numbers():
    found = length_bias([3.0, 1.0, 2.0], [1.0, 2.0, 0.0], [30, 10, 20], [10, 20, 20])
    assert found.n == 2, "the third pair is of equal length"
    assert found.prefers_longer is not None and found.prefers_longer.value == 1.0
    assert found.longer_wins is not None and found.longer_wins.value == 0.5
    # responses (r, n): (3,30) (1,10) (2,20) (1,10) (2,20) (0,20): r̄ = 1.5, n̄ = 55/3
    assert found.correlation is not None
    assert found.correlation.value == pytest.approx(25 / math.sqrt(5.5 * 850 / 3))
    # within: Δr = 2, −1, 2; Δn = 20, −10, 0
    assert found.within is not None
    assert found.within.value == pytest.approx((40 + 10) / math.sqrt(9 * 500))


def test_the_order_within_a_pair_means_nothing_to_the_correlation_within():
    one = length_bias([3.0, 1.0], [1.0, 2.0], [30, 10], [10, 21]).within
    other = length_bias([1.0, 1.0], [3.0, 2.0], [10, 10], [30, 21]).within
    assert one is not None and other is not None and one.value == pytest.approx(other.value)


def test_what_does_not_vary_correlates_with_nothing():
    found = length_bias([1.0, 1.0], [1.0, 1.0], [3, 4], [5, 6])
    assert found.correlation is None and found.within is None
    assert found.prefers_longer is not None and found.prefers_longer.value == 0.5, "ties of reward count half"
    equal = length_bias([1.0], [0.0], [3], [3])
    assert equal.n == 0 and equal.prefers_longer is None and equal.longer_wins is None


def test_a_correlation_far_from_zero_loses_no_digits_and_one_pair_has_no_interval():
    x, y = [1e8, 1e8 + 1, 1e8 + 2], [2.0, 4.0, 6.0]
    found = correlation(x, y)
    assert found is not None and found.value == pytest.approx(1.0, abs=1e-9)
    assert correlation([1.0], [2.0]) is None


@pytest.mark.parametrize("values", [([], []), ([math.nan], [0.0]), ([1.0], [0.0, 1.0]), ([math.inf], [1.0])])
def test_nothing_and_what_is_no_number_is_refused(values: tuple[list[float], list[float]]):
    with pytest.raises(ValueError, match="must be"):
        reward_accuracy(*values)


def test_the_report_shows_scores_only_of_a_reward_model():
    pairs = PairEvidence(
        list(range(5)), CHOSEN, REJECTED, [], [], length_chosen=[10, 10, 99, 10, 5], length_rejected=[11, 20, 91, 11, 5]
    )
    section = reward_section(RunEvidence({}, {"head": "reward"}, {}, pairs_after=pairs))
    assert section is not None and len(section.charts) == 2
    assert [row[0] for row in section.tables[0].rows] == ["Strict", "Ties as half", "Ties", "Of about equal length"]
    assert "people did in" in section.said[1]
    assert reward_section(RunEvidence({}, {}, {})) is None

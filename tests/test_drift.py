"""Value drift by hand: magnitude, time, the value gap of pairs, and stances from label tokens."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from scipy.stats import ttest_1samp
from torch import Tensor

from penchant.errors import Refusal
from penchant.evaluation.drift import Stances, drift_time, drifts, magnitude, mean_stance, value_gap
from penchant.evaluation.statistics import Estimate
from penchant.feedback.records import Prompt
from penchant.rewards.base import Context
from penchant.rewards.stance import SIMPLE, STANCES, AskedStance

STEPS, PATH = [0, 50, 100, 150, 200], [0.20, 0.35, 0.48, 0.52, 0.50]


def test_magnitude_is_signed_and_adds_up_to_nought():
    base, sft = [0.2, 0.7, 0.1], [0.5, 0.4, 0.1]
    assert magnitude(base, sft) == pytest.approx([0.3, -0.3, 0.0]) and sum(magnitude(base, sft)) == pytest.approx(0)
    assert magnitude(sft, base) == pytest.approx([-0.3, 0.3, 0.0]) and magnitude(base, base) == [0, 0, 0]


def test_time_is_when_nineteen_twentieths_of_the_largest_move_are_made():
    assert drift_time(STEPS, PATH) == 0.75  # 0.32 · 0.95 = 0.304: at 100 it is 0.28
    assert drift_time(STEPS, [1 - x for x in PATH]) == 0.75
    assert drift_time([7], [0.3]) == drift_time(STEPS, [0.4] * 5) == 0.0
    assert drift_time(STEPS, [0.2, 0.5, 0.4, 0.3, 0.2]) == 0.25  # the extreme may lie on the way


def test_time_by_interval_takes_the_first_value_that_may_be_the_extreme():
    assert drift_time(STEPS, PATH, "ci", extreme=Estimate(0.52, 0.47, 0.57, 20)) == 0.5
    assert drift_time(STEPS, PATH, "ci", extreme=Estimate(0.52, 0.1, 0.9, 3)) == 0.0  # no move that is sure
    with pytest.raises(Refusal, match="needs the interval"):
        drift_time(STEPS, PATH, "ci")


def table(seed: int = 0) -> Stances:
    rng = np.random.default_rng(seed)
    p = [[rng.dirichlet([2 + 6 * t, 4, 2]).tolist() for _ in range(20)] for t in (0.0, 0.5, 1.0)]
    return Stances([0, 10, 20], ["a"] * 12 + ["b"] * 8, p)


def test_values_stay_on_the_simplex_whatever_the_order_and_number_of_prompts():
    one = table()
    assert one.value("a").sum(1) == pytest.approx([1, 1, 1]) and one.value().shape == (3, 3)
    order = list(reversed(range(20)))
    turned = Stances(one.steps, [one.topics[i] for i in order], [[row[i] for i in order] for row in one.p])
    twice = Stances(one.steps, one.topics * 2, [row + row for row in one.p])
    for other in (turned, twice):
        assert other.value("a") == pytest.approx(one.value("a"))
        assert drifts(other, resamples=50).of("a", "support").time == drifts(one, resamples=50).of("a", "support").time
    with pytest.raises(Refusal, match="add up to 1"):
        Stances([0], ["a"], [[[0.5, 0.2, 0.1]]])
    with pytest.raises(Refusal, match="must rise"):
        Stances([5, 5], ["a"], [[[1, 0, 0]], [[1, 0, 0]]])


def test_a_drift_comes_with_its_interval_and_a_summary_that_does_not_cancel():
    found = drifts(table(), resamples=500)
    support = found.of("a", "support")
    assert support.magnitude.low > 0 and support.magnitude.n == 12 and 0 < support.time <= 1
    moved = (np.array(table().p)[-1] - np.array(table().p)[0])[:12, 0]
    assert support.p == pytest.approx(float(ttest_1samp(moved, 0).pvalue)) and support.p < 0.05
    one = drifts(Stances([0, 1], ["a"], [[[0.5, 0.5]], [[0.4, 0.6]]], ("x", "y")), resamples=50)
    assert one.drifts[0].p == 1.0 and one.told == ["x"] and one.sure() == set()
    assert sum(found.of("b", s).magnitude.value for s in STANCES) == pytest.approx(0)
    against = [[[0.5 + x, 0.0, 0.5 - x] for x in (d, d, -d, -d)] for d in (0.0, 0.3)]
    assert drifts(Stances([0, 1], ["a", "a", "b", "b"], against), resamples=50).size.value == pytest.approx(0.2)


def test_one_hot_answers_agree_with_the_exact_distribution():
    v, n = np.array([0.2, 0.7, 0.1]), 4000
    drawn = np.eye(3)[np.random.default_rng(1).choice(3, size=n, p=v)]
    assert np.all(np.abs(np.array(mean_stance(drawn.tolist())) - v) <= 3 * np.sqrt(v * (1 - v) / n))


def test_the_value_gap_of_pairs_is_chosen_less_rejected():
    gap = value_gap([[1, 0, 0]] * 9 + [[0, 1, 0]], [[0, 0, 1]] * 10, resamples=200)
    assert [gap[s].value for s in STANCES] == pytest.approx([0.9, 0.1, -1.0]) and gap["support"].low > 0
    assert all(x.value == 0 for x in value_gap([[0, 1, 0]] * 3, [[0, 1, 0]] * 3, resamples=50).values())
    with pytest.raises(Refusal, match="do not make pairs"):
        value_gap([[1, 0, 0]], [])


def test_a_model_is_asked_through_its_labels_and_nothing_in_an_answer_is_filled():
    asked: list[Prompt] = []

    def score(prompts: Sequence[Prompt], answers: Sequence[str]) -> Tensor:
        asked.extend(prompts)
        return torch.tensor([{"support": 0.5, "neutral": 0.2, "oppose": 0.1}[a.strip()] / 2 for a in answers]).log()

    judge = AskedStance(score)
    said = judge([Context("Is it so?")], ["tea"], ["{topic} is {prompt}"])
    assert said[0].tolist() == pytest.approx([0.625, 0.25, 0.125]) and said.shape == (1, 3)
    assert "{topic} is {prompt}" in str(asked[0]) and "about tea" in str(asked[0])
    assert SIMPLE([Context("?")] * 3, ["x"] * 3, ["Yes, I agree.", "It rains.", "No."]).argmax(1).tolist() == [0, 1, 2]
    with pytest.raises(Refusal, match=r"has no \{topic\}"):
        AskedStance(score, question="{prompt} {answer}")


def test_a_stance_that_cannot_be_told_is_not_a_number():
    nan = AskedStance(lambda prompts, answers: torch.full((len(prompts),), math.nan))
    assert bool(nan([Context("?")], ["x"], ["y"]).isnan().all())

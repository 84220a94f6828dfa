"""Win rates, swapped places and arena battles against hand numbers and against the published definitions."""

from __future__ import annotations

import math
import random
from itertools import product

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from penchant.errors import Refusal
from penchant.evaluation.comparisons import Comparison, after_against_before, arena_score, battles, positions, win_rate
from penchant.evaluation.evidence import RunEvidence, SampleEvidence
from penchant.evaluation.table import before_after

P = (0.9, 0.8, 0.3, 0.6, 0.2, 0.7)


def compared(p, a="model", b="baseline", **more):
    return [Comparison(f"prompt {i}", a, b, x, **more) for i, x in enumerate(p)]


def test_win_rate_standard_error_and_verdicts_are_alpacas():
    found = win_rate(compared(P))
    assert 100 * found.mean.value == pytest.approx(58.333333, abs=1e-6)
    assert 100 * found.standard_error == pytest.approx(11.377365, abs=1e-6)
    assert found.standard_error == pytest.approx(pd.Series(P).sem(), abs=1e-12)
    assert 100 * found.discrete.value == pytest.approx(66.666667, abs=1e-6)
    assert (found.wins, found.losses, found.ties, found.n) == (4, 2, 0, 6)


def test_a_win_rate_told_from_the_other_side_is_one_less_itself():
    there, back = win_rate(compared(P)), win_rate([c.swapped for c in compared(P)])
    assert back.mean.value == pytest.approx(1 - there.mean.value)
    assert back.standard_error == pytest.approx(there.standard_error)
    assert (back.wins, back.losses) == (there.losses, there.wins)


def test_sixty_wins_of_a_hundred_have_wilsons_interval():
    found = win_rate(compared([1.0] * 60 + [0.0] * 40)).wilson
    assert (found.low, found.high) == pytest.approx((0.502003, 0.690599), abs=1e-6)
    exact = stats.binomtest(60, 100).proportion_ci(method="wilson")
    assert (found.low, found.high) == pytest.approx((exact.low, exact.high), abs=1e-12)


def test_intervals_draw_prompts_and_not_battles():
    alone = win_rate([Comparison(str(i), "m", "b", float(i % 3 > 0)) for i in range(60)])
    together = win_rate([Comparison(str(i // 10), "m", "b", float((i // 10) % 3 > 0)) for i in range(60)])
    assert alone.mean.value == together.mean.value
    assert together.mean.high - together.mean.low > 2 * (alone.mean.high - alone.mean.low)
    assert together.wilson.high - together.wilson.low > 2 * (alone.wilson.high - alone.wilson.low)


def test_one_comparison_has_no_spread():
    found = win_rate(compared([1.0]))
    assert found.mean.value == 1 and found.mean.low == -math.inf and math.isnan(found.standard_error)


@pytest.mark.parametrize("p", [math.nan, -0.1, 1.5, math.inf])
def test_a_preference_is_a_share(p):
    with pytest.raises(Refusal, match=r"must be a number in \[0, 1\]"):
        Comparison("x", "m", "b", p)


def test_a_win_rate_is_of_one_against_one_other():
    with pytest.raises(Refusal, match="these 0 comparisons are of nobody"):
        win_rate([])
    with pytest.raises(Refusal, match="one pair at a time"):
        win_rate(compared(P) + compared(P, a="other"))


def test_a_judge_that_always_takes_the_first_place_is_found_out():
    found = positions([1.0] * 50, [0.0] * 50)
    assert (found.consistent.value, found.first.value, found.second.value) == (0, 1, 0)
    assert found.preference.value == 1 and found.biased


def test_a_judge_that_keeps_its_word_is_consistent():
    said = [0.9, 0.1, 0.5, 0.7] * 10
    found = positions(said, said)
    assert found.consistent.value == 1 and found.preference.value == 0.5 and not found.biased


def test_shares_of_places_are_counted_by_hand():
    # kept; towards the first; tie and win, towards the first; towards the second; failed twice
    found = positions([0.8, 0.9, 0.5, 0.2, None, 0.3], [0.6, 0.2, 0.1, 0.7, 0.4, math.nan])
    assert (found.consistent.value, found.first.value, found.second.value) == (0.25, 0.5, 0.25)
    assert found.preference.value == pytest.approx(((1 + 0.2) + (1 + 0.7) + (1 + 0.4) + (1 - 0.5)) / 8)
    assert found.failed == 2 and found.consistent.n == 4


def test_arena_verdicts_become_battles():
    verdicts = [("B>A", "A>B"), ("B>>A", "A=B"), ("A>B", "A>>B")]
    assert [x for v in verdicts for x in battles(*v) or []] == [1, 1, 0.5, 1, 1, 1, 1, 1, 1, 0]
    found = arena_score([*verdicts, (None, "A>B")])
    assert found.score.value == pytest.approx(0.85) and found.failed == 1
    assert found.score.low <= 0.85 <= found.score.high and found.published.n == 10


def test_every_arena_verdict_reads_as_the_published_table():
    published = {"A>B": [1], "A>>B": [1] * 3, "A=B": [0.5], "A<<B": [0] * 3, "A<B": [0]}
    published |= {"B>A": [0], "B>>A": [0] * 3, "B=A": [0.5], "B<<A": [1] * 3, "B<A": [1]}
    for first, second in product(published, published):
        assert battles(first, second) == published[second] + [1 - x for x in published[first]]
    with pytest.raises(Refusal, match="is none of"):
        battles("A≻B", "A>B")


def test_a_battle_bootstrap_is_narrower_than_one_of_prompts_where_verdicts_count_thrice():
    generator = np.random.default_rng(1)
    verdicts = [("B>>A", "A>>B") if win else ("A>>B", "B>>A") for win in generator.random(40) < 0.6]
    found = arena_score(verdicts)
    assert found.score.high - found.score.low > 1.5 * (found.published.high - found.published.low)


def test_answers_after_win_where_the_judge_scores_them_higher():
    def said(scores, texts):
        ones = [[1] * len(row) for row in scores]
        return SampleEvidence(["x", "y"], texts, ones, [[True] * 2] * 2, [[-1.0] * 2] * 2, scores=scores, judge="rule")

    before = said([[0.0, 1.0], [2.0, None]], [["a", "b"], ["c", "d"]])
    after = said([[1.0, 1.0], [1.0, 5.0]], [["aa", "bb"], ["cc", "dd"]])
    found = after_against_before(before, after)
    assert [c.p for c in found] == [1.0, 0.5, 0.0] and [c.prompt for c in found] == ["prompt 1", "prompt 1", "prompt 2"]
    assert (found[0].text_a, found[0].text_b, found[0].judge) == ("aa", "a", "rule")
    rows = {row.name: row for row in before_after(RunEvidence({}, {}, {}, samples_before=before, samples_after=after))}
    assert rows["win rate over before"].cells[:2] == ("50.0 %", "50.0 %")
    assert rows["win rate with lengths held equal"].after.value == pytest.approx(0.5)


def test_style_is_held_equal_where_answers_have_markdown():
    draw = random.Random(2)

    def said(bold):
        texts = [
            ["*" * 2 * (draw.random() < bold) + " ".join(draw.choices("abc", k=draw.randint(2, 20)))] for _ in range(150)
        ]
        texts = [[f"{y}**" if y.startswith("**") else y for y in row] for row in texts]
        scores = [[("**" in row[0]) + draw.gauss(0, 0.7)] for row in texts]
        ones = [[1]] * 150
        return SampleEvidence([str(i) for i in range(150)], texts, ones, [[True]] * 150, [[-1.0]] * 150, scores=scores)

    def rows(before, after):
        evidence = RunEvidence({}, {}, {}, samples_before=before, samples_after=after)
        return {row.name: row for row in before_after(evidence, resamples=200)}

    found = rows(said(0.2), said(0.8))
    plain, styled = (found[name].after.value for name in ("win rate over before", "win rate with style held equal"))
    assert plain > 0.6 and abs(styled - 0.5) < abs(plain - 0.5) / 2
    assert "win rate with style held equal" not in rows(said(0), said(0))

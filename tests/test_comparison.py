"""The statistics of a comparison: numbers worked out by hand, and the promise that among equals a winner is hardly ever named.
The runs themselves are tested in test_compare.py."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from penchant.evaluation.comparison import (
    Readings,
    best_of,
    contrast,
    over_prompts,
    over_seeds,
    robustness,
    student,
    tuned,
)


def readings(*rows: list[float], groups: list[int] | None = None) -> Readings:
    values = np.array(rows, dtype=np.float64)
    return Readings(values, tuple(range(len(rows))), tuple(groups or range(values.shape[1])))


def test_a_difference_has_the_mean_squares_and_the_three_tests_that_hand_gives() -> None:
    # d = [[1, 2, 3], [2, 2, 5]]: mean 2.5; prompts 1.5, 2, 4: MS_P = 2 (1 + .25 + 2.25) / 2 = 3.5;
    # seeds 2, 3: MS_S = 3 (.25 + .25) / 1 = 1.5
    gap = contrast(readings([2, 2, 3], [2, 3, 5]), readings([1, 0, 0], [0, 1, 0]))
    assert gap is not None and gap.value == 2.5
    prompts = 2 * stats.t.sf(2.5 / math.sqrt(3.5 / 6), 2)
    seeds = 2 * stats.t.sf(2.5 / math.sqrt(1.5 / 6), 1)
    free = 25.0 / (3.5**2 / 2 + 1.5**2)
    both = 2 * stats.t.sf(2.5 / math.sqrt(5.0 / 6), free)
    assert gap.p == pytest.approx(max(prompts, seeds, both))
    assert gap.prompts.high - 2.5 == pytest.approx(stats.t.ppf(0.975, 2) * math.sqrt(3.5 / 6))
    assert gap.seeds.high - 2.5 == pytest.approx(stats.t.ppf(0.975, 1) * 0.5)


def test_several_pairs_of_one_prompt_are_one_observation_of_prompts() -> None:
    pairs = [0, 0, 1, 1, 2, 2]
    twice = contrast(
        readings([1, 1, 2, 2, 6, 6], [1, 1, 3, 3, 5, 5], groups=pairs), readings(*[[0.0] * 6] * 2, groups=pairs)
    )
    once = contrast(readings([1, 2, 6], [1, 3, 5]), readings([0] * 3, [0] * 3))
    assert twice is not None and once is not None
    assert (twice.value, twice.p, twice.prompts.low) == pytest.approx((once.value, once.p, once.prompts.low))


def test_one_seed_or_one_prompt_is_never_sure_and_equal_things_do_not_differ() -> None:
    for a, b in (([[5.0, 6, 7, 8]], [[0.0] * 4]), ([[5.0], [6.0], [7.0]], [[0.0]] * 3)):
        gap = contrast(readings(*a), readings(*b))
        assert gap is not None and gap.p == 1.0
    same = readings([1, 0, 1], [0, 1, 1])
    gap = contrast(same, same)
    assert gap is not None and (gap.value, gap.p) == (0.0, 1.0)
    other = Readings(same.values, (7, 8), same.groups)
    assert contrast(same, other) is None


def test_what_was_not_measured_is_left_out_of_both_sides() -> None:
    a, b = readings([1, math.nan, 3], [1, 2, 3]), readings([0, 0, 1], [0, 0, 1])
    gap = contrast(a, b)
    assert gap is not None and gap.value == pytest.approx(1.5) and gap.prompts.n == 2
    assert over_prompts(a).n == 2 and over_seeds(a).value == 2.0


def test_intervals_over_seeds_are_students() -> None:
    found = student([1.0, 2.0, 4.0])
    assert found.high - found.value == pytest.approx(3.7946, abs=1e-4)
    assert over_seeds(readings([1, 1], [2, 2], [4, 4])).high == pytest.approx(found.high)
    assert math.isinf(student([1.0]).high)
    assert over_prompts(readings([1, 1, 1, 1], [1, 1, 1, 1]), a_share=True).low < 1.0


def test_a_winner_beats_each_of_the_others_and_one_that_ties_the_best_names_none() -> None:
    rng = np.random.default_rng(0)
    base = rng.normal(size=(1, 80))
    noisy = lambda shift: readings(*(base + shift + 0.1 * rng.normal(size=(3, 80))).tolist())  # noqa: E731
    clear = {"worst": noisy(-1.0), "best": noisy(1.0), "middle": noisy(0.0)}
    assert best_of(clear) == ("best", ["best", "middle", "worst"])
    assert best_of(clear, better=-1)[0] == "worst"
    assert best_of({**clear, "twin": noisy(1.0)})[0] is None
    assert best_of({"alone": noisy(0.0)})[0] is None


@pytest.mark.parametrize(("prompts", "seeds", "rest"), [(1, 0, 0), (1, 0.3, 1), (0, 1, 1), (0.5, 0.1, 1)])
@pytest.mark.parametrize("equal", [2, 4])
def test_among_equals_a_winner_is_named_in_at_most_five_percent(
    equal: int, prompts: float, seeds: float, rest: float
) -> None:
    """Equals differ by chance of prompts, of seeds and of both; in the first case a third, worse one is beside them."""
    rng, runs, named = np.random.default_rng(1), 500, 0
    for _ in range(runs):
        base = rng.normal(size=(1, 40))
        chance = lambda: (  # noqa: E731
            prompts * rng.normal(size=(1, 40)) + seeds * rng.normal(size=(3, 1)) + rest * rng.normal(size=(3, 40))
        )
        found = {str(k): readings(*(base + chance()).tolist()) for k in range(equal)}
        if equal == 2:
            found["worse"] = readings(*(base + chance() - 3).tolist())
        named += best_of(found)[0] is not None
    assert stats.binomtest(named, runs, 0.05, alternative="greater").pvalue > 0.01, f"{named} of {runs}"


def test_hyper_parameters_are_chosen_on_other_prompts_than_they_are_judged_on() -> None:
    # each point is best on one half by luck: chosen by that half, it is judged on the other, where it is worst
    a, b = readings([1, 0, 1, 0], [1, 0, 1, 0]), readings([0, 1, 0, 1], [0, 1, 0, 1])
    found, chosen = tuned([a, b])
    assert chosen == [1, 0] and found.value == 0.0
    better = readings([2, 2, 2, 2], [2, 2, 2, 2])
    assert tuned([a, better, b])[0].value == 2.0
    assert tuned([a, b], better=-1)[0].value == 1.0


def test_many_equal_points_gain_nothing_from_being_many() -> None:
    rng = np.random.default_rng(2)
    values = [tuned([readings(*rng.normal(size=(3, 20)).tolist()) for _ in range(8)])[0].value for _ in range(200)]
    assert abs(float(np.mean(values))) < 3 * float(np.std(values)) / math.sqrt(200)


def test_a_grid_is_described_by_median_quartiles_and_the_slope_away_from_its_best() -> None:
    found = robustness({(0,): 0.5, (1,): 0.7, (2,): 0.6, (3,): 0.4})
    assert (found.best, found.worst, found.median) == (0.7, 0.4, pytest.approx(0.55))
    assert found.slope == pytest.approx((0.2 + 0.1 + 2 * 0.3) / (1 + 1 + 4))  # Σ steps · lost / Σ steps²
    assert found.quartiles == (pytest.approx(0.475), pytest.approx(0.625)) and found.spread == pytest.approx(0.15)
    assert robustness({(0, 0): 1.0}).slope is None
    assert robustness({(0,): 1.0, (1,): 3.0}, better=-1).worst == 3.0

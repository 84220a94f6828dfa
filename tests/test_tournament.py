"""Bradley-Terry and Elo against hand numbers and against two other libraries."""

from __future__ import annotations

import math

import evalica
import numpy as np
import pytest
import statsmodels.api as sm

from penchant.errors import Refusal
from penchant.evaluation.comparisons import Comparison
from penchant.evaluation.tournament import bradley_terry, online_elo

WINS = [[0, 7, 9], [3, 0, 6], [1, 4, 0]]


def games(wins, names="abc"):
    out = [
        Comparison(f"{i}{j}{k}", names[i], names[j], 1.0)
        for i in range(len(wins))
        for j in range(len(wins))
        for k in range(wins[i][j])
    ]
    return out


def test_three_models_have_the_worked_strengths():
    found = bradley_terry(games(WINS), resamples=200)
    assert found.names == ("a", "b", "c")
    assert [e.value for e in found.strength] == pytest.approx([0.943606, -0.160161, -0.783445], abs=1e-6)
    assert [found.probability(*x) for x in ("ab", "ac", "bc")] == pytest.approx([0.750965, 0.849035, 0.650965], abs=1e-6)
    assert [e.value for e in found.elo] == pytest.approx([1163.9211, 972.1772, 863.9016], abs=1e-4)
    assert all(e.low < e.value < e.high for e in found.strength)
    swapped = bradley_terry([c.swapped for c in games(WINS)], resamples=0)
    assert swapped.of("b") == pytest.approx(found.of("b"), abs=1e-9)


def test_ties_weights_and_soft_preferences_agree_with_another_library():
    generator = np.random.default_rng(0)
    names, truth = "uvwxyz", generator.normal(0, 1, 6)
    rows = []
    for i in range(300):
        a, b = generator.choice(6, 2, replace=False)
        p = float(
            generator.choice([0.0, 0.5, 1.0], p=[(1 - (s := 1 / (1 + math.exp(truth[b] - truth[a])))) * 0.9, 0.1, s * 0.9])
        )
        rows.append(Comparison(str(i // 3), names[a], names[b], p))
    weights = generator.random(300) + 0.5
    found = bradley_terry(rows, weights.tolist(), resamples=0)
    word = {1.0: evalica.Winner.X, 0.0: evalica.Winner.Y, 0.5: evalica.Winner.Draw}
    other = evalica.bradley_terry(
        [c.a for c in rows], [c.b for c in rows], [word[c.p] for c in rows], weights=weights, tolerance=1e-13, limit=10**5
    )
    for name in names:
        assert found.of(name) == pytest.approx(math.log(other.scores[name]), abs=1e-6)


def test_sandwich_errors_with_prompts_are_those_of_another_library():
    generator = np.random.default_rng(4)
    rows = [
        Comparison(str(i // 4), *("abc"[j] for j in generator.choice(3, 2, replace=False)), float(generator.random() < 0.6))
        for i in range(200)
    ]
    found = bradley_terry(rows, anchor="a", resamples=300)
    x = np.array([[(c.a == n) - (c.b == n) for n in "bc"] for c in rows], dtype=float)
    other = sm.GLM(np.array([c.p for c in rows]), x, family=sm.families.Binomial()).fit(
        cov_type="cluster", cov_kwds={"groups": [int(c.prompt) for c in rows], "use_correction": False}
    )
    for k, name in enumerate("bc"):
        place = found.names.index(name)
        assert found.of(name) == pytest.approx(other.params[k], abs=1e-7)
        assert found.sandwich[place] == pytest.approx(other.bse[k], rel=1e-6)
        width = (found.strength[place].high - found.strength[place].low) / 2
        assert width == pytest.approx(1.96 * other.bse[k], rel=0.25)
    assert found.of("a") == 0 and found.sandwich[found.names.index("a")] == pytest.approx(0, abs=1e-12)


def test_elo_of_a_stream_is_worked_and_is_another_librarys():
    stream = [Comparison(str(i), "a", "b", p) for i, p in enumerate((1.0, 1.0, 0.5, 0.0))]
    found = online_elo(stream)
    assert (found["a"], found["b"]) == pytest.approx((1009.213042, 990.786958), abs=1e-6)
    x, y, draw = evalica.Winner.X, evalica.Winner.Y, evalica.Winner.Draw
    other = evalica.elo(["a"] * 4, ["b"] * 4, [x, x, draw, y], k=32)
    assert found["a"] == pytest.approx(other.scores["a"], abs=1e-9)
    assert online_elo(stream[::-1])["a"] != pytest.approx(found["a"])


def test_who_never_lost_has_no_strength():
    with pytest.raises(Refusal, match="no strengths are the most likely"):
        bradley_terry(games([[0, 5, 5], [0, 0, 3], [0, 2, 0]]))
    with pytest.raises(Refusal, match="compared with itself"):
        bradley_terry([Comparison("x", "a", "a", 1.0)])
    with pytest.raises(Refusal, match="anchor"):
        bradley_terry(games(WINS), anchor="d")
    with pytest.raises(Refusal, match="no comparison"):
        bradley_terry([])


def test_draws_without_a_maximum_are_counted_and_make_the_interval_unknown():
    found = bradley_terry(games([[0, 9], [1, 0]], "ab"), resamples=200)
    assert found.lost > 0.2 and math.isinf(found.strength[0].high)

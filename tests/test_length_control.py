"""The length-controlled win rate, in both forms, against hand numbers, the published code's rows and another library's fit."""

from __future__ import annotations

import math

import numpy as np
import pytest
import statsmodels.api as sm

from penchant.errors import Refusal
from penchant.evaluation.comparisons import Comparison
from penchant.evaluation.length_control import Gamed, between, far_from, length_controlled
from penchant.evaluation.logistic import fit

P = (0.9, 0.8, 0.3, 0.6, 0.2, 0.7)
SHORTER = (-400, -300, 200, -250, 300, -50)


def compared(p, a="model"):
    return [Comparison(f"prompt {i}", a, "baseline", float(x)) for i, x in enumerate(p)]


def lengths(shorter):
    """(of a, of b): length_b − length_a = shorter."""
    return [(1000.0 - d, 1000.0) for d in shorter]


def test_the_maximum_likelihood_fit_gives_the_worked_numbers():
    found = length_controlled(compared(P), lengths=lengths(SHORTER))
    assert found.sd == pytest.approx(284.018779, abs=1e-6)
    assert (found.theta, found.psi) == pytest.approx((-1.601553, 0.084156), abs=1e-6)
    assert 100 * found.value.value == pytest.approx(52.102667, abs=1e-6)
    fitted = 1 / (1 + np.exp(-(found.theta * np.tanh(np.array(SHORTER) / found.sd) + found.psi)))
    assert fitted.mean() == pytest.approx(found.raw, abs=1e-9) and found.phi == 0


def test_with_difficulty_it_is_the_fit_of_another_library():
    generator = np.random.default_rng(3)
    n = 60
    d, z = generator.normal(size=n), generator.normal(0, 200, n)
    p = 1 / (1 + np.exp(-(0.3 + 0.8 * d - 1.5 * np.tanh(z / 200) + generator.normal(size=n))))
    rows = compared(p)
    found = length_controlled(
        rows, difficulty={c.prompt: float(x) for c, x in zip(rows, d, strict=True)}, lengths=lengths(z), resamples=0
    )
    x = np.stack([np.tanh(z / z.std(ddof=1)), d, np.ones(n)], 1)
    other = sm.GLM(p, x, family=sm.families.Binomial()).fit(tol=1e-12)
    assert (found.theta, found.phi, found.psi) == pytest.approx(tuple(other.params), abs=1e-7)
    assert found.value.value == pytest.approx((1 / (1 + np.exp(-(other.params[1] * d + other.params[2])))).mean())


def test_symmetric_preferences_give_exactly_half():
    found = length_controlled(compared([0.7, 0.3, 0.9, 0.1]), lengths=lengths([-100, 100, -200, 200]))
    assert found.psi == pytest.approx(0, abs=1e-9) and found.value.value == pytest.approx(0.5, abs=1e-9)


@pytest.mark.parametrize("form", ["maximum likelihood", "published"])
def test_a_model_against_itself_gets_half(form):
    assert length_controlled(compared(P, a="baseline"), form, lengths=lengths(SHORTER)).value.value == 0.5


def test_units_of_length_do_not_matter():
    once, ten = (length_controlled(compared(P), lengths=lengths(np.array(SHORTER) * k), resamples=0) for k in (1, 0.1))
    assert ten.value.value == pytest.approx(once.value.value, abs=1e-10)


def test_equal_lengths_leave_the_win_rate_as_it_is():
    found = length_controlled(compared(P), lengths=lengths([50.0] * 6))
    assert found.value.value == pytest.approx(found.raw, abs=1e-9) and found.theta == 0


def test_lengths_are_characters_of_the_texts():
    rows = [Comparison(str(i), "m", "b", p, "x" * (1000 - d), "y" * 1000) for i, (p, d) in enumerate(zip(P, SHORTER))]  # noqa: B905
    assert 100 * length_controlled(rows, resamples=0).value.value == pytest.approx(52.102667, abs=1e-6)


FULL = (-1.677653273, 0.593865158, 0.315613695)
BARE = (-1.743646958, 0.377320233)
"""What alpaca_eval's own `fit_LogisticRegressionCV` gives on these rows, with and without difficulty and gamed rows."""


def published_rows(n=120, seed=5):
    generator = np.random.default_rng(seed)
    z = np.round(generator.normal(150, 300, n))
    d = np.round(generator.normal(0, 1, n), 3)
    p = np.round(1 / (1 + np.exp(-(0.4 + 0.7 * d - 1.8 * np.tanh(z / 300) + generator.normal(size=n)))), 3)
    gamed = [
        Gamed(f"prompt {i % n}", float(q), float(s))
        for i, (q, s) in enumerate(zip(np.round(generator.random(40), 3), np.round(generator.normal(size=40), 3)))  # noqa: B905
    ]
    return p, z, d, gamed


def test_the_published_form_is_the_published_codes_number():
    p, z, d, gamed = published_rows()
    rows = compared(p)
    hard = {c.prompt: float(x) for c, x in zip(rows, d, strict=True)}
    full = length_controlled(rows, "published", difficulty=hard, gamed=gamed, lengths=lengths(z))
    bare = length_controlled(rows, "published", lengths=lengths(z))
    assert (full.theta, full.phi, full.psi) == pytest.approx(FULL, abs=2e-4)
    assert (bare.theta, bare.psi) == pytest.approx(BARE, abs=2e-4)
    assert math.isinf(full.value.high) and full.phi != 0


def test_a_judge_of_length_alone_is_seen_through():
    """800 answers about 200 characters longer, judged by σ(1.5 tanh(difference / 300)): they win, but not at equal length."""
    generator = np.random.default_rng(0)
    longer = generator.normal(200, 300, 800)
    won = (generator.random(800) < 1 / (1 + np.exp(-1.5 * np.tanh(longer / 300)))).astype(float)
    found = length_controlled(compared(won), lengths=lengths(-longer))
    assert found.raw > 0.58 and found.value.low < 0.5 < found.value.high
    assert abs(found.value.value - 0.5) < 0.04 and found.lost == 0


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    """ψ = 0.5: the rate at equal length is σ(0.5) = 0.622."""
    hits = []
    for seed in range(60):
        generator = np.random.default_rng(seed)
        z = generator.normal(0, 300, 100)
        sd = z.std(ddof=1)
        won = (generator.random(100) < 1 / (1 + np.exp(1.5 * np.tanh(z / sd) - 0.5))).astype(float)
        value = length_controlled(compared(won), lengths=lengths(z), resamples=400).value
        hits.append(value.low <= 1 / (1 + math.exp(-0.5)) <= value.high)
    assert 52 <= sum(hits) <= 60


def test_between_two_models_the_differences_of_their_coefficients_count():
    m = length_controlled(compared(P), lengths=lengths(SHORTER), resamples=0)
    same = between(m, m)
    other = length_controlled(compared([0.5] * 6), lengths=lengths(SHORTER), resamples=0)
    assert same == 0.5 and between(m, other) == pytest.approx(m.value.value)
    with pytest.raises(Refusal, match="cannot be held against each other"):
        between(m, length_controlled(compared(P), "published", lengths=lengths(SHORTER)))


@pytest.mark.parametrize(
    ("raw", "controlled", "extreme"),
    [(0.2, 0.09, True), (0.2, 0.11, False), (0.2, 0.39, False), (0.2, 0.41, True), (0.5, 0.37, True), (0.5, 0.38, False)],
)
def test_the_warning_of_extreme_changes_is_the_published_rule(raw, controlled, extreme):
    assert far_from(raw, controlled) is extreme


def test_what_cannot_be_fitted_is_refused():
    with pytest.raises(Refusal, match="no maximum"):
        length_controlled(compared([1.0] * 6), lengths=lengths(SHORTER))
    with pytest.raises(Refusal, match="hold no texts"):
        length_controlled(compared(P))
    with pytest.raises(Refusal, match="at least 5 comparisons"):
        length_controlled(compared(P[:4]), "published", lengths=lengths(SHORTER[:4]))
    with pytest.raises(Refusal, match="has no difficulty"):
        length_controlled(compared(P), lengths=lengths(SHORTER), difficulty={"prompt 0": 1.0})


def test_a_logistic_fit_says_where_there_is_no_maximum():
    x = np.stack([np.ones(4), np.array([-2.0, -1, 1, 2])], 1)
    assert not fit(x, np.array([0.0, 0, 1, 1])).found
    assert not fit(np.stack([x[:, 1], 2 * x[:, 1]], 1), np.array([0.2, 0.4, 0.5, 0.9])).found
    many = fit(x, np.array([0.0, 1, 0, 1]), np.array([[1.0, 1, 1, 1], [1, 0, 0, 1]]))
    assert many.found.tolist() == [True, False] and np.isnan(many.coefficients[1]).all()

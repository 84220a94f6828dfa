"""Scores with style held equal, against hand numbers and another library's fit."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import statsmodels.api as sm

from penchant.errors import Refusal
from penchant.evaluation.comparisons import Comparison
from penchant.evaluation.style_control import FEATURES, Style, difference, style, style_controlled

TEXT = """# Title
####### seven is none
#none
  1. one
- two
 *\tthree
12.none
** none ** but **bold** and __bold__
```
# code
- code
**code**
```
"""


def table(n, seed, models=("m",), gain=0.0, liking=1.0):
    """Battles of models that write longer and with more headers than the baseline, before a judge who likes length."""
    generator = np.random.default_rng(seed)
    rows, styles = [], []
    for i in range(n):
        for k, model in enumerate(models):
            ours = Style(float(generator.integers(100, 900)), int(generator.integers(0, 5)), int(generator.integers(0, 9)))
            theirs = Style(
                float(generator.integers(100, 500)), int(generator.integers(0, 3)), 0, int(generator.integers(0, 4))
            )
            chance = 1 / (1 + math.exp(-(gain * k + 3 * liking * difference(ours, theirs)[0])))
            rows.append(Comparison(f"prompt {i}", model, "base", float(generator.random() < chance)))
            styles.append((ours, theirs))
    return rows, styles


def test_markdown_is_counted_outside_of_code():
    assert style(TEXT, 40) == Style(40, headers=1, lists=3, bold=3)  # "** none **" is bold to the published pattern too
    assert style("") == Style(0) and style("ab").length == 2
    assert style("x\n\n\n- y\n\n  2. z").lists == 2


def test_style_differences_are_the_worked_numbers():
    found = difference(Style(99, 2, 5, 0), Style(49, 0, 1, 3))
    assert found[0] == pytest.approx(50 / 148)
    assert found[1] == pytest.approx(0.02 / 1.02) and found[2] == pytest.approx((0.05 - 0.02) / 1.07)
    assert found[3] == pytest.approx(-0.06 / 1.06)
    assert difference(Style(0), Style(0)) == (0, 0, 0, 0)


def test_the_fit_is_another_librarys_on_centred_and_scaled_features():
    rows, styles = table(150, 2, models=("m", "k"), gain=0.7)
    found = style_controlled(rows, "base", styles=styles, resamples=0)
    x = np.array([difference(a, b) for a, b in styles])
    sd, mean = x.std(0, ddof=1), x.mean(0)
    dummies = np.array([[c.a == "m", c.a == "k"] for c in rows], dtype=float)
    other = sm.GLM(
        np.array([c.p for c in rows]), np.concatenate([dummies, (x - mean) / sd], 1), family=sm.families.Binomial()
    ).fit(tol=1e-12)
    theta, gamma = other.params[:2], other.params[2:]
    squashed = lambda z: 1 / (1 + math.exp(-z))  # noqa: E731
    scores = {s.name: s for s in found.scores}
    for i, name in enumerate(("m", "k")):
        assert scores[name].published.value == pytest.approx(squashed(theta[i]), abs=1e-8)
        assert scores[name].no_difference.value == pytest.approx(squashed(theta[i] - gamma @ (mean / sd)), abs=1e-8)
        assert scores[name].raw.value == pytest.approx(np.mean([c.p for c in rows if c.a == name]), abs=1e-8)
    assert [found.effects[f].value for f in FEATURES] == pytest.approx(list(gamma), abs=1e-7)
    assert [s.name for s in found.scores] == ["k", "m"] and scores["k"].raw.n == 150


def test_where_only_style_wins_the_score_with_no_difference_is_even_and_the_published_one_is_not():
    rows, styles = table(600, 5)
    found = style_controlled(rows, "base", features=["length"], styles=styles, resamples=300)
    score = found.scores[0]
    assert score.raw.low > 0.5 and score.published.low > 0.5
    assert score.no_difference.low < 0.5 < score.no_difference.high and score.no_difference.value < score.raw.low
    assert found.effects["length"].low > 0 and found.mean_difference["length"] > 0 and found.lost == 0


def test_told_from_the_other_side_only_the_score_with_no_difference_is_turned_round():
    rows, styles = table(80, 7)
    there = style_controlled(rows, "base", styles=styles, resamples=0).scores[0]
    back = style_controlled([c.swapped for c in rows], "m", styles=[(b, a) for a, b in styles], resamples=0).scores[0]
    assert back.name == "base" and back.no_difference.value == pytest.approx(1 - there.no_difference.value, abs=1e-9)
    assert abs(there.published.value - there.no_difference.value) > 0.05


def test_features_that_never_differ_are_left_out_and_texts_are_read():
    rows, _ = table(60, 9)
    written = [replace(c, text_a="word " * (3 + i % 7), text_b="word " * 5) for i, c in enumerate(rows)]
    found = style_controlled(written, "base", resamples=0)
    assert list(found.effects) == ["length"] and found.scores[0].no_difference.low == -math.inf


def test_what_cannot_be_fitted_is_refused():
    rows, styles = table(30, 1)
    won = [replace(c, p=1.0) for c in rows]
    for wrong, said in (
        (lambda: style_controlled(won, "base", styles=styles), "no maximum"),
        (lambda: style_controlled(rows, "nobody", styles=styles), "'nobody' is in none of 30"),
        (lambda: style_controlled(rows, "base"), "no texts"),
        (lambda: style_controlled(rows, "base", styles=styles[:3]), "3 pairs of styles"),
        (lambda: style_controlled(rows, "base", features=["colour"], styles=styles), "'colour'"),  # pyright: ignore
        (lambda: style_controlled([Comparison("x", "m", "m", 1.0)], "m", styles=styles[:1]), "with itself"),
        (lambda: Style(math.nan), "no count"),
    ):
        with pytest.raises(Refusal, match=said):
            wrong()

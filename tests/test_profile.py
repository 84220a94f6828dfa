"""Factor profiles by hand: τ and its ties, what stays when pairs are turned round, planted factors, and agreement."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penchant.errors import Refusal
from penchant.evaluation.comparisons import Comparison
from penchant.evaluation.factors import FACTORS, differences, flesch, syllables
from penchant.evaluation.profile import agreement, counts, profile, profile_of, tau

PREF, FAC = (1, 1, -1, 1, -1, 1, 0), (1, 0, -1, -1, 1, 1, 1)
signs = st.lists(st.tuples(st.sampled_from([-1, 0, 1]), st.integers(-3, 3)), min_size=1, max_size=20)


def test_ties_of_the_factor_count_against_it_and_pairs_without_preference_are_left_out():
    assert counts(PREF, FAC) == (3, 2, 1)
    assert tau(PREF, FAC) == pytest.approx(1 / 6)
    assert tau(PREF, FAC, "drop") == pytest.approx(1 / 5)
    assert tau(PREF, FAC, "tau_b") == pytest.approx(1 / math.sqrt(30))
    assert tau((1, -1), (1, -1)) == 1.0 and tau((1, -1), (-1, 1)) == -1.0 and tau((1, -1), (0, 0)) == 0.0
    assert math.isnan(tau((0,), (1,))) and math.isnan(tau((), ())) and math.isnan(tau((1,), (0,), "drop"))
    with pytest.raises(Refusal, match="not a number"):
        tau((1,), (math.nan,))


@given(signs)
def test_turning_pairs_round_changes_nothing_and_a_negated_factor_negates(rows: list[tuple[int, int]]):
    pref, fac = [p for p, _ in rows], [f for _, f in rows]
    same = pytest.approx(tau(pref, fac), nan_ok=True)
    assert tau([-p for p in pref], [-f for f in fac]) == same
    assert -tau(pref, [-f for f in fac]) == same
    assert tau(pref, [f**3 for f in fac]) == same
    strict, dropped = tau(pref, fac), tau(pref, fac, "drop")
    assert not math.isfinite(dropped) or abs(dropped) >= abs(strict) - 1e-12
    if all(fac):
        assert dropped == same


def test_two_profiles_agree_by_ranks_and_by_values():
    human, model = (dict(zip("abcd", v, strict=True)) for v in ((0.6, 0.3, -0.1, 0.2), (0.2, 0.5, -0.2, 0.4)))
    found = agreement(human, {**model, "e": 1.0})
    assert (found.spearman, found.kendall, found.pearson) == pytest.approx((0.4, 1 / 3, 0.540853), abs=1e-6)
    assert found.factors == 4 and math.isnan(agreement(human, {"a": 1.0}).pearson)


def planted(driver: str, n: int = 120) -> list[Comparison]:
    rng = np.random.default_rng(0)
    out = []
    for i in range(n):
        texts = [" ".join(rng.choice(["cat", "mat", "tree", "river"], rng.integers(4, 30))) for _ in range(2)]
        asks = [bool(rng.integers(2)) for _ in range(2)]
        texts = [f"{t}{'?' if q else '.'}" for t, q in zip(texts, asks, strict=True)]
        gap = asks[0] - asks[1] if driver == "questions" else len(texts[0]) - len(texts[1])
        out.append(Comparison(f"p{i // 2}", "x", "y", 0.5 + 0.5 * np.sign(gap), *texts))
    return out


def test_the_planted_factor_is_found_and_a_factor_that_goes_with_it_is_told_apart():
    found = profile(planted("length"), "longer")
    assert max(found.scores.values(), key=lambda s: abs(s.tau.value if s.tau else 0)).name in ("length", "sentence length")
    length = found.scores["length"]
    assert length.tau is not None and length.tau.low > 0.8 and length.sure
    asked = profile(planted("questions"))
    question = asked.scores["questions"]
    assert question.tau is not None and question.tau.value == 1.0 and asked.undecided > 20
    assert question.partial is not None and question.partial.low > 1 > abs(asked.scores["length"].partial.value)  # type: ignore[union-attr]
    assert not asked.scores["length"].sure and asked.scores["markdown"].partial is None
    assert asked.scores["markdown"].tau is not None and asked.scores["markdown"].tau.value == 0.0


def test_pairs_of_one_prompt_are_drawn_together():
    pref, fac = [1.0] * 10, {"f": [1.0] * 5 + [-1.0] * 5}
    apart, together = profile_of(pref, fac), profile_of(pref, fac, [0] * 5 + [1] * 5)
    wide = [one.scores["f"].tau for one in (apart, together)]
    assert all(one is not None and one.value == 0 for one in wide)
    assert wide[1].high - wide[1].low > wide[0].high - wide[0].low  # type: ignore[union-attr]


def test_the_factors_count_what_they_say():
    said = {f.name: f.of for f in FACTORS}
    prompt, listed = "name two cats", "Here are **two**:\n\n- Tom\n- Kit\n"
    assert said["length"](prompt, listed) == 5 and said["lists"](prompt, listed) == 0.5
    assert said["markdown"](prompt, listed) == 1 / 5 and said["numbers"]("", "7 of 10 cats") == 2 / 2
    assert said["hedging"]("", "It may, perhaps, rain.") == 2 / 4
    assert said["questions"]("", "Why? Because. Who?") == 2 / 3
    assert said["refusal"]("", "I'm sorry, but no.") == said["refusal"]("", "As an AI I know.") == 1.0
    assert said["refusal"]("", "She was sorry.") == 0.0
    assert said["new word pairs"]("a b c", "a b d") == 1 / 2 and said["varied words"]("", "a a b") == 2 / 3
    assert [syllables(w) for w in ("cat", "make", "table", "reading", "the")] == [1, 1, 2, 2, 1]
    assert flesch("The cat sat. The dog ran.") == pytest.approx(206.835 - 1.015 * 3 - 84.6)
    assert all(f.of("", "") == 0 for f in FACTORS) and all(math.isfinite(f.of("?", "…\n\n")) for f in FACTORS)
    one = differences([Comparison("p", "a", "b", 1.0, "one two three", "one")], [f for f in FACTORS if f.name == "length"])
    assert one == {"length": [2.0]}

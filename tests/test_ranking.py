"""Rankings made of pairwise probabilities: the numbers worked by hand, the comparisons they cost, and what is left out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import combinations
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penchant.errors import Refusal
from penchant.feedback.ranking import Preferred, Ranking, rank


class Table:
    """Answers from a table of probabilities, and keeps what it was asked."""

    def __init__(self, table: Mapping[tuple[int, int], float]) -> None:
        self.table = {**{(j, i): 1 - p for (i, j), p in table.items()}, **table}
        self.calls: list[list[tuple[int, int, int]]] = []

    def __call__(self, asked: list[tuple[int, int, int]]) -> list[float]:
        self.calls.append(asked)
        return [self.table[i, j] for _, i, j in asked]


def ranked(table: Mapping[tuple[int, int], float], how: Ranking, k: int = 3) -> list[Preferred]:
    (found,) = rank([[f"response {i}" for i in range(k)]], Table(table), how)
    assert found is not None
    return found


CIRCLE = {(0, 1): 0.9, (1, 2): 0.7, (2, 0): 0.6}


def test_the_first_is_the_baseline_and_two_others_are_compared_through_it() -> None:
    judge = Table({(1, 0): 0.8, (2, 0): 0.6})
    (found,) = rank([["b", "one", "two"]], judge, "baseline")
    assert found is not None
    assert judge.calls == [[(0, 1, 0), (0, 2, 0)]]  # K − 1 comparisons, in one call
    assert [(i, j) for i, j, _ in found] == [(1, 2), (1, 0), (2, 0)]
    assert [p for *_, p in found] == pytest.approx([0.727273, 0.8, 0.6], abs=1e-6)


def test_a_baseline_that_wins_is_the_winner_of_its_pairs() -> None:
    assert ranked({(1, 0): 0.2, (2, 0): 0.3}, "baseline") == [
        (0, 2, 0.7),
        (0, 1, 0.8),
        (2, 1, pytest.approx(1 / (1 + (0.2 / 0.8) / (0.3 / 0.7)))),
    ]


def test_the_star_keeps_the_baselines_own_comparisons_only() -> None:
    assert ranked({(1, 0): 0.8, (2, 0): 0.4}, "star") == [(1, 0, 0.8), (0, 2, 0.6)]


def test_a_certain_baseline_leaves_the_others_unsure() -> None:
    found = {(i, j): p for i, j, p in ranked({(1, 0): 1.0, (2, 0): 0.0}, "baseline")}
    assert found[1, 0] == found[0, 2] == 1 and found[1, 2] == pytest.approx(0.99**2 / (0.99**2 + 0.01**2))


def test_borda_ranks_a_circle_by_its_sums_and_drops_the_pair_that_contradicts() -> None:
    # sums 1.3, 0.8, 0.9, so the order is 0, 2, 1; of its pairs the judge agrees with 0 ≻ 1 alone
    assert ranked(CIRCLE, "borda") == [(0, 1, 0.9)]


def test_tideman_locks_the_surest_and_no_circle() -> None:
    assert ranked(CIRCLE, "tideman") == [(0, 1, 0.9), (1, 2, 0.7)]


def test_merging_compares_neighbours_and_pairs_them() -> None:
    table = {(i, j): 1 / (1 + math.exp(0.5 * (i - j))) for i, j in combinations(range(5), 2)}
    judge = Table(table)
    (found,) = rank([[f"response {i}" for i in (0, 1, 2, 3, 4)]], judge, "merge")
    assert found is not None
    assert [(i, j) for i, j, _ in found] == [(0, 1), (1, 2), (2, 3), (3, 4)]
    assert sum(map(len, judge.calls)) <= 8  # of 10


TABLES = st.integers(2, 6).flatmap(
    lambda k: st.tuples(
        st.just(k),
        st.fixed_dictionaries({pair: st.floats(0, 1) for pair in combinations(range(k), 2)}),
    )
)


@pytest.mark.parametrize("how", get_args(Ranking))
def test_whatever_is_answered_pairs_are_sure_enough_and_make_no_circle(how: Ranking) -> None:
    @settings(max_examples=60, deadline=None, database=None)
    @given(TABLES)
    def check(made: tuple[int, dict[tuple[int, int], float]]) -> None:
        k, table = made
        judge = Table(table)
        (found,) = rank([[f"response {i}" for i in range(k)]], judge, how)
        assert found is not None
        asked = sum(map(len, judge.calls))
        most = {"baseline": k - 1, "star": k - 1, "merge": k * math.ceil(math.log2(k))}.get(how, k * (k - 1) // 2)
        assert asked <= most
        assert all(i != j and 0.5 < p <= 1 for i, j, p in found)
        assert len({frozenset((i, j)) for i, j, _ in found}) == len(found)
        above = {i: {j for w, j, _ in found if w == i} for i in range(k)}
        left = set(range(k))
        while left:  # there is always one that nobody left beats
            top = [j for j in left if not any(j in above[i] for i in left)]
            assert top
            left -= set(top)

    check()


@pytest.mark.parametrize("how", get_args(Ranking))
def test_prompts_are_asked_together_and_each_has_its_own_pairs(how: Ranking) -> None:
    judge = Table({(i, j): 0.9 for i, j in combinations(range(3), 2)})
    alone = rank([["a", "b", "c"]], judge, how)
    calls = len(judge.calls)
    assert rank([["a", "b", "c"], ["d", "e", "f"], ["g", "h", "i"]], judge, how) == alone * 3
    assert len(judge.calls) == 2 * calls


@pytest.mark.parametrize("how", get_args(Ranking))
def test_equal_texts_are_neither_asked_about_nor_paired(how: Ranking) -> None:
    judge = Table({(i, j): 0.9 for i, j in combinations(range(3), 2)})
    (found,) = rank([["a", "a", "b"]], judge, how)
    assert found and all({i, j} != {0, 1} for i, j, _ in found)
    assert all({i, j} != {0, 1} for call in judge.calls for _, i, j in call)


def test_a_failed_comparison_leaves_out_its_prompt_alone() -> None:
    assert rank([["a", "b"], ["c", "d"]], lambda asked: [math.nan, 0.25], "baseline") == [None, [(0, 1, 0.75)]]


def test_ties_make_no_pair() -> None:
    assert ranked({(1, 0): 0.5, (2, 0): 0.5}, "baseline") == []


def test_what_cannot_be_ranked_is_refused() -> None:
    with pytest.raises(Refusal, match="did you mean 'borda'"):
        rank([["a", "b"]], lambda asked: [0.5], "bord")  # pyright: ignore[reportArgumentType]
    with pytest.raises(Refusal, match="prompt 2 has 1 responses"):
        rank([["a", "b"], ["a"]], lambda asked: [0.5])
    with pytest.raises(Refusal, match=r"came out as 1\.5"):
        rank([["a", "b"]], lambda asked: [1.5])

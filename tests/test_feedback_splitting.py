"""Splitting by prompt and the conversions between kinds of rows. Reading files is tested beside this."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penchant.errors import Refusal
from penchant.feedback import convert, open_source, pair, split
from penchant.feedback.records import Row


def pairs(prompts: list[str]) -> list[dict[str, str]]:
    return [{"prompt": p, "chosen": f"yes {i}", "rejected": f"no {i}"} for i, p in enumerate(prompts)]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from("abcdefghijkl"), min_size=4, max_size=60), st.integers(0, 5), st.randoms())
def test_no_prompt_stands_on_both_sides_and_row_order_does_not_matter(prompts, seed, random) -> None:
    if len(set(prompts)) < 4:
        return
    train, held = split(open_source(pairs(prompts)), 0.3, seed)
    assert sorted(train + held) == list(range(len(prompts)))
    assert not {prompts[i] for i in train} & {prompts[i] for i in held}
    assert len({prompts[i] for i in held}) == round(0.3 * len(set(prompts)))
    shuffled = random.sample(prompts, len(prompts))
    _, held_again = split(open_source(pairs(shuffled)), 0.3, seed)
    assert {shuffled[i] for i in held_again} == {prompts[i] for i in held}


def test_the_seed_decides_who_is_held_out_and_a_whole_number_counts_prompts() -> None:
    source = open_source(pairs([f"p{i % 100}" for i in range(300)]))
    sides = [split(source, 10, seed)[1] for seed in range(20)]
    assert all(len(side) == 30 for side in sides)
    assert split(source, 10, 3)[1] == sides[3]
    assert len({tuple(side) for side in sides}) == 20
    # 20 draws of 10 in 100: each prompt is expected twice; that none is out 9 times has probability above 0.9999
    often = [sum(i in side for side in sides) for i in range(100)]
    assert sum(often) == 200 and max(often) < 9


def test_a_growing_file_keeps_its_held_out_prompts() -> None:
    before = split(open_source(pairs([f"p{i}" for i in range(1000)])), 0.1, 0)[1]
    after = split(open_source(pairs([f"p{i}" for i in range(1010)])), 0.1, 0)[1]
    assert len(set(before) & set(after)) >= 97


def test_rows_of_one_prompt_are_split_by_row_where_that_is_asked() -> None:
    source = open_source(pairs(["walk"] * 40))
    with pytest.raises(Refusal, match="--split row"):
        split(source, 0.25, 0)
    train, held = split(source, 0.25, 0, "row")
    assert len(held) == 10 and sorted(train + held) == list(range(40))
    assert split(source, 0.25, 1, "row")[1] != held
    twice = open_source([*pairs(["walk"] * 40), *pairs(["walk"] * 40)])
    _, both = split(twice, 0.25, 0, "row")
    assert sorted(both) == sorted([*held, *(i + 40 for i in held)])  # a row that is there twice stands on one side


@pytest.mark.parametrize(
    "held_out, said",
    [
        (3, "leaves none to train on; hold out at most 2"),
        (0.1, "less than one prompt held out"),
        (0.9, "less than one prompt to train on"),
        (0, "must be at least one prompt"),
        (1.0, "must be a share between 0 and 1"),
        (float("nan"), "must be a share between 0 and 1"),
        (True, "must be a share between 0 and 1"),
    ],
)
def test_too_few_prompts_to_split_is_refused(held_out, said: str) -> None:
    with pytest.raises(Refusal, match=said):
        split(open_source(pairs(["a", "b", "c", "a"])), held_out, 0)


def test_pairs_are_made_of_different_scores_only() -> None:
    y = ["a", "b", "c", "d"]
    assert pair("p", y, [0.2, 0.9, 0.9, 0.1], "best-worst") == [(1, 3, 0.8)]
    assert pair("p", y, [3.0, 2.0, 2.0, 1.0], "ranked") == [(0, 1, 1.0), (2, 3, 1.0)]
    assert pair("p", y, [3.0, 2.0, 2.0, 1.0], "all") == [(0, 1, 1.0), (0, 2, 1.0), (0, 3, 2.0), (1, 3, 1.0), (2, 3, 1.0)]
    assert pair("p", y, [3.0, 2.0, 2.0, 1.0], "all", least=2.0) == [(0, 3, 2.0)]
    for how in ("best-worst", "all", "ranked"):
        assert pair("p", y, [1.0] * 4, how) == []
        assert pair("p", [], [], how) == []
        assert pair("p", ["same", "same"], [1.0, 0.0], how) == []


@given(st.lists(st.floats(-5, 5), max_size=8), st.sampled_from(["best-worst", "all", "ranked"]))
def test_every_pair_prefers_the_higher_score(scores, how) -> None:
    found = pair("p", [str(k) for k in range(len(scores))], scores, how)
    assert all(margin == scores[i] - scores[j] and margin > 0 for i, j, margin in found)
    if len(set(scores)) > 1:
        assert found


def test_pairing_refuses_what_is_no_score() -> None:
    with pytest.raises(Refusal, match=r"score 1 = nan .* not finite"):
        pair("p", ["a", "b"], [1.0, math.nan], "all")
    with pytest.raises(Refusal, match="1 scores for 2 responses"):
        pair("p", ["a", "b"], [1.0], "all")
    with pytest.raises(Refusal, match="did you mean 'best-worst'"):
        pair("p", ["a", "b"], [1.0, 0.0], "best_worst")  # pyright: ignore[reportArgumentType]
    with pytest.raises(Refusal, match="least = -1"):
        pair("p", ["a", "b"], [1.0, 0.0], "all", least=-1.0)


def test_pairs_become_a_true_and_a_false_response() -> None:
    made = convert([Row(7, "pairs", "p", ("w", "l"), annotator="ann", strength=0.8, margin=2.0)], "labelled")
    assert list(made) == [
        Row(7, "labelled", "p", ("w",), label=True, annotator="ann"),
        Row(7, "labelled", "p", ("l",), label=False, annotator="ann"),
    ]
    assert made.said.startswith("pairs read as labelled responses") and made.said.endswith("1 rows gave 2")


def test_lists_become_pairs_and_ties_are_counted() -> None:
    rows = [
        Row(1, "lists", "p", ("a", "b", "c"), scores=(1.0, 3.0, 3.0)),
        Row(2, "lists", "q", ("a", "b"), scores=(1.0, 1.0)),
    ]
    made = convert(rows, "pairs", how="all")
    assert list(made) == [
        Row(1, "pairs", "p", ("b", "a"), margin=2.0),
        Row(1, "pairs", "p", ("c", "a"), margin=2.0),
    ]
    assert made.said.endswith("2 rows gave 2; 2 ties or repeats left out")
    assert made.accounting.dropped == {"no two responses of different scores": 1}
    assert [r.responses for r in convert(rows, "pairs")] == [("b", "a")]
    assert [r.responses for r in convert(rows, "pairs", how="ranked")] == [("c", "a")]


def test_rows_of_the_wanted_kind_pass_and_other_conversions_are_refused() -> None:
    row = Row(4, "labelled", "p", ("w",), label=True)
    assert list(convert([row], "labelled")) == [row]
    with pytest.raises(Refusal, match="row 4: labelled cannot be made into pairs"):
        list(convert([row], "pairs"))
    with pytest.raises(Refusal, match="how = 'best'"):
        convert([row], "pairs", how="best")  # pyright: ignore[reportArgumentType]

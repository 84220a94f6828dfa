"""The deeper diagnosis of data: its parts against numbers worked out by hand, and planted faults found by the whole. How often
it finds them, over many seeds, is in recipes/planted_faults.py."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Sequence
from itertools import combinations
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from scipy import stats

from penchant import cli
from penchant.errors import Refusal
from penchant.evaluation.agreement import krippendorff_alpha
from penchant.evaluation.diagnosis import advice, alike, crossfit, diagnose, features, groups, noise, people, shortcuts
from penchant.evaluation.diagnosis.material import Comparison, gather
from penchant.evaluation.diagnosis.structure import circles, contradictions
from penchant.feedback import open_source
from penchant.objectives.reader import read
from penchant.report.diagnosis import render
from penchant.rewards import FunctionJudge
from penchant.rewards.compare import as_comparer
from penchant.running.difficulty import margins

Made = Callable[..., tuple[list[dict[str, Any]], set[int]]]


@pytest.fixture
def made(recipe: Callable[[str], ModuleType]) -> Made:
    """Preferences with planted faults."""
    return recipe("planted_faults").preferences


def pair(prompt: str, chosen: str, rejected: str, **more: object) -> dict[str, object]:
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected, **more}


def curved(count: int, rate: float, seed: int, slope: float = 3.0) -> np.ndarray:
    """Margins of a calibrated predictor, turned to the label, of which a share `rate` is wrong."""
    draw = np.random.default_rng(seed)
    margin = draw.standard_normal(count)
    right = draw.random(count) < 1 / (1 + np.exp(-slope * np.abs(margin)))
    wrong = draw.random(count) < rate
    return np.where(right ^ wrong, 1.0, -1.0) * np.abs(margin)


def test_the_likelihood_of_a_label_is_the_marginal_of_lcpo() -> None:
    margins = np.array([0.5, -0.5, 2.0, -2.0])
    curve = noise.Curve.over(margins)
    found = curve.likelihood(margins)
    k, r = 100, 80
    size = np.abs(margins) / np.sqrt(np.mean(margins**2))
    p = 1 / (1 + np.exp(-curve.slopes[k] * size ** curve.shapes[k]))
    agree = (1 - noise.RATES[r]) * p + noise.RATES[r] * (1 - p)
    assert found[k, r] == pytest.approx(np.log(np.where(margins > 0, agree, 1 - agree)).sum())


def test_a_label_is_doubted_as_lcpo_says() -> None:
    fitted = noise.fit(curved(400, 0.1, 0), range(400))
    g = fitted.log_odds(np.array([0.7, -1.2]))
    w = 0.9 / (0.9 + 0.1 * np.exp(-g))  # η p / (η p + (1 − η)(1 − p)), p = σ(g)
    assert fitted.doubts(np.array([0.7, -1.2]), 0.1) == pytest.approx(1 - w)


@pytest.mark.parametrize("rate", [0.1, 0.4])
def test_the_interval_of_planted_rates_covers_them(rate: float) -> None:
    fits = [noise.fit(curved(1500, rate, seed), range(1500)).noise for seed in range(15)]
    covered = sum(one.rate.low <= rate <= one.rate.high for one in fits)
    assert covered >= 12 and sum(rate <= one.at_most for one in fits) >= 13  # P(< 12 of 15 at 95 %) = 0.5 %
    assert np.mean([one.rate.value for one in fits]) == pytest.approx(rate, abs=0.06)


def test_without_wrong_labels_none_are_found_and_an_upper_bound_is_small() -> None:
    fits = [noise.fit(curved(1500, 0.0, seed), range(1500)).noise for seed in range(20)]
    assert sum(one.found for one in fits) <= 1
    assert np.mean([one.at_most for one in fits]) < 0.06


def test_a_predictor_that_guesses_knows_no_rate() -> None:
    margins = np.random.default_rng(0).standard_normal(1000)
    found = noise.fit(margins, range(1000)).noise
    assert not found.learnable and not found.found and found.to_json()["rate"] is None
    assert found.rate.low == 0 and found.at_most > 0.4


def test_the_bound_is_clopper_and_pearsons_shared_among_the_parts() -> None:
    margins = np.concatenate([np.full(20, 5.0), [-4.0] * 3, np.linspace(0.1, 1, 177) * np.tile([1, -1, 1], 59)])
    limits = []
    for part in noise.PARTS:
        n = round(part * 200)
        k = int((margins[np.argsort(-np.abs(margins), kind="stable")][:n] < 0).sum())
        limits.append(stats.beta.ppf(1 - 0.05 / 6, k + 1, n - k))
    assert noise.upper(margins, 1.0) == pytest.approx(min(limits))


def test_rows_of_one_prompt_widen_the_interval() -> None:
    margins = np.repeat(curved(300, 0.2, 1), 4)
    apart, together = noise.fit(margins, range(1200)).noise, noise.fit(margins, np.repeat(np.arange(300), 4).tolist()).noise
    assert together.rate.high - together.rate.low > 1.3 * (apart.rate.high - apart.rate.low)
    assert together.at_most > apart.at_most


def test_folds_keep_a_prompt_together_and_margins_see_no_label_of_their_own_prompt() -> None:
    groups = np.repeat(np.arange(40), 3).tolist()
    fold = crossfit.folds(groups, 0)
    assert all(len(set(fold[i : i + 3])) == 1 for i in range(0, 120, 3)) and len(set(fold.tolist())) == 5
    chance = np.random.default_rng(0).standard_normal((120, 30))
    found = crossfit.margins(crossfit.design(chance), groups, 0)
    assert 0.3 < (found > 0).mean() < 0.7  # thirty features of pure chance fit 120 labels, but foretell none


def test_margins_turn_with_the_labels_and_not_with_the_side_they_are_shown_from() -> None:
    x = np.random.default_rng(1).standard_normal((300, 4))
    x[:, 0] = np.abs(x[:, 0])
    found, turned = (crossfit.margins(crossfit.design(s * x), range(300), 0) for s in (1, -1))
    assert turned == pytest.approx(found, abs=1e-3)
    assert (found > 0).mean() > 0.9


def slow_edits(a: list[str], b: list[str]) -> int:
    table = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        last, table[0] = table[0], i
        for j, y in enumerate(b, 1):
            last, table[j] = table[j], min(table[j] + 1, table[j - 1] + 1, last + (x != y))
    return table[-1]


def test_edits_are_levenshteins_on_words() -> None:
    draw = random.Random(0)
    for _ in range(200):
        a, b = (draw.choices("abcd", k=draw.randint(1, 12)) for _ in range(2))
        assert alike.edits(" ".join(a), " ".join(b)) == slow_edits(a, b) / max(len(a), len(b))
    assert alike.edits("", "") == 0 and alike.edits("a", "!") == 1


def test_leaked_prompts_are_found_whatever_their_dress_and_others_are_not() -> None:
    draw = random.Random(0)
    words = [f"word{i}" for i in range(500)]
    train = [" ".join(draw.choices(words, k=30)) for _ in range(300)]
    test = [" ".join(draw.choices(words, k=30)) for _ in range(100)]
    test[3], test[50] = train[7], f"  {train[8].upper()}!"
    near = train[9].split()
    near[-1] = "other"
    test[77] = " ".join(near)
    found = alike.alike(list(enumerate(test)), list(enumerate(train)))
    assert [(one.row, one.other) for one in found] == [(3, 7), (50, 8), (77, 9)]
    assert [one.similarity == 1 for one in found] == [True, True, False]
    assert [(one.row, one.other) for one in alike.alike(list(enumerate([*train, test[77]])))] == [(300, 9)]


def test_contradictions_and_circles_are_counted_by_question() -> None:
    rows = [
        pair("p", "a", "b", annotator="x"),
        pair("p", "b", "a", annotator="y"),
        pair("p", "a", "b", annotator="z"),
        pair("p", "a", "c", annotator="x"),
        *(pair("q", w, l) for w, l in ("ab", "bc", "ca", "cd")),
        *(pair("r", w, l) for w, l in ("ab", "bc", "ac")),
    ]
    material = gather(open_source(rows), 0)
    twice, round_ = contradictions(material), circles(material)
    assert (twice.asked_again, twice.both_ways, twice.by_one_person, twice.rows) == (1, 1, 0, (1, 2, 3))
    assert (round_.could, round_.prompts, round_.rows) == (2, 1, (5, 6, 7))


def test_people_who_answer_the_same_vouch_for_each_other() -> None:
    draw = np.random.default_rng(0)
    truth = draw.choice([-1.0, 1.0], 600)
    right = np.array([0.95, 0.8, 0.6, 0.1])
    table = truth[:, None] * np.where(draw.random((600, 4)) < right, 1, -1)
    found = people.dawid_skene(people.Votes(["a", "b", "c", "d"], table, [], []), 0)
    assert [one.name for one in found] == ["d", "c", "b", "a"]
    assert all(one.reliability.low <= p <= one.reliability.high for one, p in zip(found, sorted(right), strict=True))
    assert [one.contrary for one in found] == [True, False, False, False]


def test_agreement_of_people_is_krippendorffs_alpha_with_every_question_both_ways_round() -> None:
    draw = np.random.default_rng(3)
    table = draw.choice([-1.0, 0.0, 1.0, 1.0], (40, 4))
    table[:, 0] = 1  # so that every question has an answer
    found = people.agreement(people.Votes(list("abcd"), table, [], list(range(40))))
    both = np.vstack([table, -table]).T
    alpha = krippendorff_alpha([[None if x == 0 else x for x in row] for row in both.tolist()])
    assert found is not None and found.alpha.value == pytest.approx(alpha.value)
    products = [x * y for row in table for x, y in combinations(row, 2) if x and y]
    assert found.pairs == len(products) and found.agree.value == pytest.approx(products.count(1) / len(products))
    assert people.agreement(people.Votes(["a"], np.ones((3, 1)), [], [1, 2, 3])) is None


def opinions(seed: int, sizes: tuple[int, int], alone: int = 0, questions: int = 120) -> people.Votes:
    """People right in 70 to 98 % of questions, those of the second group about the contrary; `alone` answer at random."""
    draw = np.random.default_rng(seed)
    truth = draw.choice([-1.0, 1.0], questions)
    right = draw.uniform(0.7, 0.98, sum(sizes))
    told = truth[:, None] * np.where(draw.random((questions, sum(sizes))) < right, 1, -1)
    told[:, sizes[0] :] *= -1
    table = np.column_stack([told, *(draw.choice([-1.0, 1.0], questions) for _ in range(alone))])
    return people.Votes([f"p{k}" for k in range(table.shape[1])], table, [], list(range(questions)))


def test_two_groups_of_opposite_taste_are_found_with_all_their_members() -> None:
    precision, recall = [], []
    for seed in range(20):
        found = groups.groups(opinions(seed, (6, 4)), seed)
        assert found is not None and found.found and found.between.value < 0.5 < min(one.value for one in found.within)
        second = {f"p{k}" for k in range(6, 10)}
        named = max((set(side) for side in found.sides), key=lambda side: len(side & second))
        precision.append(len(named & second) / len(named))
        recall.append(len(named & second) / 4)
    assert np.mean(precision) > 0.95 and np.mean(recall) > 0.95


@pytest.mark.parametrize(("sizes", "alone"), [((8, 0), 0), ((6, 0), 3), ((7, 1), 1)])
def test_people_alike_or_careless_or_one_contrarian_are_no_groups(sizes: tuple[int, int], alone: int) -> None:
    told = [groups.groups(opinions(seed, sizes, alone), seed) for seed in range(60)]
    assert all(one is not None for one in told)
    assert sum(one.found for one in told if one is not None) <= 3  # P(> 3 of 60 at 1 %) = 0.3 %


def test_the_agreement_of_groups_is_that_of_pairs_of_answers_and_few_people_are_no_groups() -> None:
    table = np.array([[1, 1, -1, -1], [1, -1, -1, 0], [1, 1, 1, 1]], dtype=float)
    top, bottom = groups._pairs(table, np.array([True, True, False, False]))
    assert top.tolist() == [[1, 1, -4], [-1, 0, 0], [1, 1, 4]]
    assert bottom.tolist() == [[1, 1, 4], [1, 0, 2], [1, 1, 4]]
    assert groups.groups(opinions(0, (2, 1)), 0) is None and groups.groups(opinions(0, (3, 3), questions=40), 0) is None


def test_groups_are_told_in_place_of_contrarians(recipe: Callable[[str], ModuleType]) -> None:
    module = recipe("planted_faults")
    assert module.sided((3, 3), 0) == {"groups named": 1, "precision": 1, "recall": 1}
    assert module.sided((6, 0), 0)["groups named"] == 0


def test_who_prefers_the_first_place_is_named_and_what_is_not_recorded_is_said() -> None:
    draw = random.Random(1)
    rows = []
    for i in range(300):
        better, name = draw.random() < 0.5, "ab"[i % 2]
        first = better if name == "a" else draw.random() < 0.8  # b prefers what stands first, whatever it is
        chosen, rejected = ("x y", "z") if better else ("z", "x y")
        rows.append(pair(f"p {i}", chosen, rejected, annotator=name, shown_first="chosen" if first else "rejected"))
    found = diagnose(open_source(rows)).position
    assert found is not None and found.of == "shown" and found.all.first.n == 300
    assert {one.name for one in found.people if one.surely} == {"b"} and found.people[0].first.low > 0.7
    mine = [row["shown_first"] == "chosen" for row in rows if row["annotator"] == "b"]
    assert found.people[0].first.value == pytest.approx(sum(mine) / 150)
    turned = [{**row, "strength": 0.1} for row in rows]  # then the rejected is the better one
    again = diagnose(open_source(turned)).position
    assert again is not None and again.all.first.value == pytest.approx(1 - found.all.first.value)
    unknown = diagnose(open_source([pair("p", "a", "b", shown_first=7)]))
    assert unknown.position is None
    assert [one.word for one in unknown.points if one.about == "position"] == ["unknown"]


def test_a_contrary_annotator_is_found_without_any_overlap(made: Made) -> None:
    rows, turned = made(1200, 0, flip={"ann": 0.05, "bob": 0.05, "cy": 0.95, "dee": 0.05})
    found = diagnose(open_source(rows))
    assert [one.name for one in found.people if one.contrary] == ["cy"]
    suspects = {one.row for one in found.suspects}
    assert len(suspects & turned) / len(suspects) > 0.8 and len(suspects & turned) / len(turned) > 0.8
    assert any("Consensus" in one.objective for one in found.advice)


def test_turned_labels_are_counted_and_named_and_the_rate_goes_into_the_advice(made: Made) -> None:
    rows, turned = made(2500, 3, flip=0.2, surely=8.0)
    found = diagnose(open_source(rows))
    assert found.noise is not None and found.noise.found
    assert found.noise.rate.low <= len(turned) / 2500 <= found.noise.rate.high
    sure = {one.row for one in found.suspects[:100]}
    assert len(sure & turned) >= 80
    assert any(f"flip={round(found.noise.rate.value, 2):g}" in one.objective for one in found.advice)
    assert diagnose(open_source(rows)).to_json() == found.to_json()  # the seed decides


def test_clean_labels_raise_no_alarm(made: Made) -> None:
    rows, _ = made(1500, 5, surely=8.0)
    found = diagnose(open_source(rows))
    assert [point.about for point in found.points if point.word in ("wrong", "look")] == []
    assert found.noise is not None and found.noise.at_most < 0.1 and len(found.suspects) < 15
    assert [one.objective for one in found.advice] == ["DPO(beta=0.1)"]


def test_a_length_shortcut_is_named(made: Made) -> None:
    rows, _ = made(600, 1, surely=0.5, length=0.4)
    found = diagnose(open_source(rows))
    assert "longer" in [one.name for one in found.shortcuts if one.strong]
    assert {"LNDPO(beta=1.1)", "SimPO(beta=2.5)"} <= {one.objective for one in found.advice}


def test_different_tastes_are_told_from_equal_ones() -> None:
    draw = random.Random(0)
    rows = []
    for i in range(400):
        texts = sorted((" ".join("ab" for _ in range(draw.randint(1, 9))), "one two three four five"), key=len)
        likes_long = draw.random() < (0.9 if i % 2 else 0.1)
        rows.append(pair(f"p {i}", texts[likes_long], texts[not likes_long], annotator="ab"[i % 2]))
    apart = diagnose(open_source(rows)).tastes
    assert apart is not None and apart.p < 0.01 and {frozenset(g) for g in apart.groups} == {frozenset("a"), frozenset("b")}
    for row in rows:
        row["annotator"] = draw.choice("ab")
    same = diagnose(open_source(rows)).tastes
    assert same is not None and same.p > 0.01


def test_lists_labels_and_prompts_are_looked_at_as_far_as_they_compare() -> None:
    lists = [{"prompt": f"p{i}", "responses": ["x y", "y z", "z"], "scores": [2.0, 1.0, 1.0]} for i in range(9)]
    assert [(one.chosen, one.rejected, one.places) for one in gather(open_source(lists[:1]), 0).comparisons] == [
        ("x y", "y z", (0, 1)),
        ("x y", "z", (0, 2)),
    ]
    first = next(one for one in diagnose(open_source(lists)).shortcuts if one.name == "stands first")
    assert first.accuracy.value == 1
    labelled = [{"prompt": "p", "completion": c, "label": c == "good one"} for c in ("good one", "bad one", "worse")]
    assert [(one.chosen, one.rejected) for one in gather(open_source(labelled), 0).comparisons] == [
        ("good one", "bad one"),
        ("good one", "worse"),
    ]
    nothing = diagnose(open_source([{"prompt": "p"}, {"prompt": "q"}]))
    assert nothing.comparisons == 0 and nothing.noise is None and "nothing" in nothing.points[0].said.lower()


def test_a_large_source_is_drawn_by_whole_prompts() -> None:
    rows = [pair(f"p{i // 4}", f"a{i}", f"b{i}") for i in range(400)]
    some = gather(open_source(rows), 0, most=100)
    assert some.rows == 100 and some.of == 400 and len(set(some.groups)) == 25
    assert some.groups != gather(open_source(rows), 1, most=100).groups


def test_strengths_below_a_half_turn_a_pair_and_ties_are_left_out() -> None:
    rows = [pair("p", "a", "b", strength=0.2), pair("p", "c", "d", strength=0.5), pair("p", "e", "f", strength=0.9)]
    material = gather(open_source(rows), 0)
    assert [(one.chosen, one.rejected) for one in material.comparisons] == [("b", "a"), ("e", "f")] and material.unsure == 2


def test_every_expression_it_can_advise_is_read() -> None:
    margins = curved(4000, 0.2, 0)
    sure, unsure = noise.fit(margins, range(4000)).noise, noise.fit(curved(700, 0.25, 3, 1.2), range(700)).noise
    reliable = tuple(
        people.Annotator(n, 99, noise.Estimate(v, v - 0.05, v + 0.04, 99)) for n, v in (("a", 0.5), ("b", 0.9))
    )
    length = shortcuts.Shortcut("longer", noise.Estimate(0.9, 0.8, 0.95, 99), 1.0, 0.001)
    written = set()
    for kind in ("pairs", "lists", "labelled"):
        for found in (None, sure, unsure):
            for who in ((), reliable):
                for close in (0.0, 0.9):
                    grounds = advice.Grounds(kind, 3, found, who, (length,), close, 2, None, None, 2)
                    written |= {one.objective for one in advice.advise(grounds) if one.objective}
    assert {name.partition("(")[0] for name in written} >= {
        "RDPO",
        "CDPO",
        "Consensus",
        "DPOP",
        "NCA",
        "KTO",
        "OSP",
        "LNDPO",
    }
    for expression in written:
        read(expression)


def test_the_page_shows_doubtful_texts_escaped_and_json_shows_none(made: Made, tmp_path: Path) -> None:
    rows, _ = made(900, 2, flip={"ann": 0.02, "<b>bob</b>": 0.9, "cy": 0.02}, surely=8.0)
    for row in rows:
        row["prompt"] += " <script>alert(1)</script>"
    found = diagnose(open_source(rows))
    page = render(found)
    assert "&lt;script&gt;alert(1)" in page and "<script" not in page and "<b>bob" not in page and "&lt;b&gt;bob" in page
    assert found.suspects and "script" not in json.dumps(found.to_json()) and "script" not in "\n".join(found.lines())


def test_check_deep_says_it_all(made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows, _ = made(900, 2, flip={"ann": 0.02, "bob": 0.9, "cy": 0.02}, surely=8.0)
    train, test = tmp_path / "train.jsonl", tmp_path / "test.jsonl"
    train.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    test.write_text("\n".join(map(json.dumps, [rows[4], pair("an unseen question", "a", "b")])), encoding="utf-8")
    words = ["check", str(train), "--deep", "--unseen", str(test), "--report", str(tmp_path / "page.html"), "--show", "2"]
    assert cli.main(words) == 0
    out = capsys.readouterr().out
    assert "1 of 2 held-out prompts stand among the training prompts" in out and "--objective" in out
    assert out.count("wrong with probability") == 2
    assert (tmp_path / "page.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    assert cli.main([*words[:3], "--json"]) == 0
    deep = json.loads(capsys.readouterr().out)["deep"]
    assert deep["kind"] == "pairs" and deep["comparisons"] == 900
    assert cli.main(["check", str(train), "--show", "3"]) == 2
    assert "--deep" in capsys.readouterr().err


def test_difficulty_by_a_model_is_its_log_ratio(tiny_folder: Path) -> None:
    from penchant.domains.text.models import load
    from penchant.running.difficulty import log_ratios

    loaded = load(str(tiny_folder), max_length=256)
    rows = [pair(f"what is it, cat {i}?", f"the good cat {i}", f"bad mat {i} please") for i in range(5)]
    some = gather(open_source(rows), 0).comparisons
    other = gather(open_source([{**r, "chosen": r["rejected"], "rejected": r["chosen"]} for r in rows]), 0).comparisons
    c, turned = ([x for x in log_ratios(loaded)(one) if x is not None] for one in (some, other))
    assert len(c) == 5 and all(map(math.isfinite, c)) and turned == pytest.approx([-x for x in c], abs=1e-3)
    found = diagnose(open_source(rows), difficulty=log_ratios(loaded))
    assert found.difficulty_of == "reference" and sorted(found.difficulty) == pytest.approx(sorted(c), abs=1e-3)
    with pytest.raises(Refusal, match="log-ratio"):
        diagnose(open_source(rows), difficulty=lambda some: [math.nan] * len(some))


def test_what_a_reference_prefers_is_counted_with_what_it_could_not_read() -> None:
    rows = [pair(f"p{i}", "long" if i < 3 else "l", "s" if i < 3 else "long") for i in range(5)]
    said = [1.0, 1.0, -1.0, 1.0, None]  # above 0 it prefers the rejected
    found = diagnose(open_source(rows), difficulty=lambda some: said)
    assert found.difficulty == (1.0, 1.0, -1.0, 1.0) and found.reference is not None and found.reference.unread == 1
    assert found.reference.rejected.value == 3 / 4 and found.reference.rejected.n == 4
    assert found.reference.shorter is not None and found.reference.shorter.value == 2 / 4
    nothing = diagnose(open_source(rows), difficulty=lambda some: [None] * len(some))
    assert nothing.reference is None and nothing.difficulty_of == ""


def test_a_judge_that_has_not_seen_the_labels_raises_turned_ones_to_the_top(made: Made) -> None:
    rows, turned = made(500, 7, flip=0.15)
    draw = random.Random(7)
    worth = {f"w{i}": draw.gauss(0, 1) / 4 for i in range(80)}  # what the rows were made from

    def judge(some: Sequence[Comparison]) -> list[float | None]:
        value = lambda text: sum(worth[word] for word in text.split())  # noqa: E731
        return [None if one.number == 9 else 30 * (value(one.chosen) - value(one.rejected)) for one in some]

    alone, helped = (diagnose(open_source(rows), judge=who) for who in (None, ("truth", judge)))
    named = [{one.row for one in found.suspects} for found in (alone, helped)]
    assert len(named[1] & turned) > 0.5 * len(turned) > 3 * len(named[0] & turned)
    assert len(named[1] & turned) > 0.7 * len(named[1])
    assert helped.opinion is not None and helped.opinion.failed == 1 and helped.opinion.accuracy.n == 499
    assert any(one.about == "judge" and one.said.startswith("truth agrees with") for one in helped.points)
    with pytest.raises(Refusal, match="could judge none"):
        diagnose(open_source(rows), judge=("mute", lambda some: [None] * len(some)))


def test_margins_of_judges_and_comparers_are_differences_and_log_odds() -> None:
    some = gather(open_source([pair("p", "aaa", "a"), pair("q", "bb", "x")]), 0).comparisons
    score = FunctionJudge(lambda prompt, y: float("nan") if y == "x" else len(y), "length")
    assert margins(score)(some) == [2.0, None]
    assert margins(as_comparer(score))(some) == [pytest.approx(2.0), None]


def test_measures_count_what_they_are_called() -> None:
    said = "Sorry, I cannot help.\n\n- one\n- two **bold**\n1. three?"
    found = dict(zip(features.MEASURES, features.measures([said], ["help me"])[0], strict=True))
    assert found["longer"] == len(said) and found["more lists"] == 3 and found["more markdown"] == 2
    assert found["refuses"] == 1 and found["more polite"] == 1 and found["more questions"] == 1
    assert found["more of the prompt's words"] == 0.5 and found["speaks of itself"] == 1


def test_the_recipe_of_planted_faults_starts(recipe: Callable[[str], ModuleType]) -> None:
    module = recipe("planted_faults")
    found = module.synthetic(0.1, 0, 300)
    assert found["bounded"] == 1 and 0 <= found["precision"] <= 1
    rows, wrong = module.preferences(200, 0)
    assert not wrong
    again, wrong = module.turned(rows, 0.5, 0)
    assert all((row != other) == (k in wrong) for k, (row, other) in enumerate(zip(rows, again, strict=True), 1))
    assert module.others(0, 120)["leak recall"] >= 0.9

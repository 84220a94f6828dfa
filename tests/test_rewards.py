"""Judges and comparers: what they say of texts, and what they say when they cannot."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from torch import Tensor

from penchant.errors import Refusal
from penchant.feedback.records import Prompt
from penchant.rewards import vader
from penchant.rewards.base import Comparer, Context, Judge, Judgement
from penchant.rewards.combine import Weighable
from penchant.rewards.compare import as_comparer, as_judge
from penchant.rewards.function import BatchedFunctionJudge, FunctionJudge
from penchant.rewards.naming import load_judge
from penchant.rewards.rules import LengthRepetition
from penchant.rewards.vader import Vader


def asked(n: int) -> list[Context]:
    return [Context(f"prompt {i}") for i in range(n)]


def length(prompt: Prompt, response: str) -> float:
    return float(len(response))


def test_vader_gives_the_scores_printed_in_its_own_documentation() -> None:
    texts = ["VADER is smart, handsome, and funny.", "VADER is not smart, handsome, nor funny.", "At the table.", "", "😀"]
    said = Vader()(asked(5), texts)
    # The first two compounds stand in the package's README; a text without a rated word is 0.
    expected = torch.tensor([0.8316, -0.7424, 0.0, 0.0, 0.3612])
    assert torch.allclose(said.total, expected, atol=1e-6)
    assert said.valid.all() and said.names == ("vader",)


def test_vader_says_the_same_to_many_threads_at_once() -> None:
    texts = [
        f"{'very ' * (i % 3)}{word} day, {'not' * (i % 2)} {word}" for i in range(40) for word in ("good", "bad", "odd")
    ]
    alone = Vader()(asked(120), texts).total
    with ThreadPoolExecutor(8) as threads:
        together = list(threads.map(lambda text: Vader()(asked(1), [text]).total, texts))
    assert torch.equal(torch.cat(together), alone) and len(set(alone.tolist())) > 4


def test_without_its_package_vader_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    vader.analyser.cache_clear()
    monkeypatch.setitem(sys.modules, "vaderSentiment.vaderSentiment", None)
    with pytest.raises(Refusal, match=r"pip install 'penchant\[demo\]'"):
        Vader()
    vader.analyser.cache_clear()


def test_a_judge_of_nothing_gives_nothing() -> None:
    for judge in (Vader(), LengthRepetition(), FunctionJudge(length), 2 * Vader() + LengthRepetition()):
        assert judge([], []).total.shape == (0,)


def test_length_costs_nothing_within_the_slack_and_one_target_beyond_it_costs_all() -> None:
    judge = LengthRepetition(target=10, slack=0.5, length=2.0)
    texts = [" ".join(str(i) for i in range(n)) for n in (10, 5, 15, 4, 18, 0, 40)]
    said = judge(asked(7), texts)
    assert torch.allclose(said.reward[:, 0], torch.tensor([0.0, 0.0, 0.0, -0.2, -0.6, -1.0, -2.0]))
    assert said.names == ("length", "repetition") and bool((said.reward[:, 1] == 0).all())


def test_repetition_is_the_share_of_trigrams_that_were_there_before() -> None:
    # so-it-goes, it-goes-so, goes-so-it, and so-it-goes again: one of four
    said = LengthRepetition(target=6, repetition=0.5)(asked(3), ["so it goes So it goes", "so it goes on and on", "so it"])
    assert said.reward[:, 1].tolist() == [-0.125, 0.0, 0.0]


def test_a_rule_with_an_impossible_target_is_refused() -> None:
    with pytest.raises(Refusal, match="target"):
        LengthRepetition(target=0)


def test_judges_add_up_and_keep_their_dimensions() -> None:
    texts = ["I love this wonderful day", "so it goes so it goes"]
    both = 0.7 * Vader() + 0.3 * LengthRepetition(target=5)
    said = both(asked(2), texts)
    assert said.names == ("vader", "rules(target=5)/length", "rules(target=5)/repetition")
    expected = 0.7 * Vader()(asked(2), texts).total + 0.3 * LengthRepetition(target=5)(asked(2), texts).total
    assert torch.allclose(said.total, expected)
    assert both.name == "0.7 * vader + 0.3 * rules(target=5)" and isinstance(both, Judge)
    assert repr(2 * both).startswith("1.4 * Vader() + 0.6 * LengthRepetition(target=5.0")


def test_a_sum_of_judges_fails_where_one_part_fails() -> None:
    def picky(prompt: Prompt, response: str) -> float:
        return math.nan if response == "b" else 1.0

    said = (Vader() + 2 * FunctionJudge(picky))(asked(3), ["a", "b", "c"])
    assert said.valid.tolist() == [True, False, True]
    assert said.total.isnan().tolist() == [False, True, False]


def test_rewards_per_step_are_not_lost_in_a_sum() -> None:
    class Steps(Weighable):
        name = "steps"

        def __call__(self, contexts: Sequence[Context], responses: Sequence[str]) -> Judgement:
            n = len(responses)
            return Judgement(torch.zeros(n, 1), torch.ones(n, dtype=torch.bool), steps=torch.zeros(n, 2))

    with pytest.raises(Refusal, match="'steps' gives rewards per step"):
        (Steps() + Vader())(asked(1), ["a"])


def test_a_judge_twice_in_a_sum_and_a_weight_that_is_no_number_are_refused() -> None:
    with pytest.raises(Refusal, match="stands twice"):
        _ = Vader() + 0.5 * Vader()
    with pytest.raises(Refusal, match="finite"):
        _ = math.inf * Vader()
    with pytest.raises(TypeError):
        _ = "much" * Vader()  # pyright: ignore[reportOperatorIssue]


def test_a_function_that_fails_is_counted_and_never_scores_zero() -> None:
    def moody(prompt: Prompt, response: str) -> float:
        return {"good": 1.5, "zero": 0.0, "nan": math.nan, "huge": 1e300, "none": None}[response]  # type: ignore[return-value]

    judge = FunctionJudge(moody)
    said = judge(asked(6), ["good", "zero", "nan", "huge", "none", "absent"])
    assert said.valid.tolist() == [True, True, False, False, False, False]
    assert said.total[:2].tolist() == [1.5, 0.0] and bool(said.total[2:].isnan().all())
    assert judge.failures.count == 4
    assert judge.failures.first == "moody returned nan, which is not a finite number."


def test_a_function_sees_the_prompt_as_it_was_given() -> None:
    turns = ({"role": "user", "content": "Hello"},)
    seen: list[Prompt] = []

    def fn(prompt: Prompt, response: str) -> float:
        seen.append(prompt)
        return 1.0

    FunctionJudge(fn)([Context("text"), Context(turns)], ["a", "b"])  # pyright: ignore[reportArgumentType]
    assert seen == ["text", turns]


def test_a_batched_function_is_called_once_and_fails_as_a_whole() -> None:
    calls: list[int] = []

    def lengths(prompts: Sequence[Prompt], responses: Sequence[str]) -> list[float]:
        calls.append(len(responses))
        if "boom" in responses:
            raise ConnectionError("the judge's server is away")
        return [float(len(text)) for text in responses]

    judge = BatchedFunctionJudge(lengths)
    assert judge(asked(3), ["a", "bb", "ccc"]).total.tolist() == [1.0, 2.0, 3.0]
    assert calls == [3]
    assert not judge(asked(2), ["boom", "a"]).valid.any()
    assert str(judge.failures).startswith("2 judgements failed; the first: lengths raised ConnectionError")
    with pytest.raises(Refusal, match="gave 1 scores for 2 responses"):
        BatchedFunctionJudge(lambda prompts, responses: [0.0], "short")(asked(2), ["a", "b"])


def test_judges_are_found_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_judges.py").write_text(
        "from penchant.rewards.rules import LengthRepetition\n"
        "def brevity(prompt, response):\n    return -len(response)\n"
        "strict = LengthRepetition(target=5)\nlimit = 3\n"
    )
    (tmp_path / "my_broken.py").write_text("import nowhere_to_be_found\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    assert repr(load_judge("vader")) == "Vader()"
    assert load_judge("rules").name == "rules" == LengthRepetition(target=40).name
    brevity = load_judge("my_judges:brevity")
    assert brevity.name == "my_judges:brevity" and brevity(asked(1), ["four"]).total.item() == -4
    assert load_judge("my_judges:strict") == LengthRepetition(target=5)
    for spec, said in {
        "vadr": "did you mean 'vader'",
        "nowhere_at_all:fn": "there is no module 'nowhere_at_all'",
        "my_broken:fn": "my_broken imports 'nowhere_to_be_found', which is not installed",
        "my_judges:brevty": "did you mean 'brevity'",
        "my_judges:limit": "neither a judge nor a function",
        "my_judges:LengthRepetition": "is a class",
    }.items():
        with pytest.raises(Refusal, match=said):
            load_judge(spec)


def test_a_judge_compares_by_bradley_terry() -> None:
    compare = as_comparer(FunctionJudge(length), temperature=2)
    assert isinstance(compare, Comparer) and compare.name == "length"
    p = compare(asked(3), ["abc", "a", "ab"], ["a", "abc", "ab"])
    # σ((3 − 1) / 2) = 1 / (1 + e^-1)
    assert torch.allclose(p, torch.tensor([0.7310586, 0.2689414, 0.5]))
    assert bool((p + compare(asked(3), ["a", "abc", "ab"], ["abc", "a", "ab"]) == 1).all())
    with pytest.raises(Refusal, match="temperature"):
        as_comparer(FunctionJudge(length), temperature=0)


class Biased:
    """Prefers the longer with 0.8, and whatever stands first by 0.1 more."""

    name = "biased"
    symmetric = False

    def __call__(self, contexts: Sequence[Context], a: Sequence[str], b: Sequence[str]) -> Tensor:
        return torch.tensor([(0.8 if len(x) > len(y) else 0.2) + 0.1 for x, y in zip(a, b, strict=True)])


def test_a_comparer_scores_by_its_wins_and_its_liking_for_the_first_place_cancels() -> None:
    contexts = [Context("p"), Context("q"), Context("p"), Context("q"), Context("p")]
    said = as_judge(Biased())(contexts, ["a", "xx", "bbb", "x", "cc"])
    # Of p's three the longest wins twice by 0.8, the middle once, the shortest never; q's two are compared apart.
    assert torch.allclose(said.total, torch.tensor([0.2, 0.8, 0.8, 0.2, 0.5]))
    # A comparer that cannot say leaves NaN, and whoever was compared with its help is not judged.
    unsure = as_judge(as_comparer(FunctionJudge(lambda prompt, response: math.nan if response == "a" else 1.0, "fn")))
    said = unsure([Context("p"), Context("p"), Context("q"), Context("q")], ["a", "b", "c", "d"])
    assert said.valid.tolist() == [False, False, True, True] and said.total[2:].tolist() == [0.5, 0.5]
    with pytest.raises(Refusal, match="response 2 is the only one"):
        as_judge(Biased())([Context("p"), Context("q"), Context("p")], ["a", "b", "c"])


def test_a_judgement_with_a_name_too_few_is_an_error() -> None:
    with pytest.raises(ValueError, match="2 reward dimensions but 1 names"):
        Judgement(torch.zeros(3, 2), torch.ones(3, dtype=torch.bool))

"""Comparers: asked both ways round, asked of a language model through its log-probs, and as the judge of on-policy rounds."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from penchant.domains.text.models import load
from penchant.errors import Refusal
from penchant.feedback.reading import open_source
from penchant.feedback.records import Prompt
from penchant.objectives.osp import OSP
from penchant.rewards.asking import Asking
from penchant.rewards.base import Comparer, Context, Judge
from penchant.rewards.compare import WinAgainst, as_comparer, both_ways
from penchant.rewards.function import FunctionJudge
from penchant.rewards.naming import load_judge
from penchant.rollouts.round import Round, rollout
from penchant.run import Run, align
from penchant.running.judging import answer_score
from test_rollouts import POLICY, PROMPTS, Words, goodness


class First:
    """Likes whatever stands first, and knows nothing else."""

    name = "first"
    symmetric = False

    def __call__(self, contexts: Sequence[Context], a: Sequence[str], b: Sequence[str]) -> Tensor:
        return torch.full((len(a),), 0.9)


class Good:
    """Prefers more of the word good, with 0.1 for the first place; keeps how often it was asked."""

    name = "good"
    symmetric = False

    def __init__(self) -> None:
        self.calls: list[int] = []
        self.sure = torch.nn.Parameter(torch.tensor(1.0))

    def __call__(self, contexts: Sequence[Context], a: Sequence[str], b: Sequence[str]) -> Tensor:
        self.calls.append(len(a))
        more = torch.tensor([goodness("", x) - goodness("", y) for x, y in zip(a, b, strict=True)])
        return 0.8 * torch.sigmoid(self.sure * more) + 0.15


# Both ways round -----------------------------------------------------------------------------------


def test_a_pure_liking_for_the_first_place_is_a_tie() -> None:
    said = both_ways(First(), [Context("p")] * 2, ["a", "b"], ["b", "a"])
    assert torch.allclose(said, torch.tensor([0.5, 0.5], dtype=torch.float64))


def test_asked_the_other_way_round_the_answer_is_one_less_it_and_carries_no_gradient() -> None:
    one = both_ways(Good(), [Context("p")], ["good day"], ["bad day"])
    other = both_ways(Good(), [Context("p")], ["bad day"], ["good day"])
    assert float(one) > 0.5 and torch.allclose(one + other, torch.ones(1, dtype=torch.float64))
    assert not one.requires_grad


def test_a_symmetric_comparer_is_asked_once_and_what_is_no_probability_is_refused() -> None:
    asked: list[str] = []
    counting = FunctionJudge(lambda prompt, response: float(asked.append(response) or len(response)), "length")
    both_ways(as_comparer(counting), [Context("p")], ["aa"], ["b"])
    assert asked == ["aa", "b"]
    good = Good()
    good.sure.data.fill_(math.nan)
    assert both_ways(good, [Context("p")], ["a"], ["b"]).isnan().all()  # a failed judgement is no refusal

    class Wild(First):
        def __call__(self, contexts: Sequence[Context], a: Sequence[str], b: Sequence[str]) -> Tensor:
            return torch.full((len(a),), 1.2)

    class Short(First):
        def __call__(self, contexts: Sequence[Context], a: Sequence[str], b: Sequence[str]) -> Tensor:
            return torch.zeros(1)

    with pytest.raises(Refusal, match=r"'first' said 1\.2; it must give probabilities"):
        both_ways(Wild(), [Context("p")], ["a"], ["b"])
    with pytest.raises(Refusal, match="said 1 things of 2"):
        both_ways(Short(), [Context("p")], ["a"], ["b"])


def test_single_answers_are_judged_by_how_probably_they_beat_a_given_one() -> None:
    judge = WinAgainst(Good(), {WinAgainst.key(Context("p")): "a day", WinAgainst.key(Context("q")): "good good"})
    said = judge([Context("p"), Context("p"), Context("q")], ["good", "a night", "bad"])
    assert said.total.tolist()[1] == pytest.approx(0.5)
    assert said.total[0] > 0.5 > said.total[2] and bool(said.valid.all())


# A language model is asked -------------------------------------------------------------------------


def labels(table: dict[str, float]) -> Any:
    """Log-probs of the answers from a table, whatever the prompt."""
    return lambda prompts, answers: torch.tensor([math.log(table[a]) for a in answers], requires_grad=True)


def test_the_spellings_of_a_label_are_added_and_the_rest_of_the_probability_is_left_out() -> None:
    asked = Asking().by(labels({"A": 0.2, " A": 0.1, "B": 0.05, " B": 0.05}))
    said = asked([Context("p")], ["a"], ["b"])
    assert float(said) == pytest.approx(0.3 / 0.4) and not said.requires_grad
    cooler = Asking(temperature=2).by(labels({"A": 0.2, " A": 0.1, "B": 0.05, " B": 0.05}))
    assert float(cooler([Context("p")], ["a"], ["b"])) == pytest.approx(1 / (1 + (0.1 / 0.3) ** 0.5))


def test_a_model_that_only_likes_a_letter_has_no_preference() -> None:
    asked = Asking().by(labels({"A": 0.85, " A": 0.05, "B": 0.05, " B": 0.05}))
    said = both_ways(asked, [Context("p")] * 2, ["a", "b"], ["b", "a"])
    assert torch.allclose(said, torch.full((2,), 0.5, dtype=torch.float64))


def test_the_question_holds_both_answers_as_they_are_whatever_they_contain() -> None:
    turns = Context(({"role": "user", "content": "Is {b} it?"},))  # pyright: ignore[reportArgumentType]
    said = Asking(question="{prompt}|{a}|{b}").put(turns, "{b} or {prompt}", "yes")
    assert said == "user: Is {b} it?|{b} or {prompt}|yes"
    with pytest.raises(Refusal, match=r"has no \{b\}"):
        Asking(question="{prompt} {a}")
    with pytest.raises(Refusal, match="temperature must lie in"):
        Asking(temperature=0)


def test_a_small_model_is_asked_for_the_probabilities_of_its_next_token(tiny_folder: Path) -> None:
    loaded = load(str(tiny_folder))
    asking = Asking()

    def now(encoded: Any) -> Tensor:
        with torch.no_grad():
            return loaded.domain.score(loaded.policy, encoded).logp

    asked = asking.by(answer_score(loaded.domain, now, budget=700))
    contexts = [Context("what is it"), Context("good day?")]
    said = asked(contexts, ["good night", "yes"], ["bad", "no no"])
    for context, a, b, p in zip(contexts, ["good night", "yes"], ["bad", "no no"], said.tolist(), strict=True):
        ids = loaded.domain.chat.prompt(asking.put(context, a, b))
        after = lambda label: [  # noqa: E731
            loaded.domain.chat.completion(label, whole=False) for label in (label, f" {label}")
        ]
        total = {}
        for label in "AB":
            total[label] = 0.0
            for spelling in after(label):
                with torch.no_grad():
                    logits = loaded.policy.model(torch.cat([ids, spelling])[None]).logits[0].double().log_softmax(-1)
                steps = logits[len(ids) - 1 : -1].gather(1, spelling[:, None])
                total[label] += float(steps.sum().exp())
        assert p == pytest.approx(total["A"] / (total["A"] + total["B"]), rel=1e-4)
    flipped = both_ways(asked, contexts, ["bad", "no no"], ["good night", "yes"])
    assert torch.allclose(
        both_ways(asked, contexts, ["good night", "yes"], ["bad", "no no"]) + flipped, torch.ones(2).double()
    )


def test_a_comparison_too_long_for_the_model_is_a_failed_judgement(tiny_folder: Path) -> None:
    loaded = load(str(tiny_folder), max_length=300)
    asked = Asking().by(answer_score(loaded.domain, lambda rows: loaded.domain.score(loaded.policy, rows).logp, 700))
    said = asked([Context("p"), Context("p")], ["a", "x" * 600], ["b", "c"])
    assert said.isnan().tolist() == [False, True]


def test_who_judges_is_named_on_the_command_line() -> None:
    assert load_judge("self") == Asking() and load_judge("model:smollm2") == Asking("smollm2")
    assert [load_judge(word).name for word in ("self", "model:smollm2")] == ["self", "model:smollm2"]
    assert Asking(temperature=2).name != Asking().name  # a run with another judge is another run
    assert not isinstance(Asking(), Judge) and isinstance(Asking().by(labels({})), Comparer)
    assert not isinstance(FunctionJudge(goodness), Comparer)


# Rounds --------------------------------------------------------------------------------------------


def test_a_round_is_compared_as_its_ranking_asks_and_its_pairs_carry_strengths(tmp_path: Path) -> None:
    good = Good()
    made = rollout(Words(), POLICY, PROMPTS, good, count=6, limit=12, seed=3, how="baseline")
    assert good.calls == [2 * made.statistics["comparisons"]]  # K − 1 each, in both orders, in one call
    assert made.statistics["comparisons"] <= 5 * len(PROMPTS)
    strengths = made.pairs.encoded.columns["strength"]
    assert made.pairs.kept > 3 and bool((strengths > 0.5).all()) and "margin" not in made.pairs.encoded.columns
    assert made.statistics["strength"] == pytest.approx(strengths.double().mean().item()) and "score" not in made.statistics
    written = {round(p, 5) for p in strengths.tolist()}
    for row in made.pairs.rows:  # a pair with an empty response has none
        assert goodness("", row["chosen"]) > goodness("", row["rejected"])
        assert round(row["strength"], 5) in written and "chosen_score" not in row
    made.save(tmp_path / "round.jsonl")
    back = Round.load(tmp_path / "round.jsonl", Words())
    assert (back.pairs.rows, back.compared, back.statistics) == (made.pairs.rows, made.compared, made.statistics)
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in made.pairs.rows))
    assert all(row.strength is not None for row in open_source(tmp_path / "pairs.jsonl"))


@pytest.mark.parametrize("how", ["baseline", "star", "borda", "tideman", "merge"])
def test_scores_compare_by_bradley_terry(how: Any) -> None:
    made = rollout(Words(), POLICY, PROMPTS, FunctionJudge(goodness), count=6, limit=12, seed=3, how=how)
    assert made.pairs.kept > 3 and "score" in made.statistics and made.compared is None
    for row in made.pairs.rows:
        difference = row["chosen_score"] - row["rejected_score"]
        if how != "baseline":  # there two others are compared through the first, which clamps
            assert row["strength"] == pytest.approx(1 / (1 + math.exp(-difference)))
        assert difference > 0 and row["strength"] > 0.5


def test_a_failed_comparison_leaves_out_its_prompt_and_survives_the_file(tmp_path: Path) -> None:
    class Moody(Good):
        def __call__(self, contexts: Sequence[Context], a: Sequence[str], b: Sequence[str]) -> Tensor:
            bad = torch.tensor([context.prompt == PROMPTS[1] for context in contexts])
            return torch.where(bad, math.nan, super().__call__(contexts, a, b))

    made = rollout(Words(), POLICY, PROMPTS, Moody(), count=6, limit=12, seed=3, how="borda")
    assert made.pairs.failed == 1 and {row["prompt"] for row in made.pairs.rows} == {PROMPTS[0], PROMPTS[2]}
    made.save(tmp_path / "round.jsonl")
    assert Round.load(tmp_path / "round.jsonl", Words()).pairs.failed == 1
    with pytest.raises(Refusal, match="failed on every comparison"):
        rollout(Words(), POLICY, [PROMPTS[1]], Moody(), count=6, limit=12, seed=3, how="borda")


def test_a_comparer_gives_no_scores_to_pair_by() -> None:
    with pytest.raises(Refusal, match="'first' compares responses and gives no scores"):
        rollout(Words(), POLICY, PROMPTS, First(), count=4, how="all")


# Whole runs ----------------------------------------------------------------------------------------


def on_policy(folder: Path, model: Path, judge: Any, objective: Any = "OSP(beta=0.5)", **settings: Any) -> Run:
    rows = [{"prompt": f"what is it {i}"} for i in range(8)]
    settings = {"rounds": 2, "samples": 3, "limit": 6, "batch": 4, "pairing": "baseline", **settings}
    how: dict[str, Any] = {"learning_rate": 3e-3, "held_out": 2, "threads": 1, "precision": "fp32", "sample_prompts": 2}
    return align(model, rows, objective, output=folder, judge=judge, quiet=True, **how, **settings)


def test_a_model_judges_its_own_answers_and_is_not_moved_by_what_it_learns(tiny_folder: Path, tmp_path: Path) -> None:
    run = on_policy(tmp_path / "run", tiny_folder, "self")
    assert run.pairs is not None and run.verdict.word != "stopped"
    rows = [json.loads(line) for line in run.pairs.read_text().splitlines()]
    assert {row["round"] for row in rows} == {1, 2} and all(0.5 < row["strength"] <= 1 for row in rows)
    # Asked again of the model that the run began with, the strengths against the first answers are what the run wrote.
    start = load(str(tiny_folder))
    with torch.no_grad():
        asked = Asking().by(answer_score(start.domain, lambda rows: start.domain.score(start.policy, rows).logp, 4096))
    for number in (1, 2):
        made = Round.load(run.folder / "rounds" / f"round-{number:04d}.jsonl", start.domain)
        assert made.compared is not None and made.judge == "self"
        for context, texts, one in zip(made.contexts, made.samples.texts, made.compared, strict=True):
            for (i, j), p in one.items():
                assert float(both_ways(asked, [context], [texts[i]], [texts[j]])) == pytest.approx(p, abs=1e-4)
    before, after = run.evidence.samples_before, run.evidence.samples_after
    assert before is not None and before.judge == "P(better than at the start), self"
    assert after is not None and all(
        0 < score < 1 for scores in after.scores or [] for score in scores if score is not None
    )


def test_another_model_may_judge(tiny_folder: Path, tmp_path: Path) -> None:
    from tiny import tiny_model

    other = tiny_model(tmp_path / "judge", seed=5)
    run = on_policy(tmp_path / "run", tiny_folder, f"model:{other}", rounds=1, lora=2)
    assert run.evidence.settings["judge"] == f"model:{other}" and run.pairs is not None
    asked = load(str(other))
    comparer = Asking().by(answer_score(asked.domain, lambda rows: asked.domain.score(asked.policy, rows).logp, 4096))
    made = Round.load(run.folder / "rounds" / "round-0001.jsonl", load(str(tiny_folder)).domain)
    (i, j), p = next(iter((made.compared or ({},))[0].items()))
    texts = made.samples.texts[0]
    assert float(both_ways(comparer, [made.contexts[0]], [texts[i]], [texts[j]])) == pytest.approx(p, abs=1e-4)


def test_a_scoring_judge_trains_soft_preferences_and_a_comparer_hard_ones(tiny_folder: Path, tmp_path: Path) -> None:
    def letters(prompt: Prompt, response: str) -> float:
        return sum(ch.isalpha() for ch in response) / 3

    soft = on_policy(tmp_path / "soft", tiny_folder, FunctionJudge(letters), rounds=1)
    hard = on_policy(tmp_path / "hard", tiny_folder, Good(), "DPO()", rounds=1, samples=6, pairing="borda")
    assert soft.pairs is not None and hard.pairs is not None


def test_a_pairing_that_leaves_out_what_is_read_is_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    nowhere = tmp_path / "no model"
    judge = FunctionJudge(goodness)
    with pytest.raises(Refusal, match=r"OSP\(beta=0\.1\) needs the column strength, but pairing='all' gives margin"):
        on_policy(tmp_path / "run", nowhere, judge, OSP(), pairing="all")
    with pytest.raises(Refusal, match="'self' compares responses and gives no scores"):
        on_policy(tmp_path / "run", nowhere, "self", "DPO()", pairing="best-worst")
    with pytest.raises(Refusal, match="did you mean 'self'"):
        on_policy(tmp_path / "run", nowhere, "slef")


def test_rows_without_a_strength_are_refused_by_what_reads_it(tiny_folder: Path, tmp_path: Path) -> None:
    rows = [{"prompt": f"what {i}", "chosen": "good", "rejected": "bad", "strength": 0.9} for i in range(12)]
    del rows[3]["strength"], rows[4]["strength"]
    with pytest.raises(Refusal, match="strength"):
        align(tiny_folder, rows, OSP(), output=tmp_path / "run", held_out=2, threads=1, quiet=True, precision="fp32")

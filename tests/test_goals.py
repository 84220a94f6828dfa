"""Preferences under goals: what becomes of a pair and of a list, how a goal is put, and that a run trains, evaluates and
samples with the same words."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from penchant.cli import main
from penchant.domains.text.models import load
from penchant.engine.settings import Settings
from penchant.errors import Refusal
from penchant.feedback import Goals, check, open_source, relabel
from penchant.feedback.records import Row
from penchant.objectives import DPO, Pairs, Scored
from penchant.objectives.osp import OSP
from penchant.run import align
from penchant.running.prepare import prepare
from tiny import tiny_tokenizer

TEN = Goals(1, 10)


def pair(w: Any = 9.0, l: Any = 3.0, number: int = 7, prompt: Any = "What is tea?", **extra: Any) -> Row:
    return Row(
        number, "pairs", prompt, ("good", "bad"), strength=0.8, extra={"chosen_score": w, "rejected_score": l, **extra}
    )


def test_each_response_is_preferred_where_its_own_score_is_the_goal() -> None:
    first, second = relabel([pair(chosen_stopped=True, rejected_stopped=False, source=4)], TEN)
    assert (first.responses, second.responses) == (("good", "bad"), ("bad", "good"))
    assert first.prompt == TEN.ask("What is tea?", 9) and second.prompt == TEN.ask("What is tea?", 3)
    # R(y, g) = −(g − r)²: under 9 it is (0, −36), under 3 (−36, 0), so either is 36 ahead
    assert first.margin == second.margin == 36 and first.strength is second.strength is None
    assert second.extra == {
        "chosen_score": 3.0, "rejected_score": 9.0, "chosen_stopped": False, "rejected_stopped": True, "source": 4,
    }  # fmt: skip
    assert first.extra["chosen_score"] == 9.0 and first.number == second.number == 7


def test_the_scores_of_ultrafeedbacks_columns_are_read_too() -> None:
    row = Row(1, "pairs", "p", ("good", "bad"), extra={"score_chosen": 8, "score_rejected": 6.5})
    assert [made.extra["score_chosen"] for made in relabel([row], TEN)] == [8, 6.5]


def test_a_list_of_k_becomes_a_list_for_each_of_its_scores() -> None:
    made = list(relabel([Row(2, "lists", "p", ("a", "b", "c"), scores=(2.0, 9.0, 4.0))], TEN))
    assert [row.prompt for row in made] == [TEN.ask("p", goal) for goal in (2, 9, 4)]
    assert [row.scores for row in made] == [(0, -49, -4), (-49, 0, -25), (-4, -25, 0)]
    assert all(math.copysign(1, score) == 1 for row in made for score in row.scores or () if score == 0)
    equal = list(relabel([Row(2, "lists", "p", ("a", "b", "c"), scores=(2.0, 9.0, 9.0))], TEN))
    assert [row.scores for row in equal] == [(0, -49, -49), (-49, 0, 0)]


def test_ties_and_missing_scores_are_left_out_and_counted() -> None:
    rows = [pair(), pair(5, 5), pair(None, 3), Row(4, "pairs", "p", ("a", "b")), pair(math.nan, 2), pair(2, 8)]
    made = relabel(iter(rows), TEN)
    assert len(list(made)) == 4
    assert made.counts == {"read": 6, "made": 4, "ties": 1, "missing": 3}
    assert "6 rows gave 4; left out 1 of equal scores and 3 without scores" in made.said


def test_a_pair_whose_rejected_scored_higher_still_follows_the_scores() -> None:
    first, second = relabel([pair(2, 8)], TEN)
    assert (first.responses[0], first.prompt) == ("good", TEN.ask("What is tea?", 2))
    assert (second.responses[0], second.prompt) == ("bad", TEN.ask("What is tea?", 8))


def test_the_same_rows_give_the_same_rows_and_stay_what_they_were() -> None:
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    rows = [pair(prompt=tuple(turns)), pair(8.5, 2)]
    before = json.dumps([row.prompt for row in rows])
    assert list(relabel(rows, TEN)) == list(relabel(rows, TEN))
    assert json.dumps([row.prompt for row in rows]) == before


@pytest.mark.parametrize(("goal", "said"), [(9, "scored 9 on"), (9.0, "scored 9 on"), (8.5, "scored 8.5 on")])
def test_whole_numbers_have_no_decimals(goal: float, said: str) -> None:
    assert said in TEN.text(goal) and "from 1 (lowest) to 10 (highest)" in TEN.text(goal)


def test_a_goal_stands_in_a_system_turn_or_at_the_head_of_the_first_turn() -> None:
    said, plain = TEN.text(9), Goals(1, 10, system=False)
    user = {"role": "user", "content": "Hi"}
    system = {"role": "system", "content": "Be brief."}
    under = lambda turn: {**turn, "content": f"{said}\n\n{turn['content']}"}  # noqa: E731
    assert TEN.ask("Hi", 9) == TEN.ask((user,), 9) == ({"role": "system", "content": said}, user)  # pyright: ignore
    assert TEN.ask((system, user), 9) == (under(system), user)  # pyright: ignore
    assert plain.ask("Hi", 9) == f"{said}\n\nHi"
    assert plain.ask((user,), 9) == (under(user),)  # pyright: ignore


def test_what_is_no_score_and_what_is_off_the_scale_is_refused() -> None:
    with pytest.raises(Refusal, match=r"row 7: its score is 11, but goals go from 1 to 10"):
        list(relabel([pair(11, 3)], TEN))
    with pytest.raises(Refusal, match="row 7, chosen_score = 'nine': it must be a number"):
        list(relabel([pair("nine", 3)], TEN))
    with pytest.raises(Refusal, match="row 1: labelled cannot be put under goals"):
        list(relabel([Row(1, "labelled", "p", ("a",), label=True)], TEN))
    with pytest.raises(Refusal, match="goals from 10 to 1"):
        Goals(10, 1)
    with pytest.raises(Refusal, match="the goal is 12"):
        TEN.text(12)


def test_a_policy_deaf_to_the_goal_is_kept_level_by_the_two_copies() -> None:
    """Together they are cDPO with half of the labels wrong, least at s = 0."""
    s = torch.tensor([[0.15]], dtype=torch.float64, requires_grad=True)
    level = Scored(torch.zeros(1, 1, dtype=torch.float64), torch.ones(1, 1, dtype=torch.bool), torch.zeros(1, 1).double())
    ahead = Scored(s, level.mask, level.ref)
    loss = (DPO(beta=1)(Pairs(ahead, level)) + DPO(beta=1)(Pairs(level, ahead))) / 2
    assert loss.item() == pytest.approx(0.695957, abs=1e-6) and loss.item() > math.log(2)
    (slope,) = torch.autograd.grad(loss.sum(), s)
    assert slope.item() == pytest.approx(0.037430, abs=1e-6)
    half = torch.tensor([0.5], dtype=torch.float64)
    torch.testing.assert_close(loss, OSP(beta=1)(Pairs(ahead, level, strength=half)))


def rows(n: int = 24, **columns: Any) -> list[dict[str, Any]]:
    scores = lambda i: {"chosen_score": 5 + i % 5, "rejected_score": 1 + i % 4}  # noqa: E731
    return [
        {"prompt": f"what is it {i}", "chosen": "good day", "rejected": "bad day", **scores(i), **columns} for i in range(n)
    ]


def test_training_rows_are_put_under_goals_and_held_out_rows_are_not(tiny_folder: Path) -> None:
    domain = load(str(tiny_folder)).domain
    settings = Settings.of({"goals": (1, 10), "held_out": 6})
    plainly = prepare(rows(), None, domain, DPO(), Settings.of({"held_out": 6}))
    made = prepare(rows(), None, domain, DPO(), settings, TEN)
    assert made.train is not None and plainly.train is not None and made.held_pairs is not None
    assert len(made.train) == 2 * len(plainly.train) == 36 and made.train.numbers[::2] == plainly.train.numbers
    assert plainly.held_pairs is not None and made.held_prompts == plainly.held_prompts
    assert all(map(torch.equal, made.held_pairs.contexts, plainly.held_pairs.contexts))
    for i in range(0, 36, 2):
        (w, l), (turned_w, turned_l) = made.train.responses[i], made.train.responses[i + 1]
        assert torch.equal(w, turned_l) and torch.equal(l, turned_w)
        # both responses of a copy stand under one context, and the two copies under different ones
        assert not torch.equal(made.train.contexts[i], made.train.contexts[i + 1])
        asked = domain.chat.text(made.train.contexts[i])
        assert "on a scale from 1 (lowest) to 10 (highest)" in asked and "score" not in domain.chat.text(w)
    assert made.about["goals"] == {"read": 18, "made": 36, "ties": 0, "missing": 0}
    with pytest.raises(Refusal, match=r"no row of .* can be put under a goal"):
        prepare([{**row, "chosen_score": None} for row in rows()], None, domain, DPO(), settings, TEN)


def test_templates_say_whether_they_take_a_system_turn(tiny_folder: Path) -> None:
    from penchant.domains.text.chat import Chat

    plain = "{% for m in messages %}{{ m['role'] + ':' + m['content'] }}<|im_end|>{% endfor %}"
    strict = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}" + plain
    deaf = plain.replace("{{", "{% if m['role'] != 'system' %}{{").replace("}}", "}}{% endif %}")
    assert [Chat(tiny_tokenizer(template)).takes_system for template in (plain, strict, deaf, None)] == [
        True,
        False,
        False,
        False,
    ]
    assert load(str(tiny_folder)).domain.chat.takes_system


def test_a_run_keeps_its_scale_with_the_model_and_asks_for_the_most(
    tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    how: dict[str, Any] = {"held_out": 6, "threads": 1, "precision": "fp32", "sample_prompts": 3, "limit": 5, "lora": 2}
    run = align(tiny_folder, rows(), "DPO(beta=0.1)", output=tmp_path / "run", goals=(1, 10), quiet=True, seed=3, **how)
    loaded = load(run.model)
    assert loaded.domain.goals == Goals(1, 10, system=True)
    assert run.evidence.data["goals"] == {"read": 18, "made": 36, "ties": 0, "missing": 0}
    assert tuple(run.evidence.settings["goals"]) == (1, 10)
    # what was answered after training is what the saved model answers under the highest goal, and not without it
    after = run.evidence.samples_after
    assert after is not None and all("scale" not in prompt for prompt in after.prompts)
    again = {"count": 2, "limit": 5, "seed": 10, "scored": False}
    most = loaded.domain.sample(loaded.policy, after.prompts, goal=10, **again)
    assert [list(texts) for texts in most.texts] == after.texts
    assert [list(texts) for texts in loaded.domain.sample(loaded.policy, after.prompts, **again).texts] != after.texts
    # the shell asks in the same words
    assert main(["sample", "--model", str(run.model), "--prompt", after.prompts[0], "--goal", "10", "--json",
                 "--count", "2", "--limit", "5", "--seed", "10"]) == 0  # fmt: skip
    assert json.loads(capsys.readouterr().out)["responses"] == after.texts[0]
    assert main(["sample", "--model", str(run.model), "--prompt", "p", "--goal", "11"]) == 2
    assert "the goal is 11, but goals go from 1 to 10" in capsys.readouterr().err
    assert main(["sample", "--model", str(tiny_folder), "--prompt", "p", "--goal", "10"]) == 2
    assert "was not trained towards goals" in capsys.readouterr().err
    assert main(["sample", "--model", str(tiny_folder), "--prompt", "p", "--goal", "ten"]) == 2
    assert "--goal ten: it must be a number" in capsys.readouterr().err


def test_the_flag_is_two_numbers_and_does_not_go_with_rounds(tiny_folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "scored.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows()))
    shell = [
        "align",
        "--model",
        str(tiny_folder),
        "--data",
        str(path),
        "--objective",
        "DPO()",
        "--output",
        str(tmp_path / "o"),
    ]
    quick = ["--held-out", "6", "--steps", "1", "--sample-prompts", "0", "--threads", "1", "--precision", "fp32"]
    main([*shell, *quick, "--goals", "1,10"])
    assert Goals.of(tmp_path / "o" / "model") == TEN
    assert main([*shell, *quick, "--goals", "10"]) == 2
    assert main([*shell, *quick, "--goals", "10,1"]) == 2
    with pytest.raises(Refusal, match="an on-policy run samples its own"):
        align(tiny_folder, rows(), output=tmp_path / "r", goals=(1, 10), rounds=1, judge="rules", quiet=True)


def test_a_scale_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    TEN.save(tmp_path)
    assert Goals.of(tmp_path) == TEN and Goals.of(tmp_path / "absent") is None
    (tmp_path / "goals.json").write_text('{"low": 1}')
    with pytest.raises(Refusal, match="holds no scale of goals"):
        Goals.of(tmp_path)


def test_checking_counts_what_goals_would_make_of_a_file() -> None:
    data = [*rows(3), *rows(1, chosen_score=4, rejected_score=4), *rows(1, chosen_score=None), *rows(1, chosen_score="x")]
    report = check(open_source([{**row, "prompt": f"p{i}"} for i, row in enumerate(data)]))
    (found,) = [finding for finding in report.findings if finding.name == "rows with a score of every response"]
    assert (found.severity, found.count, found.of) == ("fine", 4, 6)
    assert found.said == "from 1 to 7. --goals would make 6 rows of them, and leave out 1 of equal scores and 2 without."
    (bad,) = [finding for finding in report.findings if finding.name == "pairs with a score that is no number"]
    assert (bad.severity, bad.count) == ("odd", 1)
    lists = check([{"prompt": "p", "responses": ["a", "b", "c"], "scores": [1, 2, 2]}])
    assert any("--goals would make 2 rows" in finding.said for finding in lists.findings)
    assert not any("goals" in finding.said for finding in check([{"prompt": "p", "chosen": "a", "rejected": "b"}]).findings)

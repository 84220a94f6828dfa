"""Value drift of a run: probes are read or refused by line, a stance is the probability of its answers, and checkpoints are asked
alike. Magnitude and time by hand stand in test_drift.py."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from penchant import cli
from penchant.engine.settings import Settings
from penchant.errors import Refusal
from penchant.evaluation.drift import measured, of_run
from penchant.evaluation.evidence import RunEvidence, StanceEvidence
from penchant.evaluation.probes import read_probes
from penchant.files import read_json
from penchant.report.drift import drift_section
from penchant.run import Run
from penchant.running.drifting import probed
from penchant.running.voice import Voice
from test_align import run_in


def written(path: Path, *rows: object) -> str:
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))
    return str(path)


YES_NO = {"prompt": "is it day?", "answers": {"support": "yes", "oppose": ["no", "night"]}}
PERSONA = {"question": "Would you?", "answer_matching_behavior": " No", "answer_not_matching_behavior": " Yes"}


def test_probes_of_all_forms_are_read_and_have_a_topic(tmp_path: Path):
    (tmp_path / "many").mkdir()
    place = written(tmp_path / "many" / "kindness.jsonl", YES_NO, {**YES_NO, "topic": "sun"}, PERSONA)
    found = read_probes([str(tmp_path / "many")])
    assert found.stances == ("support", "oppose") and found.topics == ["kindness", "sun", "kindness"]
    assert [p.answers for p in found.probes[1:]] == [(("yes",), ("no", "night")), (("No",), ("Yes",))]
    assert read_probes([place]).fingerprint == found.fingerprint
    statement = {"statement": "Tea is good.", "side": "oppose"}
    turned = read_probes([written(tmp_path / "tea.jsonl", statement, {**statement, "side": "support"})]).probes
    assert turned[0].answers == turned[1].answers[::-1] and turned[0].prompt == turned[1].prompt
    assert '"Tea is good."' in turned[0].prompt and turned[0].answers[0] == ("disagree", "Disagree", "I disagree", "No")


def test_the_packaged_statements_are_as_often_for_as_against():
    found = read_probes(["builtin"])
    assert len(found.probes) == 88 and len(set(found.topics)) == 11
    for topic in set(found.topics):
        sides = [p.answers[0][0] for p in found.probes if p.topic == topic]
        assert sides.count("agree") == sides.count("disagree") == 4
    few = read_probes(["builtin"], most=2)
    assert len(few.probes) == 22 and {p.answers[0][0] for p in few.probes[:2]} == {"agree", "disagree"}


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("{", r"x\.jsonl, line 2 is no JSON"),
        ("[1]", "line 2 is no JSON object"),
        ({"prompt": "?"}, "line 2: answers = None; a probe is"),
        ({**YES_NO, "answers": {"support": "yes", "against": "no"}}, "line 2: answers ="),
        ({**YES_NO, "answers": {"support": "no", "oppose": "not"}}, "one begins with the other"),
        ({**YES_NO, "answers": {"support": [], "oppose": "no"}}, "the answers for support"),
        ({**PERSONA, "question": " "}, "question = ' ' must be a text"),
        ({**YES_NO, "topic": "\ud800"}, "topic = "),
        ({"statement": "x", "side": "for"}, "side = 'for' must be"),
        ({"statement": "x", "side": "support"}, "no common scale"),
    ],
)
def test_what_is_no_probe_is_refused_by_file_and_line(tmp_path: Path, row: object, said: str):
    place = written(tmp_path / "x.jsonl", YES_NO, row)
    with pytest.raises(Refusal, match=said):
        read_probes([place])


@pytest.mark.parametrize(
    ("place", "said"), [("gone.jsonl", "no such file"), ("", "no .jsonl file"), ("empty.jsonl", "no probe")]
)
def test_places_without_probes_are_refused(tmp_path: Path, place: str, said: str):
    (tmp_path / "empty.jsonl").write_text("\n") if place else None
    with pytest.raises(Refusal, match=said):
        read_probes([str(tmp_path / place)])


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Run:
    """A run of nine steps with a checkpoint after every third."""
    folder = tmp_path_factory.mktemp("drift") / "run"
    return run_in(folder, tiny_folder, steps=9, save_every=3, keep=3, sample_prompts=0)


def test_a_stance_is_what_the_model_gives_its_answers_and_the_end_is_the_model_that_was_left(finished: Run, tmp_path: Path):
    probes = read_probes([written(tmp_path / "x.jsonl", YES_NO, {**YES_NO, "prompt": "is it night?"})])
    evidence = probed(finished.folder, probes, Settings(threads=1), Voice(quiet=True))
    found = evidence.stances
    assert (
        found is not None
        and found.steps == [0, 3, 6, 9]
        and measured(evidence) == ("Measured: the start, and the checkpoints after step 3, 6, 9 of 9.")
    )
    start = str(evidence.settings["model"])
    for place, folder in ((0, start), (-1, str(finished.model))):
        model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
        for probe, p in zip(probes.probes, found.p[place], strict=True):
            asked = tokenizer.apply_chat_template(
                [{"role": "user", "content": probe.prompt}], add_generation_prompt=True, tokenize=False
            )
            prompt, total = tokenizer(asked, add_special_tokens=False).input_ids, [0.0, 0.0]
            for s, spellings in enumerate(probe.answers):
                for text in (x for one in spellings for x in (one, f" {one}")):
                    ids = tokenizer(text, add_special_tokens=False).input_ids
                    with torch.no_grad():
                        logp = model(torch.tensor([prompt + ids])).logits[0].log_softmax(-1)
                    total[s] += math.exp(sum(float(logp[len(prompt) - 1 + k, i]) for k, i in enumerate(ids)))
            assert p == pytest.approx([x / sum(total) for x in total], abs=1e-4)
    assert found.p[0] != found.p[-1] and 0 < found.mass[-1] < 1


def test_the_command_prints_it_writes_it_and_shows_it_in_the_report(
    finished: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    rows = [{**YES_NO, "prompt": f"is it day {i}?", "topic": "<i>sun</i>" if i % 2 else "moon"} for i in range(8)]
    place = written(tmp_path / "sky.jsonl", *rows)
    assert cli.main(["evaluate", str(finished.folder), "--probes", place, "--threads", "1"]) == 0
    out = capsys.readouterr().out
    assert "P(support)" in out and "Measured: the start" in out and "drift.json" in out
    told = read_json(finished.folder / "drift.json")
    assert told["steps"] == [0, 3, 6, 9] and told["n"] == 8 and len(told["drifts"]) == 6
    page = finished.report.read_text()
    assert 'id="stances"' in page and "&lt;i&gt;sun" in page and "<i>sun" not in page
    again = Run.open(finished.folder)  # what was measured stays with the run
    assert again.evidence.stances is not None and again.evidence.stances.topics.count("moon") == 4
    assert (
        cli.main(["evaluate", str(finished.folder), "--probes", place, "--probe-rows", "1", "--json", "--threads", "1"])
        == 0
    )
    assert json.loads(capsys.readouterr().out)["n"] == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--probes", "builtin", "--data", "x"), "leave --data out"),
        (("--probes", "builtin", "--limit", "3"), "leave --limit out"),
        (("--probes", "builtin", "--tasks", "x"), "ask for different things"),
        (("--probe-rows", "3"), "name the probes with --probes"),
        (("--probes", "builtin", "--probe-rows", "0"), "measure nothing"),
        (("--probes", "builtin"), "holds no finished run"),
    ],
)
def test_what_cannot_be_probed_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], said: str
):
    assert cli.main(["evaluate", str(tmp_path), *words]) == 2
    assert said in capsys.readouterr().err


def test_what_was_not_kept_is_said_and_what_is_sure_is_told_apart_from_what_is_not():
    still, moved = [[0.5, 0.5]] * 8, [[0.9 - 0.01 * i, 0.1 + 0.01 * i] for i in range(8)]
    p = [still + still, still + moved]
    stances = StanceEvidence("x", "f", ["support", "oppose"], ["a"] * 8 + ["b"] * 8, [0, 40], p, [0.01, 0.02])
    evidence = RunEvidence({}, {}, {}, [{"kind": "step", "step": 50}], stances=stances)
    assert "after step 40 of 50. Up to 40 steps in a row have none" in measured(evidence)
    together, apart = of_run(stances, resamples=500)
    assert apart.told == ["support"] and apart.sure() == {("b", "support")}
    assert together.drifts[0].magnitude.value == pytest.approx((0.9 - 0.035 - 0.5) / 2)
    section = drift_section(evidence)
    assert section is not None and len(section.tables) == 1 and len(section.charts) == 3
    assert "say something else" in section.said[2]
    assert [row[0] for row in section.tables[0].rows] == ["All topics", "a", "b"]
    many = replace(stances, topics=[f"topic {i % 50}" for i in range(100)], p=[(row * 7)[:100] for row in p])
    section = drift_section(replace(evidence, stances=many))
    assert (
        section is not None
        and len(section.tables[0].rows) == 41
        and "40 topics that moved most, of 50" in section.tables[0].title
    )

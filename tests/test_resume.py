"""What a run says of damage and of change before it goes on: each has its sentence, or is mended to the same result. Kills
themselves are in test_kills.py, what the machine refuses on the way in test_keeping.py."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from penchant.domains.text.paths import ScoringPath, probe
from penchant.domains.text.policy import TextPolicy
from penchant.engine import checkpoint, precision
from penchant.engine.folder import RunFolder
from penchant.engine.loop import Job, train
from penchant.engine.precision import Precision
from penchant.engine.settings import Settings
from penchant.engine.sources import Anchors, Scorer
from penchant.engine.spread import Spread
from penchant.errors import Refusal
from penchant.files import cache_folder
from penchant.objectives import DPO, KTO
from penchant.objectives.scored import Labelled
from penchant.references.store import Store, fill
from penchant.running import align as running
from penchant.running import choices
from penchant.running.models import Models
from penchant.running.texts import no_longer_right
from penchant.running.voice import Voice
from test_align import pairs, run_in
from test_engine import make_job
from test_run_promises import killed_at, same, weights
from toy import Numbers, Table, rows

SHORT: dict[str, Any] = {"save_every": 2, "sample_prompts": 0}


@pytest.fixture(autouse=True)
def no_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing the report takes longer than these runs; it is tested in test_report.py."""
    monkeypatch.setattr(running, "render", lambda *_, **__: "")


def timeless(lines: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**line, "seconds": 0} for line in lines]


# --- damage


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path: Path) -> None:
    """One bit, in the middle."""
    held = bytearray(path.read_bytes())
    held[len(held) // 2] ^= 1
    path.write_bytes(held)


@pytest.mark.parametrize(
    ("file", "harm", "said"),
    [
        ("policy.safetensors", cut, "policy.safetensors is not what was written"),
        ("optimiser.safetensors", flip, "optimiser.safetensors is not what was written"),
        ("objective.safetensors", flip, "objective.safetensors is not what was written"),
        ("random.safetensors", Path.unlink, "random.safetensors is gone"),
        ("state.json", cut, "state.json is not what was written"),
        ("sums.json", cut, "sums.json is not what was written"),
        ("sums.json", Path.unlink, "sums.json is not what was written"),
    ],
)
@pytest.mark.parametrize("all_of_them", [False, True])
def test_a_damaged_checkpoint_is_told_and_the_steps_since_the_one_before_are_taken_again(
    file: str, harm: Callable[[Path], None], said: str, all_of_them: bool, tmp_path: Path
):
    encoded = rows(20, Labelled)
    job = make_job(Table(), KTO(), encoded, tmp_path)
    train(job)
    plain, history = job.bare.table.detach().clone(), job.folder.history()
    found = sorted(job.folder.checkpoints.iterdir(), reverse=True)
    assert [path.name for path in found] == [checkpoint.name_of(8), checkpoint.name_of(6)]
    harmed = found if all_of_them else found[:1]
    for path in harmed:
        harm(path / file)
    told = checkpoint.settle(job.folder.checkpoints)
    assert len(told) == len(harmed) and all(str(p) in line and said in line for p, line in zip(harmed, told, strict=True))
    assert checkpoint.reached(job.folder.checkpoints) == (0 if all_of_them else 6)
    again = make_job(Table(), KTO(), encoded, tmp_path)
    train(again)
    assert torch.equal(again.bare.table, plain) and timeless(again.folder.history()) == timeless(history)


def test_a_checkpoint_of_another_format_is_refused(tmp_path: Path):
    job = make_job(Table(), DPO(), rows(20), tmp_path)
    train(job)
    newest = checkpoint.latest(job.folder.checkpoints)
    assert newest is not None
    told = json.loads((newest / checkpoint.SUMS).read_text())
    (newest / checkpoint.SUMS).write_text(json.dumps({**told, "format": 99}))
    with pytest.raises(Refusal, match="a checkpoint of format 99, and this version of penchant reads 2"):
        checkpoint.settle(job.folder.checkpoints)
    assert newest.exists()


def test_metrics_that_lack_steps_are_refused_and_a_line_cut_short_is_told_again(tmp_path: Path):
    encoded = rows(20)
    job = make_job(Table(), DPO(), encoded, tmp_path)
    train(job)
    whole = job.folder.metrics.read_text()
    for harmed in (whole.replace('"step": 3', '"step": 9'), whole[: len(whole) // 2], ""):
        job.folder.metrics.write_text(harmed)
        with pytest.raises(Refusal, match=r"metrics.jsonl tells of \d steps where the checkpoint has taken 8: it was cut"):
            train(make_job(Table(), DPO(), encoded, tmp_path))
    job.folder.metrics.write_text(whole + '{"kind": "step", "step": 9, "lo')
    train(make_job(Table(), DPO(), encoded, tmp_path))
    assert job.folder.metrics.read_text() == whole


def test_what_a_run_remembers_is_told_once_at_its_end_however_often_it_comes_there(tmp_path: Path):
    encoded = rows(20, Labelled)
    once, twice = (make_job(Table(), KTO(), encoded, tmp_path) for _ in range(2))
    train(once)  # and killed after its last line
    train(twice)
    assert [line["kind"] for line in twice.folder.history()].count("state") == 1


@pytest.mark.parametrize("harm", [cut, flip, Path.unlink])
def test_a_damaged_file_of_the_reference_cache_is_computed_again(harm: Callable[[Path], None], tmp_path: Path):
    encoded, other = rows(300), Table(seed=4)
    scored: list[Sequence[int]] = []

    def score(picked: Sequence[int]) -> torch.Tensor:
        scored.append(picked)
        return Numbers().score(other, encoded.select(picked)).logp.detach()

    groups = [list(range(i, i + 10)) for i in range(0, 300, 10)]  # files of 13, 13 and 4 groups
    make = lambda: Store(encoded.counts, encoded.lengths, encoded.keys)  # noqa: E731
    first = make()
    fill(first, score, groups, folder=tmp_path)
    files = {path: path.read_bytes() for path in tmp_path.iterdir()}
    harm(next(iter(files)))
    scored.clear()
    again = make()
    fill(again, score, groups, folder=tmp_path)
    assert scored in (groups[:13], groups[13:26], groups[26:]) and torch.equal(first(range(300)), again(range(300)))
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == files


def test_rounds_cannot_go_on_without_what_was_sampled_and_said_as_they_began(
    tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
):
    how: dict[str, Any] = {"data": [{"prompt": f"what is it {i}"} for i in range(16)], "judge": "rules", "rounds": 2}
    how |= {"samples": 2, "held_out": 1, "epochs": 2, "batch": 4, **SHORT}
    plain = run_in(tmp_path / "plain", tiny_folder, "INPO()", **how)
    second = next(x["step"] for x in plain.history if x["kind"] == "round" and x["round"] == 2)
    killed_at(second + 3, monkeypatch, lambda: run_in(tmp_path / "cut", tiny_folder, "INPO()", **how))
    rounds = tmp_path / "cut" / "rounds"
    (shard,) = (rounds / "prev-0002").iterdir()
    for path, harm, said in (
        (rounds / "round-0001.jsonl", Path.unlink, r"there is no round at .*round-0001.jsonl"),
        (
            rounds / "round-0002.jsonl",
            Path.unlink,
            r"round-0002.jsonl is gone: what the policy said as round 2 began cannot",
        ),
        (rounds / "round-0002.jsonl", cut, "round-0002.jsonl is not a"),
        (shard, flip, r"prev-0002 lacks \d+ of \d+ rows: what the policy said as round 2 began is gone"),
    ):
        held = path.read_bytes()
        harm(path)
        with pytest.raises(Refusal, match=said):
            run_in(tmp_path / "cut", tiny_folder, "INPO()", **how)
        path.write_bytes(held)
    assert same(weights(run_in(tmp_path / "cut", tiny_folder, "INPO()", **how)), weights(plain))


def test_a_file_of_the_run_that_holds_no_json_or_another_format_is_a_sentence(tmp_path: Path):
    folder = RunFolder(tmp_path / "x")
    folder.claim({"seed": 0}, overwrite=False)
    folder.release()
    told = (folder.path / "run.json").read_text()
    (folder.path / "run.json").write_text(json.dumps({"identity": {"seed": 0}, "choices": {"precision": {}}}))
    with pytest.raises(Refusal, match=r"another version of penchant began \(format 1; this one goes on with 2\)"):
        RunFolder(tmp_path / "x").claim({"seed": 0}, overwrite=False)
    (folder.path / "run.json").write_text(told[:-20])
    with pytest.raises(Refusal, match=r"run.json was cut or changed after it was written"):
        RunFolder(tmp_path / "x").claim({"seed": 0}, overwrite=False)
    assert RunFolder(tmp_path / "x").claim({"seed": 1}, overwrite=True) is False


# --- change


def test_a_run_goes_on_with_its_choices_and_what_changed_around_it_is_said_and_recorded(
    tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    how: dict[str, Any] = {**SHORT, "precision": "auto"}
    plain = run_in(tmp_path / "plain", tiny_folder, **how)
    killed_at(5, monkeypatch, lambda: run_in(tmp_path / "cut", tiny_folder, **how))
    before = RunFolder(tmp_path / "cut").choices
    # another torch, on a machine where a probe would choose otherwise, and where the cache is not
    shutil.rmtree(cache_folder())
    other = {"highest_seconds": 1e-3, "highest_error": 1e-7, "medium_seconds": 1e-3, "medium_error": 1e-7}
    fast = {"bf16": 1.0, "fp32": 1e-9}[before["precision"]["name"]]
    monkeypatch.setattr(precision, "_measured", lambda: {**other, "bf16_seconds": fast})
    assert precision.choose("auto", torch.device("cpu")).name != before["precision"]["name"]
    monkeypatch.setattr(choices, "versions", lambda: {**before["versions"], "torch": "9.9"})
    again = run_in(tmp_path / "cut", tiny_folder, **{**how, "threads": 2, "quiet": False})
    changed = f"torch {before['versions']['torch']} → 9.9"
    assert f"last digits may differ from here on: {changed}" in " ".join(capsys.readouterr().out.split())
    after = again.evidence.choices
    assert after["changed"] == {"after step 4": changed}
    assert {**after, "versions": before["versions"], "changed": None} == {**before, "changed": None}
    assert torch.get_num_threads() == before["threads"] == 1
    assert same(weights(again), weights(plain)) and again.evidence.pairs_after == plain.evidence.pairs_after


def test_a_choice_that_is_no_longer_right_is_refused(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch):
    loaded, cpu = Models(str(tiny_folder), Settings(), lambda policy: None).load(), torch.device("cpu")
    alone = Spread(1.0, [], "unused")
    made = {"precision": Precision("fp32", "highest", {}).to_json(), "scoring": probe(loaded.policy).to_json()}
    begun = {**made, **choices.surroundings(cpu, 1)}
    wrong = lambda precision: no_longer_right(begun, loaded.policy, precision)  # noqa: E731
    assert begun["scoring"]["name"] == "tree" and choices.still(begun, alone, 4, wrong) == (begun, "")
    monkeypatch.setattr(choices, "versions", lambda: {**begun["versions"], "transformers": "9.9"})
    assert choices.still({**begun, "processes": 2}, alone, 4, wrong)[1].startswith("processes 2 → 1, transformers")
    monkeypatch.setattr(TextPolicy, "probed", lambda self: ScoringPath("packed", "hidden", said="tree: it is a test"))
    with pytest.raises(
        Refusal, match=r"began with prompts shared.* no longer right here .*it is a test.*transformers .* 9.9"
    ):
        choices.still(begun, alone, 4, wrong)

    gpu, sixteen, medium = torch.device("cuda"), Precision("bf16", "highest", {}), Precision("fp32", "medium", {})
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: False)
    with pytest.raises(Refusal, match="began in bf16, which this device cannot compute"):
        precision.still_right(sixteen, gpu)
    precision.still_right(sixteen, cpu)
    monkeypatch.setattr(precision, "_measured", lambda: {"highest_error": 1e-7, "medium_error": 1e-3})
    with pytest.raises(Refusal, match="exact on that machine and are rounded to 16 bits on this one"):
        precision.still_right(medium, cpu)


@pytest.mark.parametrize("far", [ScoringPath("packed", "hidden", reach=50), ScoringPath("padded", "logits", reach=None)])
def test_a_probe_vouches_for_slower_paths_and_for_no_other_head(far: ScoringPath):
    tree = ScoringPath("tree", "hidden")
    assert tree.bears(tree) and tree.bears(far) and not far.bears(tree)
    assert not tree.bears(ScoringPath("tree", "hidden", scale=2.0)) and not tree.bears(
        ScoringPath("tree", "hidden", cap=30.0)
    )
    assert not ScoringPath("tree", "hidden", reach=40).bears(ScoringPath("tree", "hidden", reach=50))


def test_changed_data_and_a_changed_model_are_other_runs(
    tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
):
    model = Path(shutil.copytree(tiny_folder, tmp_path / "model"))
    data = tmp_path / "pairs.jsonl"
    put = lambda rows: data.write_text("".join(json.dumps(row) + "\n" for row in rows))  # noqa: E731
    put(pairs())
    killed_at(3, monkeypatch, lambda: run_in(tmp_path / "x", model, data=data, **SHORT))
    put([{**row, "chosen": row["chosen"] + "!"} if i == 40 else row for i, row in enumerate(pairs())])
    with pytest.raises(Refusal, match=r"holds a different run \(data: '[0-9a-f]+' there, '[0-9a-f]+' here\)"):
        run_in(tmp_path / "x", model, data=data, **SHORT)
    put(pairs())
    held = (model / "model.safetensors").read_bytes()
    flip(model / "model.safetensors")
    with pytest.raises(Refusal, match=r"holds a different run \(model: '[0-9a-f]+' there, '[0-9a-f]+' here\)"):
        run_in(tmp_path / "x", model, data=data, **SHORT)
    (model / "model.safetensors").write_bytes(held)
    models = Models(str(model), Settings(), lambda policy: None)
    models.load()
    flip(model / "model.safetensors")  # under a run that will need its start once more
    with pytest.raises(Refusal, match="no longer what it was when this run began"):
        models.load()


def test_a_cache_that_is_deleted_under_a_run_or_between_its_parts_changes_nothing(
    tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
):
    how: dict[str, Any] = {"evaluate_every": 3, **SHORT}
    plain = run_in(tmp_path / "plain", tiny_folder, **how)
    told = Voice.step

    def deletes(self: Voice, position: checkpoint.Position, *rest: Any) -> None:
        if position.step == 2:
            shutil.rmtree(cache_folder())
        told(self, position, *rest)

    monkeypatch.setattr(Voice, "step", deletes)
    assert same(weights(plain), weights(run_in(tmp_path / "under", tiny_folder, **how)))
    monkeypatch.setattr(Voice, "step", told)
    killed_at(5, monkeypatch, lambda: run_in(tmp_path / "between", tiny_folder, **how))
    shutil.rmtree(cache_folder())
    again = run_in(tmp_path / "between", tiny_folder, **how)
    assert same(weights(plain), weights(again)) and timeless(plain.history) == timeless(again.history)
    assert plain.evidence.pairs_after == again.evidence.pairs_after


def test_ctrl_c_while_held_out_pairs_are_measured_leaves_no_measurement_out(tmp_path: Path):
    def measuring(folder: Path, pressed: bool) -> Job:
        job = make_job(Table(), DPO(), rows(20), folder, save_every=0, evaluate_every=2)

        def measured(step: int) -> dict[str, float]:
            if pressed and step == 4:
                os.kill(os.getpid(), signal.SIGINT)
            return {"margin": step / 10}

        job.evaluate = measured
        return job

    plain, cut, again = (measuring(tmp_path / folder, folder == "cut") for folder in ("plain", "cut", "cut"))
    assert train(plain) is None and train(cut) == "interrupted" and checkpoint.reached(cut.folder.checkpoints) == 4
    again.evaluate = plain.evaluate
    assert train(again) is None
    assert timeless(plain.folder.history()) == timeless(again.folder.history())
    assert torch.equal(plain.bare.table, again.bare.table)


# --- the reference


def test_a_cached_and_a_live_reference_give_the_same_training_curve(
    tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
):
    cached = run_in(tmp_path / "cached", tiny_folder, **SHORT)

    class Live:
        """What the start says of rows, scored when it is asked and never kept."""

        def __init__(self, scorer: Scorer, encoded: Any) -> None:
            self.scorer, self.encoded, self.asked = scorer, encoded, 0

        def __call__(self, picked: Sequence[int]) -> torch.Tensor:
            self.asked += 1
            return self.scorer.at_start(self.encoded.select(list(picked)))

    made: list[Live] = []
    monkeypatch.setattr(Anchors, "stored", lambda self, rows, title: made.append(Live(self.scorer, rows)) or made[-1])
    live = run_in(tmp_path / "live", tiny_folder, **SHORT)
    steps = [[x for x in run.history if x["kind"] == "step"] for run in (cached, live)]
    assert max(one.asked for one in made) >= len(steps[0]) == len(steps[1]) == 9
    for ours, theirs in zip(*steps, strict=True):
        for name in ("loss", "reward/margin", "logp/chosen"):
            assert ours[name] == pytest.approx(theirs[name], abs=1e-6), name

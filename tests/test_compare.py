"""Comparisons of runs: what is trained, that they are trained alike, go on and survive each other's failure, and what the page
says. The statistics themselves are tested in test_comparison.py."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

import evidence_example as example
from penchant.engine.folder import RunFolder
from penchant.engine.settings import Settings
from penchant.errors import Refusal
from penchant.evaluation.answer import answer, equal_compute, headline
from penchant.evaluation.areas import areas
from penchant.evaluation.compared import Arm, Cell, Compared, Cost, Failure
from penchant.evaluation.evidence import RunEvidence
from penchant.files import LOCKS, cache_folder, fingerprint
from penchant.objectives.reader import read
from penchant.report.compare import command, render
from penchant.report.comparison_charts import courses
from penchant.run import Run, compare
from penchant.running.grid import points, read_grid, varied

ROWS = [
    {"prompt": f"what is it, cat {i // 2}?", "chosen": f"good happy yes {i}", "rejected": f"bad sad mat no {i}"}
    for i in range(40)
]
SHORT: dict[str, Any] = {"learning_rate": 1e-3, "held_out": 6, "batch": 8, "sample_prompts": 3, "limit": 6, "quiet": True}


# --- the grid


def test_a_grid_sets_fields_wherever_they_are_and_leaves_the_rest() -> None:
    grid = read_grid(["beta=0.1, 0.5", "SimPO.gamma=1,2", "learning_rate=1e-5"])
    assert grid == {"beta": (0.1, 0.5), "SimPO.gamma": (1, 2), "learning_rate": (1e-5,)}
    found = points([read("DPO() + 0.2 * NLL()"), read("Consensus(SimPO())"), read("ORPO()")], grid, Settings(), "pairs")
    assert [point.objective for point in found] == [
        "DPO(beta=0.1) + 0.2 * NLL()",
        "DPO(beta=0.5) + 0.2 * NLL()",
        *(f"Consensus(SimPO(beta={b}, gamma={g}), rate=0.1, start=0.9)" for b in (0.1, 0.5) for g in ("1.0", "2.0")),
        "ORPO()",
    ]
    assert [point.place for point in found] == [(0, 0), (1, 0), (0, 0, 0), (0, 1, 0), (1, 0, 0), (1, 1, 0), (0,)]
    assert all(point.settings == {"learning_rate": 1e-5} for point in found)
    assert len({point.folder for point in found}) == 7
    assert varied(read("ORPO()"), "beta", 1.0) is None


def test_a_pair_read_as_two_labelled_rows_makes_as_many_steps() -> None:
    dpo, kto = points([read("DPO()"), read("KTO()")], {}, Settings(batch=8), "pairs")
    assert (dpo.settings, kto.settings) == ({}, {"batch": 16})


@pytest.mark.parametrize(
    ("objectives", "grid", "said"),
    [
        (["DPO()"], ["gamma=1"], "grid gamma: none of DPO(beta=0.1) has such a field"),
        (["DPO()"], ["beta=-1"], "DPO(beta=-1): beta must lie in"),
        (["DPO()", "DPO(beta=0.1)"], [], "DPO(beta=0.1) would be trained twice"),
        (["DPO()", "ListMLE()"], [], "the data has pairs rows, but"),
        (["DPO()"], ["beta"], "write a name and its values"),
        (["DPO()"], ["beta=1", "beta=2"], "beta stands there twice"),
        (["DPO()"], ["beta=a"], "its values must be numbers"),
        (["DPO()"], ["learning_rate=-1"], "learning_rate=-1"),
    ],
)
def test_what_cannot_be_compared_is_refused_before_anything_trains(
    objectives: list[str], grid: list[str], said: str
) -> None:
    with pytest.raises(Refusal) as refused:
        points([read(one) for one in objectives], read_grid(grid), Settings(), "pairs")
    assert said in str(refused.value)


# --- real runs


def test_a_comparison_trains_alike_adds_what_is_asked_later_and_names_what_failed(
    tiny_folder: Path, tmp_path: Path
) -> None:
    output, model = tmp_path / "out", str(tiny_folder)
    asked: dict[str, Any] = {**SHORT, "output": output, "judge": "rules", "seeds": 1, "models": False}
    (dpo,) = compare(model, ROWS, ["DPO(beta=0.5)"], **asked).cells
    when = (output / dpo.folder / "evidence.json").stat().st_mtime_ns
    blocked = output / points([read("IPO()")], {}, Settings(), "pairs")[0].folder / "seed-0"
    blocked.mkdir(parents=True)
    (blocked / "mine.txt").write_text("not a run", encoding="utf-8")
    found = compare(model, ROWS, ["DPO(beta=0.5)", "IPO()", "KTO(beta=0.5)"], **asked)
    assert [cell.contender[:3] for cell in found.cells] == ["DPO", "KTO"]
    assert (output / dpo.folder / "evidence.json").stat().st_mtime_ns == when, "a finished run is not made again"
    (failure,) = found.failures
    assert failure.point.startswith("IPO") and "is not empty and holds no run of penchant" in failure.reason
    # the same held-out rows, the same number of steps, the same start
    dpo, kto = found.cells
    before = dpo.evidence.pairs_after
    assert before is not None and before.numbers and kto.evidence.pairs_after is not None
    assert before.numbers == kto.evidence.pairs_after.numbers
    assert {arm.steps for arm in found.arms} == {4}
    assert dpo.evidence.samples_before == kto.evidence.samples_before
    assert len(list((output / "start").rglob("*.json"))) == 1, "what the start answers is sampled once a seed"
    # an ordinary run, without what only a longer life would need
    opened = Run.open(output / dpo.folder)
    assert opened.evidence == dpo.evidence and not opened.model.exists()
    assert not (output / dpo.folder / "checkpoints").exists()
    against = dpo.evidence.samples_after
    assert against is not None and against.against_chosen is not None
    assert {x for row in against.against_chosen for x in row} <= {0.0, 0.5, 1.0}
    assert dpo.cost.cpu > 0 and dpo.cost.memory > 1e7
    page = (output / "compare.html").read_text(encoding="utf-8")
    assert "DPO(beta=0.5)" in page and "Judge&#39;s score" in page and "not empty" in page
    told = json.loads((output / "compare.json").read_text(encoding="utf-8"))
    assert told["by"] == "score" and len(told["rows"]) == 2 and told["differences"] and told["winner"] is None
    with pytest.raises(Refusal, match=r"holds another comparison .*batch: 8 there, 4 here"):
        compare(model, ROWS, ["DPO(beta=0.5)"], **{**asked, "batch": 4})


def test_a_folder_is_idle_when_its_process_is_done(tmp_path: Path) -> None:
    mine, other = RunFolder(tmp_path / "run"), RunFolder(tmp_path / "run")
    mine.claim({}, overwrite=False)
    assert not other.idle(0.1)
    mine.release()
    assert other.idle() and other.idle()


def test_two_processes_do_not_work_on_one_comparison(tiny_folder: Path, tmp_path: Path) -> None:
    asked = {**SHORT, "output": tmp_path / "out", "seeds": 1}
    lock = FileLock(cache_folder() / LOCKS / f"{fingerprint(str((tmp_path / 'out').resolve()), 'compare')}.lock")
    Path(lock.lock_file).parent.mkdir(parents=True, exist_ok=True)
    with lock, pytest.raises(Refusal, match="another process is at work on the comparison"):
        compare(str(tiny_folder), ROWS, ["DPO()"], **asked)


@pytest.mark.claims
def test_a_comparison_that_is_killed_takes_its_runs_along_and_goes_on(tiny_folder: Path, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    output = tmp_path / "out"
    words = ["--model", str(tiny_folder), "--data", str(rows), "--objective", "DPO()", "--output", str(output)]
    words += ["--seeds", "1", "--epochs", "400", "--sample-prompts", "0", "--held-out", "6", "--no-models"]
    process = subprocess.Popen(
        [sys.executable, "-m", "penchant", "compare", *words], env={**os.environ, "PYTHONPATH": "src"}
    )
    limit = time.monotonic() + 120
    while not (lines := list(output.rglob("metrics.jsonl"))) or lines[0].stat().st_size < 2000:
        assert time.monotonic() < limit and process.poll() is None
        time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.wait()
    # at once: the run that lost its comparison may still be saving
    found = compare(
        str(tiny_folder),
        rows,
        ["DPO()"],
        output=output,
        seeds=1,
        epochs=400,
        sample_prompts=0,
        held_out=6,
        models=False,
        quiet=True,
    )
    assert len(found.cells) == 1 and not found.failures
    log = next(output.rglob("seed-0.log")).read_text(encoding="utf-8")
    assert "going on from its last checkpoint" in log, "the run that lost its comparison saved a checkpoint"


# --- what it says


def cell(contender: str, seed: int, shift: float, **more: Any) -> Cell:
    """A run whose judge's scores are shifted."""
    base = example.offline(steps=6, held_out=20)
    assert base.samples_after is not None and base.samples_after.scores is not None
    jitter = lambda i, k: 0.01 * ((7 * i + 3 * k + 5 * seed + len(contender)) % 5)  # noqa: E731
    scores = [
        [None if s is None else s + shift + jitter(i, k) for k, s in enumerate(row)]
        for i, row in enumerate(base.samples_after.scores)
    ]
    evidence = dataclasses.replace(base, samples_after=dataclasses.replace(base.samples_after, scores=scores))
    given = {"place": (), "folder": f"{contender}/seed-{seed}", "evidence": evidence, "verdict": "learned", **more}
    return Cell(contender, more.pop("point", contender), seed=seed, cost=Cost(30.0, 40.0), **{**given, **more})


def runs(**shifts: float) -> tuple[Cell, ...]:
    return tuple(cell(f"{name}()", seed, shift) for name, shift in shifts.items() for seed in (0, 1, 2))


def test_a_winner_is_named_with_how_surely_and_at_what_price() -> None:
    found = Compared(runs(DPO=0.0, IPO=0.5, SimPO=0.1))
    assert found.winner == "IPO()" and headline(found) == "IPO is best"
    said = " ".join(answer(found))
    assert "surely above each of the other 2. The nearest is SimPO," in said and "over seeds" in said
    assert "The price of IPO:" in said and "30 CPU-seconds a run" in said
    assert equal_compute(found).startswith("Every run takes the same rows")


def test_the_area_won_is_reward_over_the_start_times_kl_below_the_largest() -> None:
    found = Compared(runs(DPO=0.0, IPO=0.5))
    told = areas(found)
    assert told is not None and list(told.by) == ["IPO()", "DPO()"]
    kl = {m.key: m for m in found.measures}["kl"]
    by_hand = []
    for one in found.cells[:3]:
        arm = Arm("DPO()", "DPO()", (), (one,))
        x, y = arm.readings(kl), arm.readings(told.measure)
        assert x is not None and y is not None
        by_hand.append(max(0.0, told.far - x.value) * max(0.0, y.value - told.least))
    assert told.by["DPO()"].value == pytest.approx(sum(by_hand) / 3) and told.by["DPO()"].n == 3
    assert "Area won" in render(found)


def test_equals_and_lost_contenders_leave_no_winner_and_the_reason_is_told() -> None:
    equal = Compared(runs(DPO=0.3, IPO=0.3))
    assert equal.winner is None and headline(equal) == "No winner"
    assert answer(equal)[0].startswith("DPO and IPO have the same judge's score, ")
    near = Compared(runs(DPO=0.001, LNDPO=0.0, SimPO=0.0))
    assert re.search(r"but is not surely above \w+ or \w+; the nearest is \w+, by \+0\.0", answer(near)[0])
    lost = Compared(runs(DPO=0.0, IPO=0.5), (Failure("KTO()", 0, "KTO/seed-0", "no memory"),))
    assert lost.winner is None and "KTO() did not finish" in answer(lost)[0]
    assert answer(lost)[0].endswith("Of the others, IPO has the highest judge's score, 1.35, surely above the rest.")
    alone = Compared(tuple(c for c in runs(DPO=0.0, IPO=0.9) if c.seed == 0))
    assert alone.winner is None and "one seed cannot tell" in answer(alone)[0]


def ranker(contender: str, seed: int, begun: list[float], ended: list[float]) -> Cell:
    """A run without judge whose implicit margins on held-out pairs were the first, and came to be the second."""
    base = example.offline(steps=6, held_out=20)
    pairs = base.pairs_after
    assert pairs is not None
    sides = [
        dataclasses.replace(pairs, reward_chosen=margins, reward_rejected=[0.0] * 20, ref_chosen=None, ref_rejected=None)
        for margins in (begun, ended)
    ]
    evidence = dataclasses.replace(
        base, pairs_before=sides[0], pairs_after=sides[1], samples_before=None, samples_after=None
    )
    return cell(contender, seed, 0.0, evidence=evidence)


def test_an_objective_is_not_best_by_how_its_start_already_ranked() -> None:
    ranks = [1.0] * 19 + [-1.0]
    still = [
        ranker("SimPO()", seed, ranks, [m * (1.1 if i % 2 else 0.9) for i, m in enumerate(ranks)]) for seed in (0, 1, 2)
    ]
    learns = [ranker("DPO()", seed, [0.0] * 20, [1.0] * 17 + [-1.0] * 3) for seed in (0, 1, 2)]
    found = Compared((*still, *learns))
    assert found.primary is not None and found.primary.key == "change"
    assert {name: r.value for name, r in found.judged.items()} == {"SimPO()": 0.45, "DPO()": 0.85}
    assert found.winner == "DPO()" and "their accuracies were 50 to 95 %" in answer(found)[1]
    assert Compared((*still, *learns), by="accuracy").winner != "DPO()"
    assert "before training 95.0 %" in render(found)
    alike = Compared((*learns, *(dataclasses.replace(c, contender="IPO()", point="IPO()") for c in learns)))
    assert (
        alike.primary is not None and alike.primary.key == "accuracy" and "Before training" not in " ".join(answer(alike))
    )


def test_reward_models_are_compared_without_log_probs() -> None:
    drawn = lambda seed: [1.0] * seed + [-1.0] * (20 - seed)  # noqa: E731  # what an untrained head says
    cells = [ranker(name, seed, drawn(seed), [1.0] * 20) for name in ("BT()", "PL()") for seed in (0, 1)]
    mute: dict[str, Any] = {"logp_chosen": [], "logp_rejected": []}
    silent = []
    for one in cells:
        pairs = [one.evidence.pairs_before, one.evidence.pairs_after]
        before, after = (dataclasses.replace(side, **mute) for side in pairs if side is not None)
        evidence = dataclasses.replace(one.evidence, pairs_before=before, pairs_after=after)
        silent.append(dataclasses.replace(one, evidence=evidence))
    assert {measure.key for measure in Compared(tuple(silent)).measures} == {"accuracy"}


def test_names_are_as_short_as_they_tell_apart_and_the_table_has_them_in_full() -> None:
    written = ("KTO(beta=0.1, desirable=1.0)", "DPO(beta=0.1)", "DPO(beta=0.5)")
    found = Compared(tuple(cell(name, seed, 0.0) for name in written for seed in (0, 1)))
    assert [found.called(name) for name in written] == ["KTO", "DPO(beta=0.1)", "DPO(beta=0.5)"]
    page = render(found)
    assert page.count("KTO(beta=0.1, desirable=1.0)") == 1 and "<strong>DPO(beta=0.5)</strong>" in page


def test_log_probs_in_training_are_shown_apart_from_the_rows_of_each_step() -> None:
    one, other = runs(DPO=0.0)[:2], runs(IPO=0.0)[:2]
    raised = []
    for c in other:
        lines = [{**x, "logp/chosen": x["logp/chosen"] + 0.5} if x["kind"] == "step" else x for x in c.evidence.history]
        raised.append(dataclasses.replace(c, evidence=dataclasses.replace(c.evidence, history=lines)))
    chart = next(c for c in courses(Compared((*one, *raised))) if "less the mean" in c.title)
    assert "DPO −0.25; IPO +0.25." in chart.said


def test_runs_that_were_not_measured_alike_are_not_compared() -> None:
    one, other = cell("DPO()", 0, 0.0), cell("IPO()", 0, 0.0)
    said = other.evidence.samples_after
    assert said is not None
    changed = dataclasses.replace(said, prompts=["another", *said.prompts[1:]])
    strange = dataclasses.replace(other, evidence=dataclasses.replace(other.evidence, samples_after=changed))
    with pytest.raises(ValueError, match="not measured on the same prompts"):
        Compared((one, strange))


def test_a_grid_is_one_contender_with_a_row_for_every_point() -> None:
    grid = [
        dataclasses.replace(cell("DPO()", seed, shift), point=f"DPO(beta={b})", place=(i,))
        for i, (b, shift) in enumerate([(0.1, 0.0), (0.5, 0.4), (1.0, 0.2)])
        for seed in (0, 1, 2)
    ]
    found = Compared((*grid, *runs(IPO=0.0)))
    assert found.contenders == ("DPO()", "IPO()") and len(found.arms) == 4
    assert found.best["DPO()"].point == "DPO(beta=0.5)" and found.winner == "DPO()"
    robust = found.robustness("DPO()")
    assert robust is not None and robust.slope is not None and robust.slope > 0 and found.robustness("IPO()") is None
    page = render(found)
    assert page.count("its best point</span>") == 1 and "How robust each is over its grid" in page


def test_the_page_shows_hostile_names_and_texts_as_text_and_the_command_makes_it_again() -> None:
    bad = "<script>alert(1)</script>\u202e"
    cells = tuple(dataclasses.replace(c, contender=bad + c.contender, point=bad + c.point) for c in runs(DPO=0.0, IPO=0.1))
    first = cells[0].evidence
    assert first.samples_after is not None
    said = dataclasses.replace(first.samples_after, texts=[[bad] * len(row) for row in first.samples_after.texts])
    cells = (dataclasses.replace(cells[0], evidence=dataclasses.replace(first, samples_after=said)), *cells[1:])
    asked = {"model": bad, "data": "d", "objectives": ["DPO()"], "grid": {"beta": [0.1]}, "output": "o", "batch": 4}
    found = Compared(cells, (Failure(bad, 0, bad, bad),), asked=asked)
    page = render(found)
    assert "<script" not in page and "\u202e" not in page and "alert(1)" in page
    assert "alert(1)" not in render(
        dataclasses.replace(found, cells=runs(DPO=0, IPO=1), failures=(), asked={}), samples=False
    )
    words = command(found)
    assert "--objective 'DPO()'" in words and "--grid beta=0.1" in words and "--batch 4" in words


def test_evidence_of_before_these_fields_is_still_read() -> None:
    told = example.offline(steps=6, held_out=20).to_json()
    for side in ("samples_before", "samples_after"):
        del told[side]["against_start"], told[side]["against_chosen"]
    found = RunEvidence.from_json(told)
    assert found.samples_after is not None and found.samples_after.against_chosen is None

"""The recipes on a real model start, with a tiny one in its place, and count what they say. What they show is a claim, and
claims are run by themselves."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from penchant.engine.settings import Settings
from penchant.feedback import open_source
from penchant.objectives import DPO
from penchant.objectives.reader import read
from penchant.objectives.scored import Lists, Pairs, Scored
from penchant.running.grid import points
from tiny import tiny_model

Recipe = Callable[[str], ModuleType]

PAIRS: list[dict[str, Any]] = [
    {"prompt": f"what is it, cat {i // 2}?", "chosen": f"the good cat {i}", "rejected": f"bad mat {i} please"}
    for i in range(24)
]
LISTS: list[dict[str, Any]] = [
    {
        "prompt": f"cat {i}?",
        "responses": [f"yes {i}", f"no {i} thank you", "the mat", "a day"][: 3 + i % 2],
        "scores": scores,
    }
    for i in range(24)
    for scores in ([1.0, 0.0, 0.0, 1.0][: 3 + i % 2],)
]


@pytest.fixture
def deep(tmp_path: Path) -> Path:
    """A tiny model with more than the six layers that these recipes train."""
    return tiny_model(tmp_path / "deep", num_hidden_layers=7)


def test_the_length_recipe_starts(recipe: Recipe, tiny_folder: Path, tmp_path: Path) -> None:
    module, bench = recipe("length"), recipe("short_runs").Bench(str(tiny_folder), layers=1, max_length=256)
    found = module.on_pairs(bench, tmp_path, rows=PAIRS, train=6, held_out=4, seeds=(0, 1))
    assert list(found.runs) == ["DPO", "LNDPO"] and len((tmp_path / "pairs.jsonl").read_text().splitlines()) == 4
    found = module.on_answers(bench, tmp_path, rows=PAIRS, train=8, held_out=4, count=1, limit=4, seeds=(0,))
    assert all(0 < found.values(arm, "length")[0] <= 4 for arm in found.runs)


def test_what_pairs_say_of_length_is_read_from_ends_and_ratios(recipe: Recipe) -> None:
    logp = torch.tensor([[1.0, 2.0, 4.0], [0.5, -1.0, 0.0]])
    mask = torch.tensor([[True, True, True], [True, True, False]])
    y = Scored(logp, mask, torch.zeros(2, 3))
    found = recipe("length").seen(DPO(), Pairs(y, y.take(torch.tensor([1, 0]))))  # longer wins, then shorter
    assert (found["accuracy"], found["where longer won"], found["where shorter won"]) == (0.5, 1.0, 0.0)
    assert found["end"] == 1.5 and found["other tokens"] == pytest.approx(3.5 / 3) and found["r with length"] > 0.99


def test_the_displacement_recipe_starts_and_an_imitation_term_lifts_the_chosen(
    recipe: Recipe, deep: Path, tmp_path: Path
) -> None:
    rows = [{**row, "prompt": f"{row['prompt']} {i}"} for i, row in enumerate(PAIRS)]
    sizes = {"train": 16, "held_out": 8, "seeds": (0,)}
    found = recipe("displacement").displacement(str(deep), str(tmp_path), rows=rows, **sizes)
    lifted = [found.values(arm, "trained chosen")[0] for arm in ("DPO", "eta=0.5", "eta=5")]
    assert lifted == sorted(lifted)


def test_the_flipped_labels_recipe_starts(recipe: Recipe, tiny_folder: Path, tmp_path: Path) -> None:
    module, folder = recipe("flipped_labels"), tmp_path
    bench = recipe("short_runs").Bench(str(tiny_folder), layers=1, max_length=256)
    sizes = {"train": 16, "held_out": 6, "seeds": (0,)}
    synthetic = module.synthetic(bench, folder, rows=PAIRS, **sizes)
    each = [{**row, "annotator": f"annotator{k}"} for row in PAIRS for k in (1, 2, 3)]
    people = module.people(bench, folder, rows=each, **sizes)
    assert list(synthetic) == [0.2, 0.4] and list(people) == list(module.PEOPLE)
    kept = json.loads((folder / "synthetic-0.2.jsonl").read_text().splitlines()[-1])
    assert kept["arm"] == "Consensus(DPO)" and 0.5 < kept["figures"]["annotator1"] < 1


def test_verdicts_are_flipped_at_their_annotators_rate(recipe: Recipe) -> None:
    module = recipe("flipped_labels")
    row = {"prompt": "?", "chosen": "a", "rejected": "b", "annotator": "x"}
    assert module.wrong([row, row, {**row, "chosen": "b", "rejected": "a"}], {"x": 0.0}) == pytest.approx(1 / 3)
    assert module.wrong([row], {"x": 0.4}) == pytest.approx(0.4)
    assert module.agreed([row, {**row, "chosen": "b", "rejected": "a"}]) is None


def test_the_graded_solutions_recipe_starts(recipe: Recipe, deep: Path, tmp_path: Path) -> None:
    module = recipe("graded_solutions")
    found = module.graded_solutions(str(deep), str(tmp_path), rows=LISTS, train=16, held_out=8, seeds=(0,))
    assert list(found.runs) == list(module.ARMS)
    assert all(0 <= found.values(arm, "pairs")[0] <= 1 for arm in found.runs)


def test_graded_lists_are_ranked_by_what_training_did(recipe: Recipe) -> None:
    logp = torch.tensor([[-1.0], [-2.0], [-3.0], [-1.0], [-5.0]])
    y = Scored(logp, torch.ones(5, 1, dtype=torch.bool), torch.tensor([[-2.0], [-2.0], [-2.0], [-1.0], [-4.0]]))
    lists = Lists(y, torch.tensor([0, 0, 0, 1, 1]), torch.tensor([0.0, 1.0, 0.0, 1.0, 0.0]))
    found = recipe("graded_solutions").ranked(lists)  # ratios: 1, 0, −1 and 0, −1
    assert found["pairs"] == pytest.approx(2 / 3) and found["top-1"] == 0.5
    assert found["chance"] == pytest.approx((1 / 3 + 1 / 2) / 2) and found["right"] == 0.0


def test_the_comparison_recipe_picks_short_rows_and_asks_for_what_can_be_compared(
    recipe: Recipe, shared_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, asked = recipe("compare_six"), {}
    monkeypatch.setattr(recipe("data"), "HOME", shared_data)

    def compare(model: str, rows: Any, objectives: Any, *, output: str, seeds: int, models: bool, **settings: Any) -> None:
        asked["rows"], asked["samples"] = rows, settings["report_samples"]
        asked["points"] = points([read(one) for one in objectives], {}, Settings.of(settings), open_source(rows).kind)

    monkeypatch.setattr(module, "compare", compare)  # which starts a process for each run, and is tested for itself
    module.compare_six()
    assert len(asked["rows"]) == 240 and len(asked["points"]) == 6 and asked["samples"] is False
    size = lambda row, side: len(json.dumps(row["prompt"])) + len(json.dumps(row[side]))  # noqa: E731
    assert 400 < max(size(row, side) for row in asked["rows"] for side in ("chosen", "rejected")) <= 430


def test_the_contest_of_reward_models_starts_with_the_same_pairs_for_both_and_the_rate_hangs_on_none_of_the_tests(
    recipe: Recipe, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = recipe("dporm_vs_exrm")
    tests = {"ID": PAIRS[12:16], "shifted": PAIRS[16:20], "far": PAIRS[20:]}
    monkeypatch.setitem(module.SOURCES, "templates", (lambda: (PAIRS[:10], PAIRS[10:12], tests), 8))
    found = module.contest("templates", (0, 1), str(tiny_folder), 1, tmp_path)
    shifted = [[found.values(arm, name) for name in ("ID", "shifted", "far")] for arm in ("EXRM", "DPORM")]
    for arm, (own, *others) in zip(("EXRM", "DPORM"), shifted, strict=True):
        drops = [[a - b for a, b in zip(own, other, strict=True)] for other in others]
        assert found.values(arm, "worst drop") == pytest.approx([max(x) for x in zip(*drops, strict=True)])
        assert found.values(arm, "mean drop") == pytest.approx([sum(x) / 2 for x in zip(*drops, strict=True)])
    turned = {
        name: [{**row, "chosen": row["rejected"], "rejected": row["chosen"]} for row in rows]
        for name, rows in tests.items()
    }
    monkeypatch.setitem(module.SOURCES, "templates", (lambda: (PAIRS[:10], PAIRS[10:12], turned), 8))
    again = module.contest("templates", (0, 1), str(tiny_folder), 1, tmp_path / "turned")
    assert all(again.values(arm, "rate") == found.values(arm, "rate") for arm in ("EXRM", "DPORM"))


def test_a_policy_that_is_its_reference_ties_on_every_pair(recipe: Recipe, tiny_folder: Path) -> None:
    module, short_runs = recipe("dporm_vs_exrm"), recipe("short_runs")
    bench = short_runs.Bench(str(tiny_folder), layers=1, max_length=160)
    rows = bench.encode(PAIRS[:6])
    bench.reference(rows)
    assert module.right("DPORM", bench, rows)["ties"] == 1 and module.right("DPORM", bench, rows)["half"] == 0.5

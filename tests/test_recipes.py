"""Recipes: the adapters of public data count what they say, and every recipe starts. What they show is a claim, and
claims are run by themselves."""

from __future__ import annotations

import ast
import importlib
import math
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch

from penchant.feedback import open_source
from penchant.objectives import KTO

RECIPES = Path(__file__).resolve().parents[1] / "recipes"


@pytest.fixture
def data(monkeypatch: pytest.MonkeyPatch, shared_data: Path) -> ModuleType:
    """recipes/data.py, reading the folder of real data."""
    monkeypatch.syspath_prepend(str(RECIPES))
    module = importlib.import_module("data")
    monkeypatch.setattr(module, "HOME", shared_data)
    return module


def test_every_public_set_gives_the_rows_it_says(data: ModuleType) -> None:
    counts = {name: len(rows()) for name, rows in data.SETS.items()}
    assert counts == {
        "hh_harmless": 1800,
        "pandalm, majority": 842,
        "pandalm, unanimous": 744,
        "pandalm, each person": 2515,
        "finegrained_rlhf": 2616,
        "persona, agreeableness": 500,
        "truthfulqa": 1637,
        "gsm8k, mixed": 353,
        "gsm8k, all": 660,
    }


def test_the_rows_of_every_set_are_feedback(data: ModuleType) -> None:
    for name, rows in data.SETS.items():
        source = open_source(rows(), bad_rows="drop")
        unreadable = {"several turns": 5, "empty completion": 2} if name == "hh_harmless" else {}
        kind = "lists" if name.startswith("gsm8k") else "pairs"
        assert source.kind == kind and source.dropped == unreadable, name


def test_the_three_peoples_votes_make_the_majority(data: ModuleType) -> None:
    unanimous, majority, each = (data.pandalm(how) for how in ("unanimous", "majority", "each"))
    strengths = Counter(round(6 * row["strength"]) for row in majority)
    assert set(strengths) == {6, 5, 4} and strengths[6] == len(unanimous)  # a tied vote is half a vote for either
    assert all(row["strength"] == 1 for row in unanimous)
    assert {row["annotator"] for row in each} == {"annotator1", "annotator2", "annotator3"}
    votes = Counter((row["prompt"], row["chosen"], row["rejected"]) for row in each)
    assert all(votes[row["prompt"], row["chosen"], row["rejected"]] >= 2 for row in majority)


def test_every_persona_pair_has_a_prompt_of_its_own(data: ModuleType) -> None:
    rows = data.persona("agreeableness")
    assert len({row["prompt"] for row in rows}) == len(rows) == 500
    assert len({row["chosen"] for row in rows} & {row["rejected"] for row in rows}) == 0


def test_a_list_of_graded_solutions_has_right_and_wrong_ones_without_the_calculators_notes(data: ModuleType) -> None:
    everything, mixed = data.gsm8k("all"), data.gsm8k()
    assert all(set(row["scores"]) == {0.0, 1.0} for row in mixed)
    assert [row for row in everything if len(set(row["scores"])) == 2] == mixed
    assert Counter(len(row["responses"]) for row in everything) == {4: 656, 3: 4}
    assert sum("<<" in text for row in everything for text in row["responses"]) == 4


def test_absent_data_skips_a_recipe_with_the_reason() -> None:
    away = {**os.environ, "PENCHANT_DATA": "/nowhere"}
    run = subprocess.run([sys.executable, RECIPES / "data.py"], capture_output=True, text=True, env=away, timeout=60)
    assert run.returncode == 0
    assert run.stdout.startswith("skipped: there is no /nowhere/hh_rlhf_harmless/pairs.jsonl.gz; set PENCHANT_DATA")


@pytest.mark.claims
def test_the_docs_show_what_the_diagnosis_says_of_public_data(
    data: ModuleType, recipe: Callable[[str], ModuleType]
) -> None:
    page = (RECIPES.parent / "docs" / "diagnosis.md").read_text(encoding="utf-8")
    assert [row for row in recipe("public_diagnosis").table() if row not in page] == []


TOOLS = {
    "bandits",
    "data",
    "delivery",
    "demo",
    "finite",
    "pictures",
    "public_diagnosis",
    "replay",
    "shared",
    "short_runs",
    "study",
}
"""What is no claim in recipes/: the demo, and what the recipes share."""
RECIPES_WITH_CLAIMS = sorted(path.stem for path in RECIPES.glob("*.py") if path.stem not in TOOLS)


@pytest.mark.parametrize("name", RECIPES_WITH_CLAIMS)
def test_a_recipe_opens_with_its_claim_its_source_and_what_it_showed(name: str) -> None:
    said = ast.get_docstring(ast.parse((RECIPES / f"{name}.py").read_text(encoding="utf-8"))) or ""
    for word in ("Claim ", "Source ", "Run ", "Budget: ", "Showed ", f"python recipes/{name}.py"):
        assert word in said, f"{name} does not say its {word.strip()!r}"


def test_the_recipes_on_lists_tell_a_right_ranking_from_a_wrong_one_in_a_short_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(RECIPES))
    lipo, pro = importlib.import_module("lipo"), importlib.import_module("pro")
    monkeypatch.setattr(lipo, "STEPS", 10)
    monkeypatch.setattr(pro, "STEPS", 10)
    assert lipo.run(lipo.LOSSES["LiPO"], 4, lipo.FEATURES, 0)["won"] > 0.5  # an average response wins 0, the best 1
    untrained = 0.0  # what responses are worth on average
    assert pro.run(pro.read("PRO()"), 3, 0)["worth"] > untrained + 0.2


def test_the_recipes_on_games_start_and_say_what_their_claims_read(recipe: Callable[[str], ModuleType]) -> None:
    resting, last = recipe("nash").rest(seeds=(0,)), recipe("nash").plain(seeds=(0,), rounds=20)
    assert resting.values("IPO, its own", "KL to Nash")[0] < 1e-4 < resting.values("IPO, fixed set", "KL to Nash")[0]
    assert last.values("ONPO", "gap")[0] < last.values("mirror steps", "gap")[0]
    copg = recipe("copg")
    assert abs(copg.regret(copg.optimum())) < 1e-6 < copg.regret(copg.fresh())


def test_the_protocol_over_grids_tells_a_method_by_all_of_its_points(
    recipe: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    module = recipe("po_protocol")
    monkeypatch.setattr(module, "GRID", {"DPO": ["DPO(beta=0.1)", "DPO(beta=5)"], "LNDPO": ["LNDPO(beta=1)"]})
    found = module.po_protocol(seeds=(0,), steps=15)
    near, far = (found.values(f"DPO(beta={b})", "KL")[0] for b in (5, 0.1))
    assert 0 < near < far and 0.5 < found.values("DPO(beta=0.1)", "wins, start")[0] < 1
    grid = module.over_grid(found, "worth")
    low, high = sorted(found.values(f"DPO(beta={b})", "worth")[0] for b in (5, 0.1))
    assert grid["DPO"]["best"] == [high] and grid["DPO"]["range"][0] == pytest.approx((high - low) / 2)
    assert grid["LNDPO"]["range"] == [0.0]


def test_length_alone_wins_the_plain_rate_only_and_heavy_noise_turns_the_best_of_n(
    recipe: Callable[[str], ModuleType],
) -> None:
    module = recipe("length_controlled")
    found = module.wins(seeds=3, prompts=300)
    longer = found.estimate("longer", "win rate").value, found.estimate("longer", "length-controlled").value
    assert longer[0] > 56 > 54 > longer[1] and found.estimate("better", "length-controlled").value > 57
    best = module.best_of_n(seeds=2, questions=40, samples=1024)
    assert min(best.values("heavy", "fall from the peak")) > 0.2 and best.values("light", "fall from the peak") == [0, 0]


def test_an_objective_that_reads_mismatched_responses_learns_from_a_finite_set(
    recipe: Callable[[str], ModuleType],
) -> None:
    finite = recipe("finite")
    policy = finite.Policy(torch.zeros(8, 3))
    prompt = torch.arange(8).repeat(2)
    rows = finite.labelled(prompt, torch.tensor([0] * 8 + [2] * 8), torch.tensor([True] * 8 + [False] * 8))
    state = finite.train(policy, KTO(beta=0.5), rows, steps=30)
    likely = policy.probabilities()
    assert bool((likely[:, 0] > 0.6).all()) and bool((likely[:, 2] < 0.1).all())
    # half of the mismatched responses are liked by now and half are not: z0 is the mean of both, or 0 where that is below
    assert float(state["z0"]) == pytest.approx(
        max(0.0, float((likely[:, [0, 2]].log() - math.log(1 / 3)).mean())), abs=0.05
    )


def test_the_starting_points_begin_where_they_say(
    recipe: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    module = recipe("starting_points")
    monkeypatch.setattr(module, "LOSSES", {"KTO": module.LOSSES["KTO"]})
    found = module.starting_points("good", seeds=(0,), sizes=(32,), rate=0.02)
    assert list(found.runs) == ["base, KTO", "imitation, KTO", "instruct, KTO"]
    begun = [found.values(arm, "before")[0] for arm in found.runs]
    assert begun == sorted(begun) and begun[0] < 0.5 < begun[1]
    # of the pairs each set holds the smaller one, and KTO reads each pair as two responses
    here = module.World(0, "any")
    few, many = (here.rows(n, "DPO")[0] for n in (32, 64))
    assert many.select(list(range(32))).keys == few.keys
    single, batch = here.rows(32, "KTO")
    assert len(single) == 64 and batch == 2 * module.BATCH and int(single.columns["label"].sum()) == 32

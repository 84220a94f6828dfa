"""The recipes of the measuring instruments start, and in a short run what they read comes out as it must. What they show is a
claim, and claims are run by themselves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from penchant.objectives import DPO
from tiny import tiny_model

Recipe = Callable[[str], ModuleType]


def test_the_arms_of_ranking_accuracy_begin_alike_and_learn(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    module = recipe("ranking_accuracy")
    first, other = list(module.ARMS)[:2]
    monkeypatch.setattr(module, "ARMS", {name: module.ARMS[name] for name in (first, other)})
    rows = [
        {"prompt": f"what is it, cat {i}?", "chosen": f"the good cat {i}", "rejected": f"bad mat {i} please"}
        for i in range(24)
    ]
    deep = str(tiny_model(tmp_path / "deep", num_hidden_layers=7))
    found = module.ranking_accuracy(deep, str(tmp_path / "out"), rows=rows, train=16, held_out=8, seeds=(0,))
    begun = [found.values(name, "unseen R before")[0] for name in (first, other)]
    assert begun[0] == begun[1] and begun[0] * 8 == round(begun[0] * 8)
    assert found.values(first, "trained implicit")[0] > 0.5


def test_the_likelihood_monitor_looks_at_what_was_not_learned_from(recipe: Recipe, monkeypatch: pytest.MonkeyPatch):
    module = recipe("likelihood_monitor")
    monkeypatch.setattr(module, "STEPS", 24)
    found = module.run(DPO(beta=0.1), 0)
    assert found["utility at its best"] >= max(found["utility at the start"], found["utility at the end"])
    assert found["utility at the end"] > found["utility at the start"] and 0 <= found["step of the best"] <= 24
    assert found["alarm"] in (0.0, 1.0)


def test_the_planted_factors_are_the_largest_of_their_profiles(recipe: Recipe, monkeypatch: pytest.MonkeyPatch):
    module = recipe("profile_factors")
    monkeypatch.setattr(module, "PAIRS", 80)
    found = module.run(0)
    assert found["A: largest is length"] == found["B: largest is keyword"] == 1.0
    assert found["policy τ(keyword) after"] > found["policy τ(keyword) before"] + 0.1


def test_pairs_with_a_value_gap_move_the_stance_and_pairs_without_one_hardly(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch
):
    module = recipe("value_drift")
    monkeypatch.setattr(module, "LOOKS", 3)
    monkeypatch.setattr(module, "TOPICS", 2)
    monkeypatch.setattr(module, "PROMPTS", 2 * module.EACH)
    gap, none = (module.run(DPO(beta=0.1), kind, 0) for kind in ("stance", "style"))
    assert (gap["value gap, support"], none["value gap, support"]) == (1.0, 0.0)
    assert gap["M(support)"] > max(0.1, 2 * abs(none["M(support)"])) and 0 < gap["η(support)"] <= 1

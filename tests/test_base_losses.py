"""The recipes on the base losses, tried out: where margins come to rest, and pairs that differ in one word. What they show
whole is in tests/claims."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest


def test_every_arm_of_the_margins_study_learns_and_two_are_at_rest_soon(recipe: Any) -> None:
    module = recipe("base_losses")
    found = module.base_losses(seeds=(0,), steps=60)
    assert list(found.runs) == list(module.ARMS)
    assert all(run["at half time"] > 1 for runs in found.runs.values() for run in runs)
    assert found.values("IPO, tau 0.25", "at the end") == pytest.approx([2.0], abs=0.05)
    assert found.values("IPO, tau 0.1", "at the end") == pytest.approx([5.0], abs=0.2)


def test_near_duplicates_differ_in_one_word_that_holds_a_number(
    recipe: Any, monkeypatch: pytest.MonkeyPatch, shared_data: Path
) -> None:
    monkeypatch.setattr(recipe("data"), "HOME", shared_data)
    rows = recipe("near_duplicates").near_duplicates()
    assert len(rows) == len({row["prompt"] for row in rows}) == 64
    for row in rows:
        words = zip(row["chosen"].split(), row["rejected"].split(), strict=True)
        (changed,) = [(a, b) for a, b in words if a != b]
        assert any(letter.isdigit() for letter in changed[0]), row

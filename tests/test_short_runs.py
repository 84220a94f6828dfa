"""Short runs from one start: every run starts alike and no prompt is on both sides. What the recipes show with them stands in
their own tests, and what is read below the layers that train, in test_trunk.py."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from penchant.objectives import DPO

Recipe = Callable[[str], ModuleType]

PAIRS: list[dict[str, Any]] = [
    {"prompt": f"what is it, cat {i // 2}?", "chosen": f"the good cat {i}", "rejected": f"bad mat {i} please"}
    for i in range(24)
]


@pytest.fixture
def bench(recipe: Recipe, tiny_folder: Path) -> Any:
    return recipe("short_runs").Bench(str(tiny_folder), layers=1, max_length=256)


def test_a_run_starts_from_the_start_whatever_ran_before(bench: Any) -> None:
    rows = bench.encode(PAIRS)
    figures = []
    for _ in range(2):
        bench.train(DPO(beta=0.5), rows, learning_rate=3e-3, seed=1)
        pairs = bench.pairs(rows)
        figures.append(float((pairs.w.ratio - pairs.l.ratio).mean()))
    assert figures[0] == figures[1] > 0.5
    bench.policy.load_state(bench.start)
    assert float(bench.pairs(rows).w.ratio.abs().max()) <= 0.05


def test_a_prompt_is_on_one_side_only(recipe: Recipe, bench: Any) -> None:
    learn, judge = recipe("short_runs").split(bench.encode(PAIRS), 5, seed=3, most=10)
    sides = [{tuple(context.tolist()) for context in rows.contexts} for rows in (learn, judge)]
    assert not sides[0] & sides[1] and len(learn) == 10 and 5 <= len(judge) <= 6


def test_an_answer_kept_no_wider_than_asked_says_whether_it_ended(bench: Any) -> None:
    found = bench.answers(["cat?", "mat?"], 3, 4, 0)
    assert found.scored.length.tolist() == [float(n) for n in found.scored.mask.sum(-1)] and len(found.ended) == 6
    assert bool((found.scored.length[~found.ended] == 4).all())

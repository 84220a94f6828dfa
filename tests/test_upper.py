"""Short runs on a model's upper layers: the fast reading says what the plain one says, every run starts alike and no
prompt is on both sides. What the recipes show with it stands in their own tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from penchant.domains.models import load
from penchant.feedback import open_source
from penchant.objectives import DPO

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
def bench(recipe: Recipe, tiny_folder: Path) -> Any:
    return recipe("upper").Bench(str(tiny_folder), layers=1, max_length=256)


def test_the_upper_layers_say_and_learn_what_the_whole_model_does(recipe: Recipe, tiny_folder: Path) -> None:
    loaded = load(tiny_folder)
    rows = loaded.domain.encode(open_source(LISTS))
    plain = loaded.domain.score(loaded.policy, rows).logp
    weights = [p for name, p in loaded.policy.named_parameters() if "layers.1." in name or "model.norm" in name]
    slopes = torch.autograd.grad(plain.square().sum(), weights)

    upper = recipe("upper").Upper(loaded.policy, 1)
    for _ in ("read", "looked up"):
        fast = loaded.domain.score(upper, rows).logp
        torch.testing.assert_close(fast, plain, atol=1e-5, rtol=1e-5)
        assert [p is w for (_, p), w in zip(upper.named_trainable(), weights, strict=True)] == [True] * len(weights)
        found = torch.autograd.grad(fast.square().sum(), weights)
        torch.testing.assert_close(found, slopes, atol=1e-3, rtol=1e-4)


def test_responses_to_one_prompt_do_not_see_each_other(recipe: Recipe, tiny_folder: Path) -> None:
    loaded = load(tiny_folder)
    rows = loaded.domain.encode(open_source(LISTS[:1]))
    together, alone = (recipe("upper").Upper(loaded.policy, 1) for _ in range(2))
    every = together(rows.contexts, rows.responses)["logp"]
    for k, answer in enumerate(rows.responses[0]):
        torch.testing.assert_close(
            alone(rows.contexts, [[answer]])["logp"][0], every[k, : len(answer)], atol=1e-5, rtol=1e-5
        )


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
    learn, judge = recipe("upper").split(bench.encode(PAIRS), 5, seed=3, most=10)
    sides = [{tuple(context.tolist()) for context in rows.contexts} for rows in (learn, judge)]
    assert not sides[0] & sides[1] and len(learn) == 10 and 5 <= len(judge) <= 6


def test_an_answer_kept_no_wider_than_asked_says_whether_it_ended(bench: Any) -> None:
    found = bench.answers(["cat?", "mat?"], 3, 4, 0)
    assert found.scored.length.tolist() == [float(n) for n in found.scored.mask.sum(-1)] and len(found.ended) == 6
    assert bool((found.scored.length[~found.ended] == 4).all())

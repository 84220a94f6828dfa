"""The recipes on pictures: a short run, and what it must show at once."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch

pytest.importorskip("diffusers", reason="the extra `diffusion` is not installed")

from penchant.objectives import Labelled, Pairs, read


@cache
def begun(bench: Any) -> Any:
    """A model that has hardly learned; nobody may change it."""
    return bench.started(seed=0, steps=12)


def test_preferences_for_ink_bring_ink_and_the_guard_knows_digits(recipe: Any) -> None:
    bench = recipe("pictures")
    pixels, labels = bench.digits()
    assert float((bench.guard()(pixels) == labels).float().mean()) > 0.99
    assert bench.guard()(torch.full((1, 1, 8, 8), -1.0)).shape == (1,)
    policy = begun(bench)
    pairs, labelled = (bench.preferences(policy, 40, 0, kind) for kind in (Pairs, Labelled))
    chosen, rejected = (torch.cat([row[i] for row in pairs.responses]) for i in (0, 1))
    assert bool((bench.brightness(chosen) >= bench.brightness(rejected)).all()) and len(pairs) == 40
    assert torch.equal(torch.cat([row[0] for row in labelled.responses])[::2], chosen)
    before = {name: x.clone() for name, x in policy.state().items()}
    after = bench.aligned(policy, read("MaPO(beta=0.1)"), pairs, kappa=1.0, rate=5e-4, steps=8, seed=0)
    assert all(torch.equal(x, before[name]) for name, x in policy.state().items()), "the start stays as it is"
    assert bench.looked_at(after, each=4)["ink"] > bench.looked_at(policy, each=4)["ink"]


def test_the_arms_are_in_the_scale_of_the_papers(recipe: Any) -> None:
    arms = recipe("picture_preferences").ARMS
    code = {arm: getattr(read(written), "beta", 0.0) * kappa for arm, (written, kappa) in arms.items()}
    assert code["DPO, 1000"] * 2 == pytest.approx(1000) and code["DPO, 20"] * 2 == pytest.approx(20)
    assert code["KTO, 1000"] == pytest.approx(1000)
    assert read(arms["imitation"][0]) == read("MaPO(beta=0)")


def test_a_policy_gradient_and_dpo_learn_from_chains_of_one_kind(recipe: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    module, bench = recipe("flow_grpo"), recipe("pictures")
    policy = begun(bench)
    monkeypatch.setattr(module, "EACH", 2)
    monkeypatch.setattr(module, "WALK", module.Walk(3, 0.7))
    monkeypatch.setattr(module, "start", lambda seed, learned: (policy, bench.looked_at(policy, each=2)))
    monkeypatch.setattr(module, "looked_at", lambda policy: bench.looked_at(policy, each=2))
    for arm in module.ARMS:
        assert module.run(arm, 0, rounds=2, rate=1e-3)["ink, change"] > 0, arm
    assert sorted(digit for half in module.halves(3) for digit in half) == list(range(10))

"""The recipes on policies: a short run, and what it must show at once."""

from __future__ import annotations

from typing import Any

import pytest
import torch

pytest.importorskip("metaworld", reason="needs the extra embodied")


def test_a_round_prefers_better_episodes_of_the_same_start_and_trains_on_them(
    recipe: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    grape = recipe("grape")
    monkeypatch.setattr(grape, "LIMIT", 6)
    from penchant.domains.policy import worlds
    from penchant.domains.policy.demo import TASK, imitating, scripted
    from penchant.domains.policy.domain import Behaviour
    from penchant.domains.policy.rollouts import Stage

    policy = imitating(scripted(TASK, 1, 6, 0.5), TASK, steps=2, hidden=(8,))
    domain = Behaviour(policy, stage=Stage(worlds.make, at_once=1))
    rows = grape.preferred("whole", policy, domain, [3, 4], 2, seed=1)
    assert len(rows) == 2
    for context, (better, worse) in zip(rows.contexts, rows.responses, strict=True):
        assert torch.equal(better[0, :39], worse[0, :39]) and context.tolist()[1] in (3, 4)
    single = grape.windows(rows, 1)
    assert len(single) == 12 and all(len(y) == 1 for ys in single.responses for y in ys)
    before = {name: x.clone() for name, x in policy.state().items()}
    grape.learned(policy, domain, rows, seed=0, passes=1, batch=2)
    assert any(not torch.equal(x, before[name]) for name, x in policy.state().items())

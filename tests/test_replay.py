"""Online is offline and a sampler: the stream of an on-policy run, read again in order by the loop that trains on files, gives
the weights the run came to; mixed, it does not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from penchant import DPO, IPO, align
from penchant.domains.text.models import load
from penchant.engine import checkpoint
from penchant.engine.settings import Settings
from penchant.errors import Refusal
from penchant.objectives import INPO
from penchant.rewards import FunctionJudge

PROMPTS = [{"prompt": said} for said in ("is it good", "the cat sat on the mat, and the dog is happy", "a", "what is it")]
HOW: dict[str, Any] = {"learning_rate": 3e-3, "batch": 2, "limit": 5, "samples": 3, "precision": "fp32", "rounds": 3}


@pytest.fixture
def replay(recipe: Callable[[str], ModuleType]) -> ModuleType:
    return recipe("replay")


def test_a_stream_is_mixed_within_blocks_of_the_share_it_is_told(replay: ModuleType) -> None:
    assert replay.order(7, 0.0, 3) == list(range(7))
    whole = replay.order(100, 1.0, 3)
    assert sorted(whole) == list(range(100)) and sum(i != k for k, i in enumerate(whole)) > 80
    some = replay.order(103, 0.1, 3)
    assert sorted(some) == list(range(103)) and some != list(range(103))
    assert all(k // 10 == i // 10 for k, i in enumerate(some))
    with pytest.raises(Refusal, match=r"share=1\.5"):
        replay.order(10, 1.5, 0)


def test_a_run_replayed_in_order_through_the_offline_loop_ends_at_its_weights(
    replay: ModuleType, tiny_folder: Path, tmp_path: Path
) -> None:
    online = tmp_path / "online"
    judge = FunctionJudge(lambda prompt, response: float(sum(map(ord, response)) % 17), name="sum")
    objective, settings = IPO(tau=0.1, average=False), Settings(**HOW)
    align(str(tiny_folder), PROMPTS, objective, output=online, judge=judge, sample_prompts=0, held_out=1, **HOW)
    found = checkpoint.latest(online / "checkpoints")
    assert found is not None
    ended = load_file(found / "policy.safetensors")
    start = {name: x.clone() for name, x in load(str(tiny_folder)).policy.state().items()}
    assert replay.apart(ended, start) > 1e-3

    ids = replay.recorded(online, load(str(tiny_folder)).domain, "ids")
    assert len(ids) == 3 and all(len(some) > 0 for some in ids)
    again = replay.replayed(online, str(tiny_folder), objective, settings, tmp_path / "again")
    assert replay.apart(again, ended) <= 1e-6

    # the file of texts holds as many pairs, but a random model's texts rarely give the sampled ids again: another run
    text = replay.recorded(online, load(str(tiny_folder)).domain, "text")
    assert [len(some) for some in text] == [len(some) for some in ids] and replay.alike(ids, ids) == 1 > replay.alike(
        ids, text
    )
    from_text = replay.replayed(online, str(tiny_folder), objective, settings, tmp_path / "text", text)
    assert replay.apart(from_text, ended) > 1e-5

    # the rounds in another order are another run
    turned = replay.replayed(online, str(tiny_folder), objective, settings, tmp_path / "turned", ids[::-1])
    assert replay.apart(turned, ended) > 1e-5


def test_an_objective_held_against_each_rounds_start_cannot_be_replayed_from_pairs(
    replay: ModuleType, tiny_folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(Refusal, match="held against more than the run's start"):
        replay.replayed(tmp_path, str(tiny_folder), INPO(), Settings(**HOW), tmp_path / "again")
    one = {"w": torch.zeros(2)}
    assert replay.apart(one, {"w": torch.tensor([0.0, -2.0])}) == 2
    with pytest.raises(Refusal, match="other weights"):
        replay.apart(one, {"v": torch.zeros(2)})
    assert DPO().needs.anchors == {"ref"}

"""Only the upper layers train: what is computed once below them changes no number, is kept and found again, and what cannot
be split is refused. How fast that is stands in benchmarks/trunk.py."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from architectures import SIZE, TOKENIZER, built
from penchant.domains.base import Want
from penchant.domains.text.models import LoRA, load
from penchant.domains.text.policy import TextPolicy
from penchant.domains.text.states import States
from penchant.domains.text.trunk import Trunk
from penchant.errors import Refusal
from penchant.files import cache_folder
from penchant.objectives import DPO, SimPO
from penchant.running import align as running
from test_align import pairs, run_in
from test_run_promises import killed_at, same, weights

ROWS = ([torch.arange(5), torch.arange(9) + 3], [[torch.arange(4) + 8, torch.arange(7) + 1], [torch.arange(3)]])
HOW: dict[str, Any] = {"train": "top:1", "save_every": 2, "sample_prompts": 0, "data": pairs(32)}


@pytest.fixture(autouse=True)
def fresh_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENCHANT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(running, "render", lambda *_, **__: "")  # most of a tiny run's time is its report


def shards() -> list[Path]:
    return sorted((cache_folder() / "trunks").rglob("*.safetensors"))


def slopes(policy: TextPolicy) -> dict[str, Tensor]:
    """The gradient of some number of two rows' log-probs, by parameter."""
    policy.zero_grad()
    policy(*ROWS)["logp"].square().sum().backward()
    return {name: p.grad.clone() for name, p in policy.named_parameters() if p.grad is not None}


# --- what it computes


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("llama", "tree"),
        ("gemma2, caps and a window", "tree"),
        ("gpt2, absolute positions", "tree"),
        ("falcon_h1, recurrent beside its attention", "padded"),
        ("bloom, attention of its own", "padded"),
    ],
)
def test_the_upper_layers_say_and_learn_what_they_do_in_the_whole_model(name: str, path: str):
    split, whole = (TextPolicy(built(name), TOKENIZER) for _ in range(2))
    split.freeze_below(1, "weights")
    for policy in (split, whole):
        assert policy.scoring_path.name == path
    wanted, trunk = slopes(whole), split.trunk
    assert trunk is not None and not shards()  # what was probed is not kept
    upper = {x for x, _ in whole.named_parameters() if ".1." in x or x.removeprefix("model.").startswith(trunk.split.after)}
    for _ in ("computed", "looked up"):
        torch.testing.assert_close(split(*ROWS)["logp"], whole(*ROWS)["logp"], atol=1e-5, rtol=1e-5)
        found = slopes(split)
        assert found.keys() == upper and len(trunk.split.after) == 1
        for x, slope in found.items():
            torch.testing.assert_close(slope, wanted[x], atol=1e-4 * float(wanted[x].abs().max()), rtol=1e-4)
    assert len(shards()) == 1


def test_a_value_against_a_reference_reads_the_same_trunk():
    policy, copy = (TextPolicy(built("llama"), TOKENIZER) for _ in range(2))
    whole = TextPolicy(built("llama"), TOKENIZER)
    for one in (policy, copy):
        one.freeze_below(1)
    policy.hold(copy)
    whole.hold(TextPolicy(built("llama"), TOKENIZER))
    with torch.no_grad():
        for one in (policy, whole):
            dict(one.named_parameters())["model.model.norm.weight"].add_(0.3)
        ours, theirs = (one(*ROWS, Want(values=frozenset({"kl"})))["kl"] for one in (policy, whole))
    assert float(ours.max()) > 1e-3
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


# --- whole runs


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_cache_changes_no_bit_of_what_a_run_learns(
    precision: str, tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
):
    kept = run_in(tmp_path / "kept", tiny_folder, epochs=2, precision=precision, **HOW)
    with safe_open(shards()[0], "pt") as shard:
        stored = shard.get_tensor("states").dtype
    assert stored == {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    again = run_in(tmp_path / "again", tiny_folder, epochs=2, precision=precision, **HOW)
    shutil.rmtree(cache_folder() / "references")
    shutil.rmtree(cache_folder() / "trunks")
    monkeypatch.setattr(Trunk, "_store", lambda *_: None)
    without = run_in(tmp_path / "without", tiny_folder, epochs=2, precision=precision, **HOW)
    assert not shards()
    assert same(weights(kept), weights(without)) and same(weights(kept), weights(again))
    assert kept.evidence.pairs_after == without.evidence.pairs_after
    start = load_file(tiny_folder / "model.safetensors")
    moved = {name for name, x in weights(kept).items() if not torch.equal(x, start[name])}
    assert moved and all(".layers.1." in name or name == "model.norm.weight" for name in moved)
    assert weights(kept).keys() == start.keys()  # a whole model


@pytest.mark.parametrize("how", [{}, {"lora": 4, "learning_rate": 1e-2}], ids=["whole", "lora"])
def test_row_by_row_a_run_equals_one_that_only_freezes_to_the_last_bit(
    how: dict[str, Any], tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
):
    settings = {**HOW, **how, "tokens": 1}  # more than one row at once is rounded otherwise
    split = run_in(tmp_path / "split", tiny_folder, SimPO(), **settings)
    assert shards()
    shutil.rmtree(cache_folder())
    freeze = TextPolicy.freeze_below

    def only_frozen(self: TextPolicy, top: int, name: str | None = None) -> None:
        freeze(self, top, name)
        self.trunk = None

    monkeypatch.setattr(TextPolicy, "freeze_below", only_frozen)
    plain = run_in(tmp_path / "plain", tiny_folder, SimPO(), **settings)
    assert not shards()
    name = "adapter_model.safetensors" if how else "model.safetensors"
    assert same(*(load_file(run.model / name) for run in (split, plain)))
    assert [x.get("loss") for x in split.history] == [x.get("loss") for x in plain.history]


@pytest.mark.parametrize("how", [{}, {"lora": 4, "learning_rate": 1e-2}], ids=["whole", "lora"])
def test_a_killed_run_whose_cache_is_gone_ends_in_the_same_weights(
    how: dict[str, Any], tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
):
    settings = {**HOW, **how, "epochs": 2}
    plain = run_in(tmp_path / "plain", tiny_folder, **settings)
    shutil.rmtree(cache_folder())
    killed_at(5, monkeypatch, lambda: run_in(tmp_path / "cut", tiny_folder, **settings))
    held = load_file(tmp_path / "cut" / "checkpoints" / "step-00000004" / "policy.safetensors")
    assert held and all(".layers.1." in name or (not how and "norm.weight" in name) for name in held)
    for path in shards()[1::2]:  # some of it
        path.unlink()
    shutil.rmtree(cache_folder() / "references")
    again = run_in(tmp_path / "cut", tiny_folder, **settings)
    name = "adapter_model.safetensors" if how else "model.safetensors"
    assert same(*(load_file(run.model / name) for run in (plain, again)))
    assert plain.evidence.pairs_after == again.evidence.pairs_after
    if how:
        names = {name.split(".layers.")[1][0] for name in load_file(again.model / name)}
        assert names == {"1"}


def test_a_trunk_is_read_once_for_all_epochs(tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch):
    from penchant.domains.text import trunk

    made: list[int] = []
    computed = trunk._made
    monkeypatch.setattr(trunk, "_made", lambda *given: made.append(1) or computed(*given))
    run_in(tmp_path / "x", tiny_folder, epochs=3, **HOW)
    assert 32 <= len(made) < 42  # the rows, and what was probed


# --- what it keeps


def test_tables_lie_on_disk_by_name_and_another_process_may_add_to_them(tmp_path: Path):
    ours, theirs = States(tmp_path), States(tmp_path)
    a, b, c = (torch.randn(n, 4).bfloat16() for n in (2, 3, 1))
    names = [f"{i:032x}" for i in range(3)]
    assert ours.get(names[0]) is None
    theirs.keep({names[0]: a, names[1]: b})
    ours.keep({names[2]: c})
    for name, table in zip(names, (a, b, c), strict=True):
        found = ours.get(name)
        assert found is not None and torch.equal(found, table)
    for path in tmp_path.iterdir():
        path.unlink()
    assert ours.get(names[1]) is None
    ours.keep({names[1]: b})
    (tmp_path / "torn.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{")
    with pytest.raises(Refusal, match=r"torn.safetensors is no whole file.*cache clear trunks"):
        ours.get(names[0])


def test_the_cache_knows_weights_number_format_depth_and_threads(tmp_path: Path):
    def keep(name: str, top: int = 1, **settings: Any) -> int:
        torch.manual_seed(0)
        model = transformers.LlamaForCausalLM(
            transformers.LlamaConfig(
                vocab_size=SIZE,
                hidden_size=32,
                intermediate_size=64,
                num_hidden_layers=3,
                num_attention_heads=4,
                initializer_range=0.2,
            )
        )
        policy = TextPolicy(model, TOKENIZER)
        policy.freeze_below(top, name)
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=settings.get("bf16", False)):
            policy(*ROWS)
        return len(list((cache_folder() / "trunks").iterdir()))

    assert [keep("a"), keep("a"), keep("b"), keep("a", top=2), keep("a", bf16=True)] == [1, 1, 2, 3, 4]
    torch.set_num_threads(2)
    try:
        assert keep("a") == 5
    finally:
        torch.set_num_threads(1)


# --- what is refused


@pytest.mark.parametrize("said", ["top", "top:0", "top:six", "upper:6", "top:-1", "all:1", ""])
def test_what_trains_is_said_in_one_way(said: str, tmp_path: Path):
    with pytest.raises(Refusal, match=f"train={said!r}: what trains must be 'all', or so many upper layers as in 'top:6'"):
        run_in(tmp_path / "x", Path("nowhere"), train=said)
    assert not (tmp_path / "x").exists()


def test_more_layers_than_there_are_below_and_adapters_with_nothing_above_are_refused(tiny_folder: Path):
    with pytest.raises(Refusal, match="top:2: the model has 2 decoder layers, so from 1 to 1 can train"):
        load(tiny_folder, top=2)
    with pytest.raises(Refusal, match="LoRA"):
        load(tiny_folder, lora=LoRA(rank=2, targets=r".*layers\.0\..*proj"), top=1)


def test_an_adapter_that_is_continued_trains_in_its_upper_layers_alone(tmp_path: Path, tiny_folder: Path):
    load(tiny_folder, lora=LoRA(rank=2)).policy.save(tmp_path / "adapter")
    policy = load(tmp_path / "adapter", top=1).policy
    trained = [name for name, _ in policy.named_trainable()]
    assert trained and all(".layers.1." in name and ".default." in name for name in trained)
    with policy.as_reference(), torch.no_grad():
        reference = policy(*ROWS)["logp"]
    assert torch.equal(policy(*ROWS)["logp"].detach(), reference)
    assert [name for name, _ in policy.named_trainable()] == trained


def _gemma3n() -> Any:
    return transformers.Gemma3nForCausalLM(
        transformers.Gemma3nTextConfig(
            vocab_size=SIZE,
            vocab_size_per_layer_input=SIZE,
            hidden_size=32,
            hidden_size_per_layer_input=4,
            intermediate_size=64,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=8,
            num_kv_shared_layers=2,
            laurel_rank=4,
            layer_types=["sliding_attention", "full_attention"] * 2,
            activation_sparsity_pattern=None,
            pad_token_id=0,
        )
    )


def test_a_model_whose_layers_hand_on_more_than_states_is_refused():
    policy = TextPolicy(_gemma3n(), TOKENIZER)
    with pytest.raises(Refusal, match=r"top:1: this model cannot be split between its layers .*4-dimensional states"):
        policy.freeze_below(1)
    model: Any = built("llama")
    first, second = model.model.layers
    left: list[Tensor] = []
    first.register_forward_hook(lambda _, given, made: left.append(made))
    second.register_forward_hook(lambda _, given, made: made + left[-1].mean())
    first.forward = (lambda run: lambda x, **how: run(x, **how) * (1 + len(left) % 2))(first.forward)
    with pytest.raises(Refusal, match="read more of the lower ones than their last hidden states"):
        TextPolicy(model, TOKENIZER).freeze_below(1)
    shared: Any = built("llama")
    shared.model.layers[1].mlp = shared.model.layers[0].mlp
    with pytest.raises(Refusal, match="share weights"):
        TextPolicy(shared, TOKENIZER).freeze_below(1)


def test_a_model_that_is_another_over_a_trunk_is_refused_before_it_trains(
    tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
):
    made = Trunk.made
    monkeypatch.setattr(Trunk, "made", lambda *given: made(*given).flip(1))
    with pytest.raises(Refusal, match="over frozen layers it is not the model it is as a whole: a token's log-prob"):
        run_in(tmp_path / "x", tiny_folder, DPO(), **HOW)

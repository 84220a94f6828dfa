"""Folders of models that somebody else wrote: whatever stands in them is refused in a sentence, and none of it runs. That good
folders are read right is tested elsewhere."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from penchant.domains.text.models import LoRA, load
from penchant.errors import Refusal

Change = Callable[[Path], object]
SETTINGS, WORDS, ADAPTER = "config.json", "tokenizer_config.json", "adapter_config.json"


class Trap:
    """Leaves a file where it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


def says(file: str, **other: Any) -> Change:
    """The folder's file with other settings; `...` takes one out."""

    def change(folder: Path) -> None:
        told: Mapping[str, Any] = json.loads((folder / file).read_text()) | other
        (folder / file).write_text(json.dumps({name: x for name, x in told.items() if x is not ...}))

    return change


def holds(file: str, content: bytes) -> Change:
    return lambda folder: (folder / file).write_bytes(content)


def trapped(file: str, *gone: str) -> Change:
    """A pickle that leaves a file behind under one name, and other files taken away."""

    def change(folder: Path) -> None:
        for name in gone:
            (folder / name).unlink()
        torch.save(Trap(folder / "ran"), folder / file)

    return change


def both(*changes: Change) -> Change:
    return lambda folder: [change(folder) for change in changes]


@pytest.fixture(scope="module")
def adapter(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("adapter")
    load(tiny_folder, lora=LoRA(rank=2)).policy.save(folder)
    return folder


KERNEL = {"_attn_implementation": "somebody/kernel"}
INDEX = "model.safetensors.index.json"
MODELS: dict[str, tuple[Change, str]] = {
    "a width in words": (says(SETTINGS, hidden_size="x"), "cannot be read"),
    "no width": (says(SETTINGS, hidden_size=0), "cannot be read"),
    "no heads": (says(SETTINGS, num_attention_heads=0), "cannot be read"),
    "endless layers": (says(SETTINGS, num_hidden_layers=10**7), "at most 1,000 are built"),
    "endless labels": (says(SETTINGS, num_labels=10**12), "at most 100,000 are built"),
    "endless words": (says(SETTINGS, vocab_size=10**12), "cannot be read"),
    "no positions": (says(SETTINGS, max_position_embeddings=0), "at least 2 tokens"),
    "another kind of model": (says(SETTINGS, model_type="gpt2"), "left to chance"),
    "a list for a kind": (says(SETTINGS, model_type=["llama"]), "cannot be read"),
    "code of its own": (says(SETTINGS, model_type="own", auto_map={"AutoConfig": "own.C"}), "cannot be read"),
    "a kernel": (says(SETTINGS, **KERNEL), "no code that comes with a model is ever run"),
    "a kernel inside": (says(SETTINGS, text_config=KERNEL), "no code that comes with a model is ever run"),
    "a kernel by part": (says(SETTINGS, attn_implementation={"": "a/b"}), "no code that comes with a model is ever run"),
    "an unknown quantisation": (says(SETTINGS, quantization_config="x"), "cannot be read"),
    "an unknown number format": (says(SETTINGS, dtype="os.system"), "cannot be read"),
    "a list": (holds(SETTINGS, b"[]"), "must hold an object"),
    "no JSON": (holds(SETTINGS, b"\xff\xfe"), "is not JSON"),
    "endless depth": (holds(SETTINGS, b'{"a":' + b"[" * 100_000), "is not JSON"),
    "torn weights": (holds("model.safetensors", b"{}"), "cannot be read"),
    "a tokenizer that is a list": (holds(WORDS, b"[]"), "cannot be read"),
    "a tokenizer without end": (says(WORDS, model_max_length="x"), "model_max_length = 'x'"),
    "a token that is a list": (says(WORDS, eos_token=["x"]), "cannot be read"),
    "words that are a list": (holds("tokenizer.json", b"[]"), "cannot be read"),
    "ends that are a list": (holds("generation_config.json", b"[]"), "cannot be read"),
    "goals of endless depth": (holds("goals.json", b"[" * 100_000), "holds no scale of goals"),
    "a template that looks around": (
        holds("chat_template.jinja", b'{{ "".__class__.__mro__[1].__subclasses__() }}'),
        "template",
    ),
    "a template that reads files": (holds("chat_template.jinja", b'{% include "/etc/passwd" %}'), "template"),
    "a template that never ends": (
        holds("chat_template.jinja", b"{% macro a() %}{{ a() }}{% endmacro %}{{ a() }}"),
        "template",
    ),
    "a pickle alone": (trapped("pytorch_model.bin", "model.safetensors"), "a pickle"),
    "a pickle behind a false name": (
        both(trapped("pytorch_model.bin", "model.safetensors"), holds("model-x.safetensors", b"")),
        "a pickle",
    ),
    "a pickle behind an index": (
        both(trapped("w.bin", "model.safetensors"), holds(INDEX, b'{"weight_map": {"x": "w.bin"}}')),
        "names the file 'w.bin'",
    ),
    "an index that leads away": (
        both(trapped("w.bin", "model.safetensors"), holds(INDEX, b'{"weight_map": {"x": "../w.safetensors"}}')),
        "names the file",
    ),
}
ADAPTERS: dict[str, tuple[Change, str]] = {
    "no base": (says(ADAPTER, base_model_name_or_path=None), "names no base_model"),
    "a number for a base": (says(ADAPTER, base_model_name_or_path=5), "names no base_model"),
    "nobody's base": (
        says(ADAPTER, base_model_name_or_path="~nobody-of-this-name/x"),
        "no folder of this name|no such folder",
    ),
    "a base above": (says(ADAPTER, base_model_name_or_path="../../../etc"), "no such folder|no config.json"),
    "an unknown kind": (says(ADAPTER, peft_type="EVIL"), "cannot be read"),
    "no rank": (says(ADAPTER, r=0), "cannot be read"),
    "targets that are no pattern": (says(ADAPTER, target_modules="["), "cannot be read"),
    "targets that are not there": (says(ADAPTER, target_modules=["nope"]), "cannot be read"),
    "other targets": (says(ADAPTER, target_modules=["embed_tokens"]), "cannot be read"),
    "a module of megatron": (says(ADAPTER, megatron_config={"a": 1}, megatron_core="os"), "cannot be read"),
    "a list": (holds(ADAPTER, b"[]"), "must hold an object"),
    "torn weights": (holds("adapter_model.safetensors", b"{}"), "cannot be read"),
    "a pickle behind a false name": (
        both(trapped("adapter_model.bin", "adapter_model.safetensors"), holds("adapter_model-x.safetensors", b"")),
        "a pickle",
    ),
}
HARMLESS: dict[str, Change] = {
    "a card that is no YAML": holds("README.md", b"---\na: [b\n---\n"),
    "a card of endless depth": holds("README.md", b"---\nx: " + b"[" * 5000 + b"\n---\n"),
    "a card with code": holds("README.md", b'---\nlicense: !!python/object/apply:os.system ["true"]\n---\n'),
    "a card with numbers for names": holds("README.md", b"---\n3: x\ntags: 5\n---\n"),
    "a pickle beside": trapped("pytorch_model.bin"),
    "code beside": both(says(SETTINGS, auto_map={"AutoModelForCausalLM": "own.M"}), holds("own.py", b"open('ran', 'w')")),
}


@pytest.mark.parametrize(("change", "said"), MODELS.values(), ids=MODELS)
def test_a_strange_model_is_refused_and_nothing_in_it_runs(
    change: Change, said: str, tiny_folder: Path, tmp_path: Path
) -> None:
    _refused(tiny_folder, change, said, tmp_path)


@pytest.mark.parametrize(("change", "said"), ADAPTERS.values(), ids=ADAPTERS)
def test_a_strange_adapter_is_refused_and_nothing_in_it_runs(
    change: Change, said: str, adapter: Path, tmp_path: Path
) -> None:
    _refused(adapter, change, said, tmp_path)


@pytest.mark.filterwarnings("ignore")
def _refused(good: Path, change: Change, said: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(good, folder)
    change(folder)
    with pytest.raises(Refusal, match=said):
        load(folder)
    assert not (folder / "ran").exists()


def test_an_adapter_upon_itself_is_refused(adapter: Path, tiny_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_folder, folder)
    shutil.copytree(adapter, folder, dirs_exist_ok=True)
    says(ADAPTER, base_model_name_or_path=str(folder))(folder)
    with pytest.raises(Refusal, match="an adapter itself"):
        load(folder)


@pytest.mark.parametrize("change", HARMLESS.values(), ids=HARMLESS)
def test_what_stands_beside_a_model_is_not_run(change: Change, tiny_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_folder, folder)
    change(folder)
    assert load(folder).source["licence"] is None
    assert not list(tmp_path.rglob("ran")) and not Path("ran").exists()


def test_the_trap_works(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Trap(tmp_path / "ran")))
    assert (tmp_path / "ran").exists()

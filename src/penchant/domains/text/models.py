"""Language models from a folder, the hub or the packaged wheel, made ready to be aligned: whole, or through a LoRA adapter.
Only safetensors are read unless asked otherwise, and no code that comes with a model is ever run."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from penchant.domains.folders import licence_of, settings_of, weights_of
from penchant.domains.text import smollm2
from penchant.domains.text.chat import Template
from penchant.domains.text.domain import Text, TooLong
from penchant.domains.text.policy import REFERENCE, TextPolicy
from penchant.domains.text.quiet import quietly
from penchant.domains.text.reward_head import RewardHead, is_adapter_of_classifier, is_classifier, saved_head
from penchant.domains.text.trunk import Split
from penchant.errors import Refusal
from penchant.feedback.goals import Goals
from penchant.words import brief, plain

_PATTERNS = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja", "README.md"]
_UNSAFE = ["*.bin"]
OTHERS = {"model_index.json": "a pipeline of pictures", "pictures.json": "a model of pictures", "policy.json": "a policy"}
"""Files by which models of other domains are known."""
_OTHERS = ["*/*", "consolidated*"]  # the same weights once more, for other programs


@dataclass(frozen=True)
class LoRA:
    """A new low-rank adapter: the model stays as it is, and is its own reference with the adapter switched off. Its first
    values are drawn from torch's global random numbers: seed them for a run that can be repeated."""

    rank: int = 16
    """Columns of each added matrix."""
    alpha: int = 32
    """Scale: the adapter's output is multiplied by alpha / rank."""
    targets: str | tuple[str, ...] = "all-linear"
    """Which layers get an adapter: names as peft understands them."""

    def __post_init__(self) -> None:
        for name, value in (("rank", self.rank), ("alpha", self.alpha)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise Refusal(f"LoRA({name}={value!r}): {name} must be a whole number of at least 1.")


@dataclass(frozen=True, eq=False)
class Loaded:
    """A model ready to be aligned."""

    policy: TextPolicy
    domain: Text
    source: dict[str, Any]
    """name, path, revision (the hub's commit), base (an adapter's model), licence (None where nothing says), fingerprint
    (of weights, tokenizer and template), stop (the text of the turn's last token), max_length."""


def load(
    name: str | Path,
    *,
    lora: LoRA | None = None,
    top: int | None = None,
    revision: str | None = None,
    allow_bin: bool = False,
    template: Template = "auto",
    max_length: int = 1024,
    too_long: TooLong = "drop",
    dtype: torch.dtype = torch.float32,
    head: Literal["lm", "reward"] = "lm",
) -> Loaded:
    """`name`: a folder, a hub id or "smollm2". A folder with an adapter continues that adapter, held against a frozen copy
    of it; `lora` begins a new one; otherwise the whole model trains. `top`: of all that, only what lies in so many upper
    layers trains (`TextPolicy.freeze_below`). `max_length`: tokens of prompt and response, at most the positions the model
    has. head: "reward" makes a reward model of a language model, or goes on with one. Raises Refusal."""
    folder, base, adapter, commit = _places(str(name), lora, revision, allow_bin)
    _fits(str(name), base, adapter, head)
    model, tokenizer = _read(str(name), base, adapter, allow_bin, dtype)
    reward = None
    if head == "reward":
        reward = RewardHead(model, saved_head(str(name), base) if is_classifier(base) else None)
    with warnings.catch_warnings():  # peft asks transformers by a name that is on its way out
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        warnings.filterwarnings(
            "ignore", "You have passed exclude_modules", UserWarning
        )  # where the targets lie above anyway
        tuned, reference = _adapted(model, lora, adapter, None if top is None else Split.of(model, top).kept_out(model))

    stops = model.generation_config.eos_token_id if model.generation_config is not None else None
    eos = [] if stops is None else [stops] if isinstance(stops, int) else list(stops)
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    domain = Text(
        tokenizer,
        template=template,
        max_length=max_length,
        too_long=too_long,
        eos=eos,
        positions=positions,
        goals=Goals.of(folder),
    )
    policy = TextPolicy(tuned, tokenizer, reference, domain.chat.stops, domain.max_length, reward)
    source = {
        "name": str(name),
        "path": str(folder),
        "revision": commit,
        "base": str(base) if adapter is not None else None,
        "licence": licence_of(folder) or licence_of(base),
        "fingerprint": _fingerprint(
            [*_weight_files(base), *(_weight_files(folder) if adapter else [])], domain.fingerprint
        ),
        "stop": domain.chat.stop_text,
        "max_length": domain.max_length,
    }
    if top is not None:
        policy.freeze_below(top, source["fingerprint"])
    return Loaded(policy, domain, source)


def identity_of(name: str, domain: Text, allow_bin: bool = False) -> str:
    """A name by content for a saved model or adapter that reads text as `domain` does, from its files alone: what `load`
    calls its fingerprint, without loading it."""
    _, base, adapter, _ = _places(name, None, None, allow_bin)
    return _fingerprint([*_weight_files(base), *(_weight_files(adapter) if adapter else [])], domain.fingerprint)


def _places(
    name: str, lora: LoRA | None, revision: str | None, allow_bin: bool
) -> tuple[Path, Path, Path | None, str | None]:
    """The model's folder, its base's and its adapter's, and the hub's commit."""
    folder, commit = find(name, revision, allow_bin)
    if not (folder / "adapter_config.json").is_file():
        return folder, folder, None, commit
    if lora is not None:
        raise Refusal(f"model {name!r} is an adapter already and is continued as it is; leave lora out.")
    weights_of(folder, allow_bin, "adapter_model")
    told = settings_of(folder / "adapter_config.json")
    upon, revision = told.get("base_model_name_or_path"), told.get("revision")
    if not isinstance(upon, str) or not upon:
        raise Refusal(f"{folder / 'adapter_config.json'} names no base_model_name_or_path; write the model's name there.")
    base, _ = find(upon, revision if isinstance(revision, str) else None, allow_bin)
    if (base / "adapter_config.json").is_file():
        raise Refusal(f"model {name!r} is an adapter upon {upon!r}, which is an adapter itself; merge that one first.")
    return folder, base, folder, commit


def _fits(name: str, base: Path, adapter: Path | None, head: str) -> None:
    """Refuses a reward model where text is to be made, and an adapter of one, which only judges."""
    scores = is_classifier(base) or (adapter is not None and is_adapter_of_classifier(adapter))
    if scores and head == "lm":
        raise Refusal(
            f"model {name!r} is a reward model: it scores responses and makes none. Judge with it as reward:{name}, or train it "
            "further with BradleyTerry()."
        )
    if adapter is not None and is_adapter_of_classifier(adapter):
        raise Refusal(
            f"model {name!r} is an adapter of a reward model, which is not trained further; merge it into its base first, or "
            "begin anew with --lora."
        )


@quietly()
def _read(name: str, base: Path, adapter: Path | None, allow_bin: bool, dtype: torch.dtype) -> tuple[Any, Any]:
    """The model and its tokenizer (the adapter's own, where it brings one)."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    for file, what in OTHERS.items():
        if (base / file).is_file():
            raise Refusal(
                f"model {name!r} is {what}, where a language model is wanted; `penchant align` takes it. In Python its domain "
                "samples and scores it."
            )
    if not (base / "config.json").is_file():
        raise Refusal(f"model {name!r}: the folder {base} has no config.json, so it is not a transformers model.")
    settings_of(base / "config.json")
    weights = weights_of(base, allow_bin, "model")

    with readable(name):
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            base,
            dtype=dtype,
            trust_remote_code=False,
            use_safetensors=weights == "safetensors",
            local_files_only=True,
            output_loading_info=True,
        )
        model, told = loaded
        spoken = adapter if adapter is not None and (adapter / "tokenizer_config.json").is_file() else base
        tokenizer = AutoTokenizer.from_pretrained(spoken, trust_remote_code=False, local_files_only=True)
    unread = {id(p) for p in model.get_output_embeddings().parameters()} if is_classifier(base) else set()
    named = dict(model.named_parameters(remove_duplicate=False))  # what a reward model lacks is not read either
    if absent := sorted(key for key in told["missing_keys"] if id(named.get(key)) not in unread):
        raise Refusal(
            f"model {name!r}: its weights are not those of its config.json: {len(absent):,} parameters of the model, such as "
            f"{brief(absent[0])}, are not among them and would be left to chance. Fetch the model again."
        )
    if not isinstance(tokenizer.model_max_length, int | float):
        raise Refusal(
            f"model {name!r}: model_max_length = {brief(tokenizer.model_max_length)} in tokenizer_config.json must be a number."
        )
    rows = len(model.get_input_embeddings().weight)  # pyright: ignore[reportArgumentType]
    if len(tokenizer) > rows:
        raise Refusal(f"model {name!r}: its tokenizer has {len(tokenizer):,} tokens, but its embedding only {rows:,}.")
    return model, tokenizer


def find(name: str, revision: str | None, allow_bin: bool) -> tuple[Path, str | None]:
    """The model's folder on this machine, and the hub's commit where it came from there."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    if name == smollm2.ALIAS:
        return smollm2.folder(), None
    path = Path(os.path.expanduser(name))  # which leaves ~nobody as it is, where Path raises
    if path.is_dir():
        return path.resolve(), None
    if path.name.startswith(f"{smollm2.ALIAS}-") and path.name == (ours := smollm2.folder()).name:
        return ours, None  # an adapter that was trained on another machine's copy of the packaged model
    if path.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1:
        raise Refusal(f"model {name!r}: there is no such folder.")
    patterns = _PATTERNS + (_UNSAFE if allow_bin else [])
    try:
        found = Path(snapshot_download(name, revision=revision, allow_patterns=patterns, ignore_patterns=_OTHERS))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise Refusal(
            f"model {name!r}: no folder of this name is here, and the hub gave none "
            f"({type(error).__name__}). Give a folder, a hub id (owner/name) or 'smollm2'."
        ) from error
    return found, found.name


def _adapted(
    model: Any, lora: LoRA | None, adapter: Path | None, without: str | None
) -> tuple[nn.Module, Literal["adapter off", "copy"] | None]:
    """The module that trains, and what its reference is: the model without the new adapter, or a frozen copy of the given
    one. A model that trains whole has none of its own. without: a regular expression for modules that get no adapter."""
    from peft import LoraConfig, PeftModel, get_peft_model

    if adapter is not None:
        with readable(str(adapter)), warnings.catch_warnings():
            warnings.filterwarnings("error", "Found missing adapter keys")  # they would be left to chance
            tuned = PeftModel.from_pretrained(model, str(adapter), is_trainable=True, local_files_only=True)
        if tuned.active_peft_config.is_prompt_learning:
            raise Refusal(f"{adapter} is a prompt-learning adapter, which has no copy to be held against; use LoRA.")
        tuned.load_adapter(str(adapter), adapter_name=REFERENCE, is_trainable=False, local_files_only=True)
        return tuned, "copy"
    if lora is None:
        return model, None
    targets = lora.targets if isinstance(lora.targets, str) else list(lora.targets)
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        target_modules=targets,
        exclude_modules=without,
        lora_dropout=0.0,
        task_type="CAUSAL_LM",
    )
    try:
        return get_peft_model(model, config), "adapter off"
    except ValueError as error:
        raise Refusal(f"LoRA(targets={lora.targets!r}): {brief(str(error), 300)}") from error


@contextmanager
def readable(name: str) -> Iterator[None]:
    """Whatever a library raises at the files of a model is refused in one sentence: somebody else wrote them, and no list of
    what may be wrong with them is whole."""
    try:
        yield
    except Exception as error:
        said = " ".join(plain(error).split())
        raise Refusal(f"model {name!r} cannot be read ({type(error).__name__}: {said[:400]}).") from error


def _weight_files(folder: Path) -> list[Path]:
    return sorted([*folder.glob("*.safetensors"), *folder.glob("*.bin"), *folder.glob("*config.json")])


def _fingerprint(files: list[Path], domain: str) -> str:
    digest = hashlib.sha256(domain.encode())
    for path in files:
        with path.open("rb") as file:
            digest.update(path.name.encode() + hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:32]

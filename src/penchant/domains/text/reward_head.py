"""A policy that scores instead of speaking: a linear head on what the body makes of a response's last token, in the files that
`transformers` and `peft` read a reward model from. It trains nothing, and whom the scores judge is not known here."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from penchant.domains.folders import settings_of
from penchant.errors import Refusal
from penchant.files import write_json
from penchant.words import plain

SCORE = "score.weight"
"""What `transformers` calls the head's weight in a model for sequence classification."""
ADAPTED = f"base_model.model.{SCORE}"
"""What `peft` calls it in an adapter."""
CLASSIFIER = "ForSequenceClassification"
FILE = "reward.json"


class RewardHead(nn.Module):
    """r(x, y) = w · h, h the body's last hidden state at the last token of y, w without bias, in float32.

    w begins as zeros: then every reward is 0 before training, no pair is preferred by chance, nothing random is in the run, and
    the first step turns w to the direction in which chosen and rejected differ. With w = 0 the body has no gradient in that one
    step."""

    def __init__(self, model: Any, weight: Float[Tensor, "1 size"] | None = None) -> None:
        """model: the language model whose body is read. weight: of a reward model that goes on. Raises Refusal where
        `transformers` has no such reward model, so that it could not be saved."""
        super().__init__()
        self.classifier = _classifier(model)
        """The class that reads what is saved."""
        size = model.config.get_text_config().hidden_size
        if weight is not None and weight.shape != (1, size):
            raise Refusal(
                f"its head {SCORE} has shape {tuple(weight.shape)}; a reward model has one label: (1, {size}). Give one that "
                "scores."
            )
        self.weight = nn.Parameter(torch.zeros(1, size) if weight is None else weight.float().clone())
        _freeze_unread(model)

    def forward(self, states: Float[Tensor, "n size"]) -> Float[Tensor, "n 1"]:
        with torch.autocast(states.device.type, enabled=False):
            return nn.functional.linear(states.to(self.weight.dtype), self.weight)


def read_to_the_end(responses: Sequence[Sequence[Tensor]]) -> list[list[Tensor]]:
    """The responses with one token more. A response's last token predicts nothing, so it is not read; with another after it, it
    is, and the place that would predict the other holds the state of the whole response."""
    return [[torch.cat([y, y[-1:]]) for y in ys] for ys in responses]


def ends(responses: Sequence[Sequence[Tensor]]) -> Tensor:
    """Where, among the predicting places of all `read_to_the_end` responses one after the other, each one's last stands."""
    return torch.tensor([len(y) + 1 for ys in responses for y in ys]).cumsum(0) - 1


# --- files


def is_classifier(folder: Path) -> bool:
    """Whether a folder holds a whole model for sequence classification rather than for text."""
    if not (folder / "config.json").is_file():
        return False
    named = settings_of(folder / "config.json").get("architectures") or []
    return any(str(name).endswith(CLASSIFIER) for name in named)


def is_adapter_of_classifier(folder: Path) -> bool:
    """Whether a folder holds an adapter that brings a head for scores."""
    path = folder / "adapter_config.json"
    return path.is_file() and settings_of(path).get("task_type") == "SEQ_CLS"


def saved_head(name: str, folder: Path) -> Float[Tensor, "labels size"]:
    """The head of a saved reward model. Raises Refusal where its weights have none under the usual name."""
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            if SCORE in set(file.keys()):
                return file.get_tensor(SCORE)
    raise Refusal(
        f"model {name!r} is a reward model, but its safetensors hold no {SCORE}, so it cannot be trained further. Judge with "
        f"it as reward:{name}."
    )


def save_classifier(
    model: Any, head: RewardHead, state: Mapping[str, Tensor], weight: Tensor, pad: int | None, folder: Path
) -> None:
    """A whole reward model as AutoModelForSequenceClassification reads it. state: the language model's tensors by name. pad: the
    padding token; what `transformers` reads is the last token that is no padding, so it may not be one that ends a response."""
    made = _empty(head.classifier, model.config, pad)
    prefix = next(f"{name}." for name, part in model.named_modules() if part is model.base_model)
    body = {name.removeprefix(prefix): x for name, x in state.items() if name.startswith(prefix)}
    tensors = {f"{made.base_model_prefix}.{name}": x for name, x in body.items()} | {SCORE: weight}
    if apart := sorted(tensors.keys() ^ made.state_dict().keys()):
        raise Refusal(
            f"{head.classifier.__name__} and this model differ in {len(apart)} tensors, such as {plain(apart[0])}."
        )
    made.save_pretrained(folder, state_dict=tensors)


def mark_adapter(weight: Tensor, folder: Path) -> None:
    """Makes a saved adapter of a language model one of a reward model, as peft does: the head lies beside the adapter."""
    tensors = load_file(folder / "adapter_model.safetensors")
    tensors[ADAPTED] = weight.detach().cpu().contiguous()
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    told = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    write_json(folder / "adapter_config.json", {**told, "task_type": "SEQ_CLS", "modules_to_save": ["score"]})


def leave(folder: Path, templated: bool, pad: int | None) -> None:
    """Leaves with a reward model what neither its config nor its tokenizer can say: that it reads a prompt and a response up to the
    token that ends the turn, and whether a chat template writes them."""
    write_json(folder / FILE, {"template": "auto" if templated else "none", "pad": pad})


def left(folder: Path) -> Mapping[str, Any] | None:
    """What `leave` left; None for a model that somebody else trained. Raises Refusal."""
    if not (folder / FILE).is_file():
        return None
    told = settings_of(folder / FILE)
    pad = told.get("pad")
    if told.get("template") not in ("auto", "none") or not (pad is None or type(pad) is int):
        raise Refusal(f'{plain(folder / FILE)} must hold {{"template": "auto" or "none", "pad": a token\'s id or null}}.')
    return told


def padding(tokenizer: Any, stops: Sequence[int]) -> int | None:
    """A token to pad with that ends no response; None where the tokenizer has none."""
    special = sorted(i for i, token in tokenizer.added_tokens_decoder.items() if token.special)
    own = [tokenizer.pad_token_id, tokenizer.unk_token_id, *special]
    return next((i for i in own if i is not None and i not in stops), None)


def _classifier(model: Any) -> type[Any]:
    """The architecture's own model for sequence classification, with one linear head and no bias on its body."""
    from transformers import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING

    config = model.config
    cls: Any = MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING.get(type(config), None)
    if cls is None or model.base_model is model:
        raise Refusal(
            f"a {type(model).__name__} cannot become a reward model: transformers has no {CLASSIFIER} for its architecture, so "
            "it could not be loaded again."
        )
    made = _empty(cls, config, None)
    prefix = f"{made.base_model_prefix}."
    beside = {name: tuple(x.shape) for name, x in made.state_dict().items() if not name.startswith(prefix)}
    if beside != {SCORE: (1, config.get_text_config().hidden_size)}:
        raise Refusal(
            f"a {type(model).__name__} cannot become a reward model: beside its body {cls.__name__} has "
            f"{', '.join(beside) or 'nothing'}, not one bias-free linear layer {SCORE}."
        )
    return cls


def _empty(cls: type[Any], config: Any, pad: int | None) -> Any:
    """The model for sequence classification with one label, without memory for its weights."""
    told = copy.deepcopy(config)
    told.id2label, told.label2id = {0: "reward"}, {"reward": 0}
    told.pad_token_id = pad
    told._attn_implementation = "eager"  # of what is only looked at and written down
    with torch.device("meta"):
        return cls(told)


def _freeze_unread(model: Any) -> None:
    """Nothing reads the output embedding, so it takes no gradient, unless it is the input embedding too."""
    shared = {id(p) for p in model.get_input_embeddings().parameters()}
    for p in model.get_output_embeddings().parameters():
        p.requires_grad_(p.requires_grad and id(p) in shared)

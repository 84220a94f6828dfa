"""A saved reward model, ours or anybody's, read as `transformers` reads it: a model for sequence classification with one label.
Here it only scores; how it is trained stands in reward_head.py."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from penchant.domains.base import Cost
from penchant.domains.folders import settings_of, weights_of
from penchant.domains.text.chat import Chat, Unfit
from penchant.domains.text.models import find, readable
from penchant.domains.text.quiet import quietly
from penchant.domains.text.reward_head import CLASSIFIER, is_adapter_of_classifier, is_classifier, left
from penchant.errors import Refusal
from penchant.feedback.records import Prompt, as_text

Ids = dict[str, list[int]]
"""What a tokenizer makes of a row: input_ids, and for some models token_type_ids."""


@dataclass(frozen=True, eq=False)
class Classifier:
    """r(x, y) of prompts and responses. Each row's score is what the model says of that row alone: rows are padded on the right
    with the model's own padding token, and where it has none they are read one by one."""

    model: Any
    tokenizer: Any
    reads: Callable[[Prompt, str], Ids]
    budget: int
    """Tokens that are scored at once."""

    @torch.no_grad()
    def __call__(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> Float[Tensor, "n"]:
        """NaN for a row that the model cannot read: one its template refuses, or past its positions."""
        out = torch.full((len(responses),), torch.nan)
        rows: dict[int, Ids] = {}
        for i, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
            try:
                ids = self.reads(prompt, response)
            except Unfit:
                continue
            if 0 < len(ids["input_ids"]) <= self.longest:
                rows[i] = ids
        places = list(rows)
        sizes = [len(rows[i]["input_ids"]) for i in places]
        groups = Cost(sizes, padded=True).micro_batches(self.budget) if self.pads else [[k] for k in range(len(sizes))]
        for group in groups:
            some = [places[k] for k in group]
            out[some] = self._scores([rows[i] for i in some]).float().cpu()
        return out

    @property
    def pads(self) -> bool:
        """Whether tokenizer and model agree on a padding token."""
        pad = self.model.config.get_text_config().pad_token_id
        return pad is not None and pad == self.tokenizer.pad_token_id

    @property
    def longest(self) -> int:
        positions = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        return 2**31 if positions is None else positions

    def _scores(self, rows: Sequence[Ids]) -> Float[Tensor, "n"]:
        if len(rows) == 1:
            batch: Any = {name: torch.tensor([ids]) for name, ids in rows[0].items()}
        else:
            batch = self.tokenizer.pad(list(rows), return_tensors="pt", padding_side="right")
        return self.model(**{name: x.to(self.model.device) for name, x in batch.items()}).logits[:, 0]


@quietly()
def load_classifier(name: str, device: torch.device, budget: int, *, allow_bin: bool = False) -> Classifier:
    """name: a folder or a hub id, of a whole reward model or of an adapter of one. Raises Refusal where it is none, or has more
    labels than one."""
    from transformers import AutoTokenizer

    folder, _ = find(name, None, allow_bin)
    with readable(name), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        model = _adapted(name, folder, allow_bin) if (folder / "adapter_config.json").is_file() else None
        model = model or _whole(name, folder, allow_bin)
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    labels = model.config.num_labels
    if labels != 1:
        raise Refusal(f"reward:{name}: the model has {labels} labels; a reward model has one, its score.")
    model.requires_grad_(False).eval().to(device)
    ours = left(folder)
    reads = _their_way(tokenizer) if ours is None else _our_way(tokenizer, ours["template"])
    return Classifier(model, tokenizer, reads, budget)


def _whole(name: str, folder: Path, allow_bin: bool, **settings: Any) -> Any:
    from transformers import AutoModelForSequenceClassification

    if not settings and not is_classifier(folder):
        raise Refusal(
            f"reward:{name}: this is no model for sequence classification (…{CLASSIFIER}), so it has no scores. A model that was "
            "aligned judges by its own reward as implicit:RUN, with the folder of its run."
        )
    settings_of(folder / "config.json")
    weights = weights_of(folder, allow_bin, "model")
    loaded: Any = AutoModelForSequenceClassification.from_pretrained(
        folder,
        dtype=torch.float32,
        trust_remote_code=False,
        use_safetensors=weights == "safetensors",
        local_files_only=True,
        output_loading_info=True,
        **settings,
    )
    model, told = loaded
    if not settings and (absent := sorted(told["missing_keys"])):
        raise Refusal(f"reward:{name}: {len(absent)} tensors, such as {absent[0]}, are not among its weights.")
    return model


def _adapted(name: str, folder: Path, allow_bin: bool) -> Any:
    """The base as a reward model, with the adapter and the head that lies in it."""
    from peft import PeftModel

    if not is_adapter_of_classifier(folder):
        raise Refusal(f"reward:{name}: this adapter is not one of a reward model (task_type SEQ_CLS), so it has no scores.")
    weights_of(folder, allow_bin, "adapter_model")
    told = settings_of(folder / "adapter_config.json")
    base, _ = find(str(told.get("base_model_name_or_path")), None, allow_bin)
    model = _whole(name, base, allow_bin, num_labels=1)
    tuned = PeftModel.from_pretrained(model, str(folder), local_files_only=True)
    if (ours := left(folder)) is not None:
        model.config.get_text_config().pad_token_id = ours["pad"]
    return tuned


def _our_way(tokenizer: Any, template: Any) -> Callable[[Prompt, str], Ids]:
    """A prompt and a response as they were trained on, the last token being the one that ends the turn."""
    chat = Chat(tokenizer, template)

    def ids(prompt: Prompt, response: str) -> Ids:
        return {"input_ids": [*chat.prompt(prompt).tolist(), *chat.completion(response).tolist()]}

    return ids


def _their_way(tokenizer: Any) -> Callable[[Prompt, str], Ids]:
    """The whole chat as the model's template writes it; without one, prompt and response as a pair of texts."""
    if tokenizer.chat_template is not None:
        chat = Chat(tokenizer)
        return lambda prompt, response: {"input_ids": chat.whole(prompt, response).tolist()}

    def pair(prompt: Prompt, response: str) -> Ids:
        read = tokenizer(as_text(prompt), response, split_special_tokens=True, return_attention_mask=False, verbose=False)
        return dict(read)

    return pair

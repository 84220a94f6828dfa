"""A language model as something to align: it scores responses inside its own forward, so that a wrapper (DDP, FSDP) sees
every use of it. It saves itself in the ecosystem's format and lends its reference; it knows no template and no rows."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.utils import logging

from penchant.domains.base import Want, masks
from penchant.domains.logits import chunked_values
from penchant.errors import Refusal, nearest

REFERENCE = "reference"
"""The name of a continued adapter's frozen copy."""
PLAIN = Want()


@contextmanager
def without_bars() -> Iterator[None]:
    """Without the progress bars of `transformers` and the hub, which would draw over the caller's own."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


class TextPolicy(nn.Module):
    """A `transformers` causal language model, or a `peft` model around one. Dropout is off, in training too: policy and
    reference must agree exactly before the first step, and a preference is a difference of log-probs."""

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Any,
        reference: Literal["adapter off", "copy"] | None = None,
        stops: Iterable[int] = (),
    ) -> None:
        super().__init__()
        self.model = model
        self.tokenizer = tokenizer
        self.reference = reference
        self.stops = sorted(stops)
        takes = inspect.signature(self.plain_model.forward).parameters
        self._keeps_logits = "logits_to_keep" in takes
        self._takes_positions = "position_ids" in takes
        self._held: tuple[TextPolicy, ...] = ()  # a tuple: a submodule would train, be saved and be counted
        self.train()

    @property
    def plain_model(self) -> Any:
        """The `transformers` model itself."""
        return self.model if self.reference is None else self.model.get_base_model()  # pyright: ignore

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def train(self, mode: bool = True) -> TextPolicy:
        """Leaves dropout off. Only layers that checkpoint their activations learn that they are in training."""
        super().train(False)
        self.training = mode
        for layer in self.modules():
            if isinstance(layer, GradientCheckpointingLayer) and layer.gradient_checkpointing:
                layer.training = mode
        return self

    def forward(self, contexts: Sequence[Tensor], responses: Sequence[Tensor], want: Want = PLAIN) -> dict[str, Tensor]:
        """`logp` and every wanted value, each [n, steps] in float32, exactly 0 beyond a response's end. A value that compares
        with the reference has the reference read here too, without gradient: a wrapper sees one forward pass."""
        tokens, attention, width = collate(contexts, responses, self.device)
        answer, mask = tokens[:, width:], masks([len(y) for y in responses]).to(self.device)
        # The last token of the longest response predicts nothing, so it is not read.
        what = (tokens[:, :-1], attention[:, :-1], answer.shape[1])
        ref = self._read_reference(*what) if "kl" in want.values else None
        return chunked_values(self.read(*what)[0], answer, mask, want, ref)

    @torch.no_grad()
    def _read_reference(self, tokens: Tensor, attention: Tensor, keep: int) -> Tensor:
        if self._held:
            return self._held[0].read(tokens, attention, keep)[0]
        with self.as_reference():
            return self.read(tokens, attention, keep)[0]

    def read(
        self, tokens: Tensor, attention: Tensor, keep: int, cache: Any = None, keep_cache: bool = False
    ) -> tuple[Tensor, Any]:
        """The last `keep` positions' logits [n, keep, vocabulary] and the cache, if kept. `attention` covers what the
        cache holds and the tokens after it."""
        extra: dict[str, Any] = {}
        if self._takes_positions:
            extra["position_ids"] = (attention.cumsum(-1) - 1).clamp(min=0)[:, -tokens.shape[1] :]
        if self._keeps_logits:
            extra["logits_to_keep"] = keep
        out = self.model(input_ids=tokens, attention_mask=attention, past_key_values=cache, use_cache=keep_cache, **extra)
        return out.logits[:, -keep:], out.past_key_values if keep_cache else None

    # --- the reference

    @property
    def knows_reference(self) -> bool:
        """Whether values that compare with the reference can be wanted."""
        return self.reference is not None or bool(self._held)

    def hold(self, copy: TextPolicy) -> None:
        """Keeps a frozen copy as the reference of a model that trains whole. It is no part of this module: it is neither
        trained, nor saved, nor counted."""
        self._held = (copy.requires_grad_(False).to(self.device),)

    @contextmanager
    def as_reference(self) -> Iterator[None]:
        """In here the policy computes as its reference: without the adapter we began, or with the frozen copy of the one
        that was given. What trains and what does not is the same after the context as before."""
        model: Any = self.model
        trains = {name: p.requires_grad for name, p in self.named_parameters()}
        try:
            if self.reference == "adapter off":
                with model.disable_adapter():
                    yield
            elif self.reference == "copy":
                active = model.active_adapter
                model.set_adapter(REFERENCE, inference_mode=True)
                try:
                    yield
                finally:
                    model.set_adapter(active)
            else:
                raise Refusal("this policy trains whole and holds no copy, so it is not its own reference.")
        finally:
            for name, p in self.named_parameters():  # peft makes whichever adapter it switches to trainable
                p.requires_grad_(trains[name])

    # --- what trains, and what is kept

    def named_trainable(self) -> Iterator[tuple[str, nn.Parameter]]:
        """The parameters that train, by name; tied ones once."""
        return ((name, p) for name, p in self.named_parameters() if p.requires_grad)

    def state(self) -> dict[str, Tensor]:
        """The trained tensors by name, as they stand in memory (not copies)."""
        return {name: p.detach() for name, p in self.named_trainable()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Puts back what `state` gave. The tensors are written in place, so tied weights and optimisers follow."""
        mine = dict(self.named_trainable())
        for name in sorted(mine.keys() ^ state.keys()):
            if name in mine:
                raise Refusal(f"the saved state lacks the parameter {name!r}, which trains in this model.")
            raise Refusal(f"the saved state has the parameter {name!r}, which does not train here; {nearest(name, mine)}")
        for name, p in mine.items():
            if state[name].shape != p.shape:
                raise Refusal(f"parameter {name!r} was saved as {tuple(state[name].shape)}, but here is {tuple(p.shape)}.")
        with torch.no_grad():
            for name, p in mine.items():
                p.copy_(state[name])

    @without_bars()
    def save(self, folder: Path) -> None:
        """Model (or adapter) and tokenizer as `transformers` and `peft` read them, in safetensors. A reference copy stays
        out. Not atomic by itself: give it a draft folder."""
        folder.mkdir(parents=True, exist_ok=True)
        model: Any = self.model
        if self.reference is None:
            if model.generation_config is not None and self.stops:
                model.generation_config.eos_token_id = self.stops if len(self.stops) > 1 else self.stops[0]
            model.save_pretrained(folder)
        else:
            # Embeddings are trained by no adapter of ours, so they are not copied into it either.
            model.save_pretrained(folder, selected_adapters=[model.active_adapter], save_embedding_layers=False)
        self.tokenizer.save_pretrained(folder)


def reference_of(policy: nn.Module) -> Callable[[], AbstractContextManager[None]] | None:
    """A context in which the policy is its own reference (`TextPolicy.as_reference`). None where the whole model trains, so
    that a copy or stored log-probs must serve."""
    inner = unwrap(policy)
    return None if inner.reference is None else inner.as_reference


def unwrap(policy: nn.Module) -> TextPolicy:
    """The policy inside whatever accelerate has put around it."""
    from accelerate.utils import extract_model_from_parallel

    inner = extract_model_from_parallel(policy)
    if not isinstance(inner, TextPolicy):
        raise Refusal(f"text needs a TextPolicy, as penchant.domains.models.load gives it, not a {type(inner).__name__}.")
    return inner


# --- the plain path; a faster one must give the same numbers from the same two arguments


def collate(contexts: Sequence[Tensor], responses: Sequence[Tensor], device: torch.device) -> tuple[Tensor, Tensor, int]:
    """Rows [pad | prompt | response | pad], so that all responses begin in one column: ids and attention, int64
    [n, width + steps], and that column's number."""
    width, steps = max(map(len, contexts)), max(map(len, responses))
    tokens = torch.zeros(len(contexts), width + steps, dtype=torch.long)
    attention = torch.zeros_like(tokens)
    for i, (prompt, answer) in enumerate(zip(contexts, responses, strict=True)):
        row = slice(width - len(prompt), width + len(answer))
        tokens[i, row] = torch.cat([prompt, answer])
        attention[i, row] = 1
    return tokens.to(device), attention.to(device), width

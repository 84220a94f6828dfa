"""A language model as something to align: it scores responses inside its own forward, so that a wrapper (DDP, FSDP) sees
every use of it. It saves itself in the ecosystem's format and lends its reference; it knows no template and no rows."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule
from transformers.modeling_layers import GradientCheckpointingLayer

from penchant.domains.base import Sparse, Want, masks
from penchant.domains.sharding import collected, opened, shard
from penchant.domains.text.decoding import Growing
from penchant.domains.text.extras import SECOND
from penchant.domains.text.logits import Head, Rows, chunked_values, placed, row_values
from penchant.domains.text.paths import ScoringPath, probe
from penchant.domains.text.quiet import quietly
from penchant.domains.text.reward_head import (
    SCORE,
    RewardHead,
    ends,
    mark_adapter,
    padding,
    read_to_the_end,
    save_classifier,
)
from penchant.domains.text.tree import OVER, Layout, Tree, collate, pack, pad
from penchant.domains.text.trunk import Trunk
from penchant.domains.trained import Trained
from penchant.errors import Refusal

REFERENCE = "reference"
"""The name of a continued adapter's frozen copy."""
PLAIN = Want()


class TextPolicy(Trained):
    """A `transformers` causal language model, or a `peft` model around one. Dropout is off, in training too: policy and
    reference must agree exactly before the first step, and a preference is a difference of log-probs."""

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Any,
        reference: Literal["adapter off", "copy"] | None = None,
        stops: Iterable[int] = (),
        longest: int | None = None,
        reward: RewardHead | None = None,
    ) -> None:
        """longest: tokens of prompt and response that are scored together at most, where that is known. reward: with it, the
        policy scores responses and is not asked for their log-probs."""
        super().__init__()
        self.model = model
        self.tokenizer = tokenizer
        self.reference = reference
        self.stops = sorted(stops)
        self.longest = longest
        self.reward = reward
        self.path: ScoringPath | None = None
        """How responses are read; probed at the first use, unless `follow` has said it."""
        self.trunk: Trunk | None = None
        """The layers that stay as they are, where only those above them train."""
        takes = inspect.signature(self.plain_model.forward).parameters
        self._keeps_logits = "logits_to_keep" in takes
        self._takes_positions = "position_ids" in takes
        attention = self.plain_model.config._attn_implementation
        self.attention: str = next((own for own, ours in OVER.items() if ours == attention), attention)
        self._saved: frozenset[str] = frozenset()  # once it is split: buffers that are made anew at loading are none of it
        self._held: tuple[TextPolicy, ...] = ()  # a tuple: a submodule would train, be saved and be counted
        self.train()

    @property
    def plain_model(self) -> Any:
        """The `transformers` model itself."""
        return self.model if self.reference is None else self.model.get_base_model()  # pyright: ignore

    @property
    def head(self) -> str:
        """What of it is read, in an objective's words."""
        return "lm" if self.reward is None else "reward"

    def train(self, mode: bool = True) -> TextPolicy:
        """Leaves dropout off. Only layers that checkpoint their activations learn that they are in training."""
        super().train(False)
        self.training = mode
        for layer in self.modules():
            if isinstance(layer, GradientCheckpointingLayer) and layer.gradient_checkpointing:
                layer.training = mode
        return self

    def forward(
        self,
        contexts: Sequence[Tensor],
        responses: Sequence[Sequence[Tensor]],
        want: Want = PLAIN,
        advantages: Sparse | None = None,
    ) -> dict[str, Tensor]:
        """`logp` and every wanted value of all responses of all rows, each [n, steps] in float32, exactly 0 beyond a
        response's end. A value that compares with the reference has the reference read here too, without gradient and from
        the same layout: a wrapper sees one forward pass. `advantages`: a teacher's, step after step of all responses. No rows
        have no values, whatever the model. With want.head "reward", `logp` is the score of each response, [n, 1]."""
        if not contexts:
            return {name: torch.zeros(0, 0, device=self.device) for name in ("logp", *sorted(want.values))}
        if want.head == "reward":
            return {"logp": self._scores(contexts, read_to_the_end(responses), ends(responses))}
        layout = self._layout(contexts, responses)
        if layout.tree is None and self.scoring_path.head == "logits" and self.trunk is None:
            return self.plainly(contexts, responses, want, advantages)
        flat = [y for ys in responses for y in ys]
        below = None if self.trunk is None else self.trunk.made(self, contexts, responses, layout)
        rows, ref = self._rows(layout, below), None
        if want.values & SECOND:
            with self._reference() as reference:
                ref = reference._rows(layout, below)
        mask = masks([len(y) for y in flat]).to(self.device)
        return placed(row_values(rows, torch.cat(flat).to(self.device), want, ref, advantages), mask)

    def _layout(self, contexts: Sequence[Tensor], responses: Sequence[Sequence[Tensor]]) -> Layout:
        """How the rows are read: packed, or padded where that is not right for them."""
        path = self.scoring_path
        if path.name != "padded" and path.reaches(contexts, responses):
            return pack(contexts, responses, path.name == "tree", self.device, path.kernel)
        return pad(contexts, responses, self.device)

    def _scores(self, contexts: Sequence[Tensor], responses: Sequence[Sequence[Tensor]], at: Tensor) -> Tensor:
        """The reward head on the states of the places `at` among all that predict, [n, 1]."""
        assert self.reward is not None
        layout = self._layout(contexts, responses)
        below = None if self.trunk is None else self.trunk.made(self, contexts, responses, layout)
        states = self._upper(below).base_model(**self.inputs(layout)).last_hidden_state.flatten(0, 1)
        return self.reward(states[layout.source[at.to(self.device)]])

    def _upper(self, below: Tensor | None) -> Any:
        """The model, or what of it lies above the hidden states of a layout, [sequences, tokens, size]."""
        model = self.plain_model
        return model if self.trunk is None or below is None else self.trunk.split.above(model, below)

    def plainly(
        self,
        contexts: Sequence[Tensor],
        responses: Sequence[Sequence[Tensor]],
        want: Want = PLAIN,
        advantages: Sparse | None = None,
    ) -> dict[str, Tensor]:
        """The same by the slow path that all others are held against: padded, from the model's own logits."""
        flat = [(x, y) for x, ys in zip(contexts, responses, strict=True) for y in ys]
        tokens, attention, width = collate([x for x, _ in flat], [y for _, y in flat], self.device)
        answer, mask = tokens[:, width:], masks([len(y) for _, y in flat]).to(self.device)
        # The last token of the longest response predicts nothing, so it is not read.
        what = (tokens[:, :-1], attention[:, :-1], answer.shape[1])
        z, ref = self.read(*what)[0], None
        if want.values & SECOND:
            with self._reference() as reference:
                ref = reference.read(*what)[0]
        return chunked_values(z, answer, mask, want, ref, advantages)

    @property
    def scoring_path(self) -> ScoringPath:
        """How responses are read. The first to ask has it probed."""
        return self.path or self.follow(self.probed())

    def probed(self) -> ScoringPath:
        """The fastest way of reading that is right for this model, found by trying. What a wrapper splits over processes is
        tried by all of them."""
        with opened(self):
            return probe(self)

    def follow(self, path: ScoringPath) -> ScoringPath:
        """From now on responses are read in this way, by the copy that is held too. Raises Refusal where the model cannot."""
        attention = self.attention if path.name == "padded" else OVER.get(self.attention)
        config = self.plain_model.config
        if attention is not None and attention != config._attn_implementation:
            self.plain_model.set_attn_implementation(attention)
        if attention is None or config._attn_implementation != attention:
            raise Refusal(f"the attention {self.attention!r} of a {type(self.plain_model).__name__} cannot be replaced.")
        if path.head == "hidden" and type(self.plain_model.get_output_embeddings()) is not nn.Linear:
            raise Refusal("this model's output embedding is no plain linear layer, so its logits are its own to make.")
        self.path = path
        for copy in self._held:
            copy.follow(path)
        return path

    def inputs(self, layout: Layout) -> dict[str, Any]:
        """What the model is given to read a layout."""
        how: dict[str, Any] = {"input_ids": layout.tokens, "attention_mask": layout.mask, "use_cache": False}
        if self._takes_positions:
            how["position_ids"] = layout.positions
        if layout.tree is not None:
            how["tree"] = layout.tree
            attention = self.plain_model.config._attn_implementation
            if attention not in OVER.values():  # it would read past the tree
                raise Refusal(
                    f"this model's attention was changed to {attention!r} since its policy chose how to read rows."
                )
        return how

    def _rows(self, layout: Layout, below: Tensor | None) -> Rows:
        """What predicts every answer's token, through the model's body and our head or through the model as it is. below: what
        the frozen layers made of the layout, [sequences, tokens, size]."""
        assert self.path is not None
        how, model = self.inputs(layout), self._upper(below)
        every = torch.arange(len(layout.source), device=self.device)
        if self.path.head == "hidden":
            made = model.base_model(**how).last_hidden_state
            head = model.get_output_embeddings()
            return Rows(
                made.flatten(0, 1)[layout.source], every, Head(head.weight, head.bias, self.path.scale, self.path.cap)
            )
        if self._keeps_logits and layout.tree is not None:
            return Rows(model(**how, logits_to_keep=layout.source).logits[0], every)
        return Rows(model(**how).logits.flatten(0, 1)[layout.source], every)

    @contextmanager
    def _reference(self) -> Iterator[TextPolicy]:
        """The policy that computes as this one's reference, without gradient."""
        with torch.no_grad():
            if self._held:
                yield self._held[0]
            else:
                with self.as_reference():
                    yield self

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

    def follow_up(
        self, tokens: Tensor, positions: Tensor, tree: Tree | Growing, cache: Growing, source: Tensor | None = None
    ) -> Tensor:
        """Logits [sequences, places, vocabulary] of tokens that attend by `tree`, at the places in `source` of a packed
        sequence, or at the last place of each."""
        how: dict[str, Any] = {"position_ids": positions} if self._takes_positions else {}
        if self._keeps_logits:
            how["logits_to_keep"] = 1 if source is None else source
        nothing = torch.zeros(1, 1, 1, 1, dtype=torch.bool, device=self.device)  # which the model passes on as it is
        out = self.model(input_ids=tokens, attention_mask=nothing, past_key_values=cache, use_cache=True, tree=tree, **how)
        return out.logits if self._keeps_logits else out.logits[:, -1:] if source is None else out.logits[:, source]

    # --- the reference

    @property
    def knows_reference(self) -> bool:
        """Whether values that compare with the reference can be wanted."""
        return self.reference is not None or bool(self._held)

    def hold(self, copy: TextPolicy) -> None:
        """Keeps a frozen copy as the reference of a model that trains whole. It is no part of this module: it is neither
        trained, nor saved, nor counted."""
        self._held = (copy.requires_grad_(False).to(self.device),)
        if isinstance(copy, FSDPModule):
            copy.unshard()  # its head, which the backward pass reads once more; its layers see to themselves
        if self.path is not None:
            copy.follow(self.path)

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

    def shard(self, mesh: DeviceMesh) -> None:
        """Splits the parameters over the processes of the mesh, from now on."""
        self._saved = frozenset(self._named())
        shard(self, mesh)
        with torch.no_grad():
            self([], [])  # who is called first is taken for the whole model: not one of its layers

    def freeze_below(self, top: int, name: str | None = None) -> None:
        """From now on only the last `top` decoder layers train, and the final norm above them (of an adapter, what it has in
        these layers); embedding and head, tied or not, stay as they are with the layers below. Those run once for each row
        that is scored. name: of the weights, by content, under which the hidden states they make are kept on disk; None
        keeps nothing. Raises Refusal where the model cannot be split there."""
        self.trunk = Trunk(self, top, name)

    @contextmanager
    def unkept(self) -> Iterator[None]:
        """In here nothing that is scored is left on disk or taken from it."""
        with nullcontext() if self.trunk is None else self.trunk.unkept():
            yield

    def tensors(self, keep: bool = True) -> dict[str, Tensor] | None:
        """All of the model's tensors, whole, for `save` by a process that keeps them; None where nothing is split, so that the
        model itself has them. All processes must ask."""
        if not isinstance(self, FSDPModule):
            return None
        named = [*self.model.named_parameters(remove_duplicate=False), *self.model.named_buffers(remove_duplicate=False)]
        tensors = dict(named) | ({} if self.reward is None else {SCORE: self.reward.weight})
        return collected({name: x for name, x in tensors.items() if name in self._saved}, keep)

    def _named(self) -> dict[str, Tensor]:
        """The tensors that a file would hold, by name, the head's for scores under that of `transformers`."""
        return {**self.model.state_dict(), **({} if self.reward is None else {SCORE: self.reward.weight.detach()})}

    @quietly()
    def save(self, folder: Path, tensors: Mapping[str, Tensor] | None = None) -> None:
        """Model (or adapter) and tokenizer as `transformers` and `peft` read them, in safetensors. A reference copy stays
        out. Not atomic by itself: give it a draft folder. tensors: what `tensors` gave, where parameters are split."""
        folder.mkdir(parents=True, exist_ok=True)
        model: Any = self.model
        state = None if tensors is None else dict(tensors)
        weight = None if self.reward is None else (state or self._named()).pop(SCORE)
        if self.reward is not None:
            self.tokenizer.pad_token_id = padding(self.tokenizer, self.stops)
        if self.reference is None and self.reward is not None and weight is not None:
            save_classifier(model, self.reward, state or model.state_dict(), weight, self.tokenizer.pad_token_id, folder)
        elif self.reference is None:
            if model.generation_config is not None and self.stops:
                model.generation_config.eos_token_id = self.stops if len(self.stops) > 1 else self.stops[0]
            model.save_pretrained(folder, state_dict=state)
        else:
            config = model.peft_config[model.active_adapter]
            if isinstance(config.target_modules, set):  # whose order hangs on the process: equal runs leave equal files
                config.target_modules = sorted(config.target_modules)
            # Embeddings are trained by no adapter of ours, so they are not copied into it either.
            adapters = [model.active_adapter]
            model.save_pretrained(folder, state_dict=state, selected_adapters=adapters, save_embedding_layers=False)
            if weight is not None:
                mark_adapter(weight, folder)
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
        raise Refusal(
            f"text needs a TextPolicy, as penchant.domains.text.models.load gives it, not a {type(inner).__name__}."
        )
    return inner

"""A model whose lower layers stay as they are: what they make of a row is computed once and kept, and only the layers above
are run and train. Where a model can be split is found by trying; how tables lie on disk stands in states.py."""

from __future__ import annotations

import copy
import hashlib
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from penchant.domains.text import blocks, states, tree
from penchant.domains.text.states import States
from penchant.domains.text.tree import Layout, pack, pad
from penchant.errors import Refusal
from penchant.files import cache_folder, fingerprint
from penchant.words import brief

if TYPE_CHECKING:
    from penchant.domains.text.policy import TextPolicy

Kind = Literal["tree", "packed", "padded"]
Whole = Float[Tensor, "sequences tokens size"]


@dataclass(frozen=True)
class Split:
    """Where a model's decoder layers lie, and how many of them stay as they are."""

    layers: str
    """The name of their list in the model, as model.layers."""
    frozen: int
    after: tuple[str, ...] = ()
    """Names of what the body has and uses after its last layer: the final norm."""
    others: int | None = None
    """How many values a layer returns besides the hidden states; None where it returns them alone."""

    @classmethod
    def of(cls, model: Any, top: int) -> Split:
        """Raises Refusal where it is not clear what the layers are, or where they are too few."""
        depth = model.config.get_text_config().num_hidden_layers
        lists = {name: x for name, x in model.base_model.named_modules() if isinstance(x, nn.ModuleList)}
        outer = [name for name in lists if not any(name.startswith(f"{other}.") for other in lists)]
        found = [name for name in outer if len(lists[name]) == depth]
        if len(found) != 1:
            raise _refused(top, f"a {type(model).__name__} has {len(found)} lists of {depth} decoder layers")
        if not 1 <= top < depth:
            raise Refusal(
                f"top:{top}: the model has {depth} decoder layers, so from 1 to {depth - 1} can train over frozen ones; "
                "'all' trains everything."
            )
        body = next(name for name, x in model.named_modules() if x is model.base_model)
        return cls(".".join(part for part in (body, found[0]) if part), depth - top)

    def of_model(self, model: nn.Module) -> nn.ModuleList:
        found = model.get_submodule(self.layers)
        assert isinstance(found, nn.ModuleList)
        return found

    def kept_out(self, model: nn.Module) -> str:
        """A regular expression for the names of all modules but those in the upper layers."""
        upper = "|".join(str(i) for i in range(self.frozen, len(self.of_model(model))))
        return rf"(?!{self.layers.replace('.', '[.]')}[.]({upper})[.]).*"

    def below(self, model: Any, how: dict[str, Any]) -> Float[Tensor, "*tokens size"]:
        """What the frozen layers make of the model's inputs. The layers above are not run."""
        layers, seen = self.of_model(model), list[Tensor]()

        def noted(*given: Any, **named: Any) -> Any:
            seen.append(_hidden(given, named))
            return self._returned(seen[-1])

        first = _stand_in(layers[self.frozen], noted)
        rest = [_stand_in(layer, self._passed) for layer in layers[self.frozen + 1 :]]
        _with(model, self.layers, nn.ModuleList([*layers[: self.frozen], first, *rest])).base_model(**how)
        return seen[0]

    def above(self, model: Any, made: Whole) -> Any:
        """The same model, sharing every parameter, but with `made` in the place of what its frozen layers would make."""
        layers = self.of_model(model)

        def given(*given: Any, **named: Any) -> Any:
            return self._returned(made.to(_hidden(given, named).dtype))

        lower = [_stand_in(layer, self._passed) for layer in layers[: self.frozen - 1]]
        last = _stand_in(layers[self.frozen - 1], given)
        return _with(model, self.layers, nn.ModuleList([*lower, last, *layers[self.frozen :]]))

    def _passed(self, *given: Any, **named: Any) -> Any:
        return self._returned(_hidden(given, named))

    def _returned(self, hidden: Tensor) -> Any:
        return hidden if self.others is None else (hidden, *(None,) * self.others)


class Trunk:
    """The frozen layers of one model, and the tables they made. A row's table [tokens, size] is computed with the row alone in
    the forward pass: it is a function of the row, so that nothing hangs on what is scored together or on what a cache holds."""

    def __init__(self, policy: TextPolicy, top: int, name: str | None = None) -> None:
        """Splits the policy's model and freezes all but its upper layers. name: of the model's weights, by content; without
        one no table is kept. Raises Refusal where the upper layers read more of the lower ones than hidden states."""
        self.top, self.name = top, name
        self.split = _traced(policy, Split.of(policy.plain_model, top))
        self._stores: dict[tuple[str, ...], States] = {}
        self._freeze(policy)

    @torch.no_grad()
    def made(
        self, policy: TextPolicy, contexts: Sequence[Tensor], responses: Sequence[Sequence[Tensor]], layout: Layout
    ) -> Whole:
        """What the frozen layers make of the rows of a layout: looked up, or computed and kept. Rounded to the number format
        that is in force either way."""
        assert policy.path is not None
        kind: Kind = "padded" if layout.tree is None else policy.path.name
        device, split = policy.device, self.split
        lower = next(split.of_model(policy.plain_model).parameters())
        if type(lower.data) is not Tensor:
            raise Refusal(
                f"top:{self.top}: the frozen layers are spread over processes as {type(lower.data).__name__}, which would have "
                "to meet for every row; leave them whole on each (shard what trains, or nothing)."
            )
        autocast = torch.is_autocast_enabled(device.type)
        dtype = torch.get_autocast_dtype(device.type) if autocast else lower.dtype
        rows = [(x, ys) for x, ys in zip(contexts, responses, strict=True) if ys]
        names = [_name(x, ys) for x, ys in rows]
        attention = policy.plain_model.config._attn_implementation
        store = self._store((kind, str(dtype), device.type, attention))
        tables: dict[str, Tensor] = {}
        fresh: dict[str, Tensor] = {}
        for name, (x, ys) in zip(names, rows, strict=True):
            if name not in tables:
                table = None if store is None else store.get(name)
                if table is None:
                    table = fresh[name] = _made(policy, split, kind, x, ys).to(dtype)
                tables[name] = table.to(device)
        if store is not None and fresh:
            store.keep(fresh)
        return _placed([tables[name] for name in names], [(len(x), ys) for x, ys in rows], layout)

    @contextmanager
    def unkept(self) -> Iterator[None]:
        """In here no table is looked up or kept."""
        name, self.name = self.name, None
        try:
            yield
        finally:
            self.name = name

    def _store(self, how: tuple[str, ...]) -> States | None:
        """A folder named by everything a table depends on but the row."""
        if self.name is None:
            return None
        how = (*how, torch.get_float32_matmul_precision(), f"{torch.get_num_threads()} threads", self.name)
        if how not in self._stores:
            code = "".join(
                Path(str(x.__file__)).read_text(encoding="utf-8") for x in (tree, blocks, states, sys.modules[__name__])
            )
            made = [*how, torch.__version__, version("transformers"), torch.backends.cpu.get_cpu_capability()]
            self._stores[how] = States(cache_folder() / "trunks" / fingerprint(repr(self.split), code, json.dumps(made)))
        return self._stores[how]

    def _freeze(self, policy: TextPolicy) -> None:
        """Of what would train, the upper layers and what comes after them still do. An adapter has no weights elsewhere."""
        model = policy.plain_model
        upper = [*self.split.of_model(model)[self.split.frozen :], *map(model.get_submodule, self.split.after)]
        heads = [] if policy.reward is None else [policy.reward]
        train = {id(p) for part in (*upper, *heads) for p in part.parameters()}
        lower = {id(p) for layer in self.split.of_model(model)[: self.split.frozen] for p in layer.parameters()}
        lower |= {id(p) for p in (*model.get_input_embeddings().parameters(), *model.get_output_embeddings().parameters())}
        if train & lower:
            raise _refused(self.top, "its upper layers share weights with what lies below them")
        for p in policy.parameters():
            p.requires_grad_(p.requires_grad and id(p) in train)
        if not any(p.requires_grad for p in policy.parameters()):
            raise Refusal(
                f"top:{self.top}: the adapter has no weights in the upper {self.top} layers, so nothing would train."
            )


def _made(policy: TextPolicy, split: Split, kind: Kind, x: Tensor, ys: Sequence[Tensor]) -> Float[Tensor, "tokens size"]:
    """One row's table: in the order in which it is packed, or its padded sequences one after the other, without pads."""
    model, device = policy.plain_model, policy.device
    layouts = [pad([x], [[y]], device) for y in ys] if kind == "padded" else [pack([x], [ys], kind == "tree", device)]
    return torch.cat([split.below(model, policy.inputs(layout))[0] for layout in layouts])


def _placed(tables: Sequence[Tensor], rows: Sequence[tuple[int, Sequence[Tensor]]], layout: Layout) -> Whole:
    """The rows' tables where the layout has their tokens, 0 where it has none. rows: a prompt's tokens, and its responses."""
    if layout.tree is not None:
        return torch.cat(list(tables))[None]
    out = tables[0].new_zeros(*layout.tokens.shape, tables[0].shape[-1])
    sequence = 0
    for table, (prompt, ys) in zip(tables, rows, strict=True):
        for part in table.split([prompt + len(y) - 1 for y in ys]):
            begin = int(layout.mask[sequence].argmax())
            out[sequence, begin : begin + len(part)] = part  # a response's own last token predicts nothing: 0
            sequence += 1
    return out


def _traced(policy: TextPolicy, split: Split) -> Split:
    """The split with what a forward pass shows: what a layer returns, and what the body uses after the last one. Refuses
    where hidden states put in the place of the lower layers do not give what the whole body gives, to the last bit."""
    model, top = policy.plain_model, len(split.of_model(policy.plain_model)) - split.frozen
    layers, called, returned = split.of_model(model), list[nn.Module](), list[Any]()
    inside = {id(part) for layer in layers for part in layer.modules()}
    names = {id(part): name for name, part in model.named_modules()}
    parts = [part for part in model.base_model.modules() if id(part) not in inside and part._parameters]
    hooks = [part.register_forward_pre_hook(lambda part, _: called.append(part)) for part in (*layers, *parts)]
    hooks.append(layers[0].register_forward_hook(lambda *given: returned.append(given[-1])))
    tokens = torch.arange(14, device=policy.device) * 7 % len(model.get_input_embeddings().weight)
    how = policy.inputs(pad([tokens[:6].cpu()], [[tokens[6:].cpu()]], policy.device))
    try:
        with torch.no_grad(), torch.autocast(policy.device.type, enabled=False):
            try:
                whole = model.base_model(**how).last_hidden_state
            finally:
                for hook in hooks:
                    hook.remove()
            order = [part for part in called if any(part is layer for layer in layers)]
            if [id(part) for part in order] != [id(layer) for layer in layers]:
                raise _refused(top, "its layers are not run once each, one after the other")
            last = max(i for i, part in enumerate(called) if part is layers[-1])
            after = tuple(dict.fromkeys(names[id(part)] for part in called[last + 1 :]))
            split = Split(split.layers, split.frozen, after, len(returned[0]) - 1 if type(returned[0]) is tuple else None)
            made = split.below(model, how)
            if made.shape[:-1] != how["input_ids"].shape:
                raise _refused(top, f"its layers hand on {made.dim()}-dimensional states")
            ours = split.above(model, made).base_model(**how).last_hidden_state
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        if isinstance(error, Refusal):
            raise
        raise _refused(top, f"{type(error).__name__}: {brief(str(error), 200)}") from error
    if not torch.equal(ours, whole):
        raise _refused(top, "its upper layers read more of the lower ones than their last hidden states")
    return split


def _refused(top: int, why: str) -> Refusal:
    return Refusal(f"top:{top}: this model cannot be split between its layers ({why}); train 'all' of it, or an adapter.")


def _name(x: Tensor, ys: Sequence[Tensor]) -> str:
    """A row by content."""
    digest = hashlib.sha256(json.dumps([len(x), *map(len, ys)]).encode())
    for ids in (x, *ys):
        digest.update(ids.numpy().tobytes())
    return digest.hexdigest()[:32]


def _hidden(given: tuple[Any, ...], named: dict[str, Any]) -> Tensor:
    """The hidden states among a layer's arguments."""
    return given[0] if given else named["hidden_states"]


def _stand_in(layer: nn.Module, forward: Callable[..., Any]) -> nn.Module:
    """The layer with all its attributes, which a body may read, but with another forward."""
    one = copy.copy(layer)
    one.forward = forward
    return one


def _with(model: nn.Module, name: str, part: nn.Module) -> Any:
    """The model with another part under this name. Everything else is shared; the model itself stays as it is."""
    first, _, rest = name.partition(".")
    view = copy.copy(model)
    child = model.get_submodule(first)
    view._modules = {**model._modules, first: _with(child, rest, part) if rest else part}
    return view

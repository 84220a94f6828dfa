"""Rows packed one after the other into one sequence without padding, each prompt read once for all of its responses, and the
attention that keeps them apart. Which models this is right for is probed elsewhere; here nothing is scored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import eager_mask, sdpa_mask

from penchant.domains.text import flex
from penchant.domains.text.blocks import ROWS, Piece, attend
from penchant.domains.text.flex import Sight
from penchant.errors import Refusal

SPLIT = 1.5
"""Attention over a whole row is one call but also computes what it then masks, response against response. Past this many
times the needed products, prompt and responses attend in a call each."""
CALL = 256
"""What a call costs besides, in products of a query and a key."""
OVER = {"sdpa": "penchant_sdpa", "eager": "penchant_eager"}
"""The name of our attention over each of the model's own, which it is where no tree is given."""
_HARMLESS = frozenset(
    {"position_ids", "cache_position", "use_cache", "output_attentions", "output_hidden_states", "output_router_logits"}
)

Queries = Float[Tensor, "batch heads queries size"]
Keys = Float[Tensor, "batch shared keys size"]
Values = Float[Tensor, "batch shared keys width"]


@dataclass(frozen=True)
class Block:
    """A prompt and the responses that continue it, [prompt | response 1 | … | response K] in the packed sequence."""

    start: int
    prompt: int
    """Tokens of the prompt."""
    branches: tuple[int, ...]
    """Tokens of each response that are read: all but its last, which predicts nothing."""

    @property
    def size(self) -> int:
        return self.prompt + sum(self.branches)

    @property
    def splits(self) -> bool:
        """Whether attending in parts is worth its calls."""
        needed = CALL + self.prompt**2 + sum(CALL + n * (self.prompt + n) for n in self.branches)
        return len(self.branches) > 1 and self.size**2 > SPLIT * needed

    @property
    def parts(self) -> list[tuple[slice, slice | None]]:
        """(the queries, the prompt before them) of every call: within its part a token sees what stands before it."""
        if not self.splits:
            return [(slice(self.start, self.start + self.size), None)]
        before, at = slice(self.start, self.start + self.prompt), self.start + self.prompt
        out: list[tuple[slice, slice | None]] = [(before, None)]
        for n in self.branches:
            out += [(slice(at, at + n), before)] if n else []
            at += n
        return out


@dataclass(frozen=True, eq=False)
class Tree:
    """Who may see whom in one packed sequence. It is handed to the model as an argument of its forward: a checkpointed layer
    that is computed again sees its own tree, whatever was packed since."""

    blocks: tuple[Block, ...]
    positions: Int[Tensor, "tokens"]
    branch: Int[Tensor, "tokens"]
    """0 for a prompt's token, k for one of its response k."""
    device: torch.device
    kernel: Literal["blocks", "flex"] = "blocks"
    """What attends: a call for each block, or one for the whole sequence (flex.py)."""
    _sight: list[Sight] = field(default_factory=list)
    _masks: dict[tuple[int, int | None], Tensor | None] = field(default_factory=dict)
    _pieces: dict[int | None, list[Piece]] = field(default_factory=dict)

    def mask(self, queries: slice, before: slice | None, window: int | None) -> Bool[Tensor, "1 1 queries keys"] | None:
        """Which keys a part's queries see; None where that is simply everything up to the query. The same in every layer, so
        made once."""
        key = (queries.start, window)
        if key not in self._masks:
            self._masks[key] = self._made(queries, before, window)
        return self._masks[key]

    def _made(self, queries: slice, before: slice | None, window: int | None) -> Tensor | None:
        sees = self._sees(queries, before, queries, window)
        if before is None and bool((sees == torch.ones_like(sees).tril()).all()):
            return None
        return sees[None, None].to(self.device)

    def _sees(self, queries: slice, before: slice | None, own: slice, window: int | None) -> Bool[Tensor, "queries keys"]:
        """A window counts positions, as they would stand in a sequence of prompt and response alone."""
        at = torch.arange(len(self.positions))
        keys = at[own] if before is None else torch.cat([at[before], at[own]])
        branch, other = self.branch[queries, None], self.branch[None, keys]
        sees = (keys <= at[queries, None]) & ((other == 0) | (other == branch))
        if window is not None:
            sees &= self.positions[queries, None] - self.positions[None, keys] < window
        return sees

    def pieces(self, window: int | None) -> list[Piece]:
        """The parts of all blocks, a few queries at a time. The same in every layer, so made once."""
        if window not in self._pieces:
            parts = [part for block in self.blocks for part in block.parts]
            self._pieces[window] = [
                self._piece(slice(at, min(at + ROWS, queries.stop)), before, queries.start, window)
                for queries, before in parts
                for at in range(queries.start, queries.stop, ROWS)
            ]
        return self._pieces[window]

    def _piece(self, queries: slice, before: slice | None, start: int, window: int | None) -> Piece:
        sees = self._sees(queries, before, slice(start, queries.stop), window)
        hides = (~sees).any(0).nonzero()
        first = int(hides[0]) if len(hides) else sees.shape[1]
        hidden = torch.zeros(len(sees), sees.shape[1] - first).masked_fill_(~sees[:, first:], -torch.inf)
        return Piece(queries, before, start, hidden.to(self.device))

    def attend(
        self, module: nn.Module, query: Queries, key: Keys, value: Values, **how: Any
    ) -> Float[Tensor, "batch queries heads width"]:
        """What a layer makes of its queries, keys and values."""
        by = _by_blocks if self.kernel == "blocks" else _at_once
        return by(query, key, value, self, **how)

    @property
    def sight(self) -> Sight:
        """The same in every layer, so made once."""
        if not self._sight:
            row = torch.cat([torch.full((block.size,), i) for i, block in enumerate(self.blocks)])
            self._sight.append(Sight.of(row, self.branch, self.positions, self.device))
        return self._sight[0]


@dataclass(frozen=True, eq=False)
class Layout:
    """Rows of feedback as a model reads them: many in one packed sequence, or each response padded in a sequence of its own."""

    tokens: Int[Tensor, "sequences tokens"]
    positions: Int[Tensor, "sequences tokens"]
    mask: Tensor
    """What the model is given as attention_mask: [sequences, tokens], or an empty 4D one, which it passes on as it is."""
    source: Int[Tensor, "answers"]
    """Where, in all sequences one after the other, the answers' tokens are predicted, response after response: the first of
    each at its prompt's last token."""
    tree: Tree | None


def pad(contexts: Sequence[Tensor], responses: Sequence[Sequence[Tensor]], device: torch.device) -> Layout:
    """A sequence [pad | prompt | response | pad] for every response."""
    flat = [(x, y) for x, ys in zip(contexts, responses, strict=True) for y in ys]
    tokens, mask, width = collate([x for x, _ in flat], [y for _, y in flat], device)
    tokens, mask = tokens[:, :-1], mask[:, :-1]  # the last token of the longest response predicts nothing
    firsts = [i * tokens.shape[1] + width - 1 for i in range(len(flat))]
    source = torch.cat([torch.arange(first, first + len(y)) for first, (_, y) in zip(firsts, flat, strict=True)])
    return Layout(tokens, (mask.cumsum(-1) - 1).clamp(min=0), mask, source.to(device), None)


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


def pack(
    contexts: Sequence[Tensor],
    responses: Sequence[Sequence[Tensor]],
    share: bool,
    device: torch.device,
    kernel: Literal["blocks", "flex"] = "blocks",
) -> Layout:
    """Rows to one sequence. share: each prompt once for all of its responses; else once for every response."""
    rows = zip(contexts, responses, strict=True)
    split = [(x, ys) for x, ys in rows if ys] if share else [(x, [y]) for x, ys in rows for y in ys]
    tokens: list[Tensor] = []
    positions: list[Tensor] = []
    branch: list[Tensor] = []
    source: list[Tensor] = []
    blocks: list[Block] = []
    at = 0
    for prompt, answers in split:
        size, last = len(prompt), at + len(prompt) - 1
        blocks.append(Block(at, size, tuple(len(y) - 1 for y in answers)))
        tokens += [prompt, *(y[:-1] for y in answers)]
        positions.append(torch.arange(size))
        branch.append(torch.zeros(size, dtype=torch.long))
        at += size
        for k, y in enumerate(answers, start=1):
            n = len(y) - 1
            positions.append(torch.arange(size, size + n))
            branch.append(torch.full((n,), k))
            source += [torch.tensor([last]), torch.arange(at, at + n)]
            at += n
    places = torch.cat(positions)
    tree = Tree(tuple(blocks), places, torch.cat(branch), device, kernel)
    nothing = torch.zeros(1, 1, 1, 1, dtype=torch.bool, device=device)
    return Layout(torch.cat(tokens)[None].to(device), places[None].to(device), nothing, torch.cat(source).to(device), tree)


# --- attention


def over_sdpa(
    module: nn.Module, query: Queries, key: Keys, value: Values, attention_mask: Tensor | None, **how: Any
) -> tuple[Tensor, None]:
    """What a layer calls in place of "sdpa": the same, but by the tree's blocks where the forward was given a tree."""
    if (tree := how.pop("tree", None)) is not None:
        return tree.attend(module, query, key, value, **how), None
    return sdpa_attention_forward(module, query, key, value, attention_mask, **how)


def over_eager(
    module: nn.Module, query: Queries, key: Keys, value: Values, attention_mask: Tensor | None, **how: Any
) -> tuple[Tensor, None]:
    """What a layer calls in place of "eager", which is written out in every model's own file. The probe compares."""
    if (tree := how.pop("tree", None)) is not None:
        return tree.attend(module, query, key, value, **how), None
    scaling, softcap = how.get("scaling"), how.get("softcap")
    return _written_out(query, _repeated(key, query), _repeated(value, query), attention_mask, scaling, softcap), None


def _by_blocks(
    query: Queries,
    key: Keys,
    value: Values,
    tree: Tree,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **others: Any,
) -> Float[Tensor, "batch queries heads width"]:
    """Never one mask over the whole sequence: what is computed grows with its rows, not with its square. Raises Refusal on an
    argument it does not know, for that might change what is attended to."""
    refuse_unknown(others, dropout)
    if query.device.type == "cpu" and softcap is None:
        scale = query.shape[-1] ** -0.5 if scaling is None else scaling
        return attend(query, key, value, tree.pieces(sliding_window), scale)
    key, value = _repeated(key, query), _repeated(value, query)
    out = []
    for block in tree.blocks:
        for queries, before in block.parts:
            q, k, v = query[:, :, queries], key[:, :, queries], value[:, :, queries]
            if before is not None:
                k, v = torch.cat([key[:, :, before], k], 2), torch.cat([value[:, :, before], v], 2)
            mask = tree.mask(queries, before, sliding_window)
            if softcap is None:
                y = scaled_dot_product_attention(q, k, v, mask, is_causal=mask is None, scale=scaling).transpose(1, 2)
            else:
                sees = q.new_ones(q.shape[2], k.shape[2], dtype=torch.bool).tril() if mask is None else mask
                hidden = torch.where(sees, 0.0, torch.finfo(q.dtype).min).to(q.dtype)
                y = _written_out(q, k, v, hidden, scaling, softcap)
            out.append(y)
    return torch.cat(out, 1)


def _at_once(
    query: Queries,
    key: Keys,
    value: Values,
    tree: Tree,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **others: Any,
) -> Float[Tensor, "batch queries heads width"]:
    """The same in one call. Raises Refusal as the other does."""
    refuse_unknown(others, dropout)
    return flex.attend(query, key, value, tree.sight, scaling, sliding_window, softcap)


def refuse_unknown(others: Mapping[str, Any], dropout: float) -> None:
    """Raises Refusal where a layer says more than we know how to attend by."""
    unknown = sorted(name for name, x in others.items() if x is not None and name not in _HARMLESS)
    if unknown or dropout:
        raise Refusal(f"attention by trees knows nothing of {', '.join(unknown) or 'dropout'}.")


def _written_out(
    query: Queries, key: Keys, value: Values, mask: Tensor | None, scaling: float | None, softcap: float | None
) -> Float[Tensor, "batch queries heads width"]:
    """softmax(cap · tanh(q kᵀ · scaling / cap) + mask) v, the softmax in float32."""
    z = query @ key.transpose(2, 3) * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    if softcap is not None:
        z = capped(z, softcap)
    if mask is not None:
        z = z + mask
    p = z.softmax(-1, dtype=torch.float32).to(query.dtype)
    return (p @ value).transpose(1, 2).contiguous()


def capped(z: Tensor, cap: float) -> Tensor:
    """cap · tanh(z / cap)."""
    return torch.tanh(z / cap) * cap


def _repeated(x: Values, query: Queries) -> Float[Tensor, "batch heads keys width"]:
    """Keys or values once for each of the query heads that share them."""
    times = query.shape[1] // x.shape[1]
    return x if times == 1 else x.repeat_interleave(times, 1)


AttentionInterface.register(OVER["sdpa"], over_sdpa)
AttentionInterface.register(OVER["eager"], over_eager)
AttentionMaskInterface.register(OVER["sdpa"], sdpa_mask)
AttentionMaskInterface.register(OVER["eager"], eager_mask)

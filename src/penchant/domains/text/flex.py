"""Attention over a packed sequence in one kernel, FlexAttention, which is told who sees whom by a function and skips what nobody
sees: the way on GPU, where many small calls wait for each other. It knows tokens' rows, branches and positions, no model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, flex_attention
from torch.nn.functional import pad

BLOCK = 128
"""Tokens in a block, which is skipped whole where no query in it sees a key. A sequence is padded to a multiple, so that the
kernel is compiled once for each multiple and not for each length."""


@dataclass(frozen=True, eq=False)
class Sight:
    """Who sees whom among the tokens of a packed sequence, padded to whole blocks. A token of padding is a row of its own and
    sees itself: without any key a softmax is not a number."""

    row: Int[Tensor, "padded"]
    branch: Int[Tensor, "padded"]
    """0 for a prompt's token, k for one of its response k."""
    position: Int[Tensor, "padded"]
    device: torch.device
    _masks: dict[int | None, BlockMask] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        row: Int[Tensor, "tokens"],
        branch: Int[Tensor, "tokens"],
        position: Int[Tensor, "tokens"],
        device: torch.device,
    ) -> Sight:
        """Rows follow each other, numbered from 0."""
        more = -len(row) % BLOCK
        own = torch.arange(more) + int(row[-1]) + 1
        return cls(torch.cat([row, own]), pad(branch, (0, more)), pad(position, (0, more)), device)

    def mask(self, window: int | None) -> BlockMask:
        """The same in every layer, so made once. Which blocks are looked at follows from where rows begin; there is never a
        number for every pair of tokens."""
        if window not in self._masks:
            self._masks[window] = self._made(window)
        return self._masks[window]

    def _made(self, window: int | None) -> BlockMask:
        row, branch, position = (x.to(self.device) for x in (self.row, self.branch, self.position))
        reach = 0 if window is None else window

        # lambdas, for the library reads them as it compiles, and would read whatever was wrapped around a function too
        own = lambda query, key: (branch[key] == 0) | (branch[key] == branch[query])  # noqa: E731
        sees = lambda batch, head, query, key: (row[query] == row[key]) & (key <= query) & own(query, key)  # noqa: E731
        near = lambda query, key: position[query] - position[key] < reach  # noqa: E731
        # a window counts positions, as they would stand in a sequence of prompt and response alone
        both = lambda batch, head, query, key: sees(batch, head, query, key) & near(query, key)  # noqa: E731
        mask_mod = sees if window is None else both
        partly, wholly = self.blocks(window)
        return BlockMask.from_kv_blocks(*self._listed(partly), *self._listed(wholly), BLOCK_SIZE=BLOCK, mask_mod=mask_mod)

    def blocks(self, window: int | None) -> tuple[Bool[Tensor, "blocks blocks"], Bool[Tensor, "blocks blocks"]]:
        """Which blocks of keys the queries of each block may see in part, and which they all see whole: those that hold nothing
        but the beginning of their row's one prompt."""
        row, branch = self.row.view(-1, BLOCK), self.branch.view(-1, BLOCK)
        at = torch.arange(len(row))
        may = (at[None] <= at[:, None]) & (row[None, :, -1] >= row[:, None, 0])
        one = row[:, 0] == row[:, -1]
        prompt = one & (branch == 0).all(-1)
        whole = may & (at[None] < at[:, None]) & one[:, None] & prompt[None] & (row[:, None, 0] == row[None, :, 0])
        if window is not None:
            whole &= False
        return may & ~whole, whole

    def _listed(self, some: Bool[Tensor, "blocks blocks"]) -> tuple[Tensor, Tensor]:
        """For every block of queries, how many blocks of keys there are, and which, those first."""
        order = some.int().sort(dim=-1, descending=True, stable=True).indices
        return some.sum(-1)[None, None].int().to(self.device), order[None, None].int().to(self.device)


def attend(
    query: Float[Tensor, "1 heads tokens size"],
    key: Float[Tensor, "1 shared tokens size"],
    value: Float[Tensor, "1 shared tokens width"],
    sight: Sight,
    scaling: float | None,
    window: int | None,
    softcap: float | None,
) -> Float[Tensor, "1 tokens heads width"]:
    """softmax(cap · tanh(q kᵀ · scaling / cap)) v over what each token sees; keys and values may be shared by several heads."""
    tokens, device = query.shape[2], query.device.type
    low = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else value.dtype
    q, k, v = (pad(x.to(low), (0, 0, 0, len(sight.row) - tokens)) for x in (query, key, value))

    cap = 1.0 if softcap is None else softcap
    capped = lambda score, batch, head, at, to: torch.tanh(score / cap) * cap  # noqa: E731
    how: dict[str, Any] = {"block_mask": sight.mask(window), "scale": scaling, "enable_gqa": q.shape[1] != k.shape[1]}
    made = _kernel(device)(q, k, v, score_mod=None if softcap is None else capped, **how)
    return made[:, :, :tokens].transpose(1, 2)


@cache
def _kernel(device: str) -> Callable[..., Tensor]:
    """Compiled on GPU; elsewhere written out over all pairs of tokens, which is good for comparing and for nothing else."""
    return torch.compile(flex_attention, dynamic=False) if device == "cuda" else flex_attention  # pyright: ignore

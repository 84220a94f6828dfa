"""Attention over short pieces of a packed sequence, forward and backward written out: on a core, a library's own attention in
16 bits takes three times as long for pieces of a few hundred tokens. It knows pieces and masks, no tree and no model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

ROWS = 128
"""Queries in a piece: what comes after the last of them is not even computed, and the scores of a piece stay in a cache."""


@dataclass(frozen=True, eq=False)
class Piece:
    """Queries that follow each other, and the keys they attend to: some tokens before, then their own from `start` on."""

    queries: slice
    before: slice | None
    start: int
    hidden: Float[Tensor, "queries columns"]
    """0 or −∞ for every query and each of the last columns; the columns before these are seen by all."""

    def of(self, x: Float[Tensor, "shared tokens size"]) -> Float[Tensor, "shared keys size"]:
        """The keys' part of what is given for all tokens."""
        own = x[:, self.start : self.queries.stop]
        return own if self.before is None else torch.cat([x[:, self.before], own], 1)

    def add(self, total: Float[Tensor, "shared tokens size"], part: Float[Tensor, "shared keys size"]) -> None:
        """Adds what was computed for the keys to where it belongs."""
        first = 0 if self.before is None else self.before.stop - self.before.start
        total[:, self.start : self.queries.stop] += part[:, first:]
        if self.before is not None:
            total[:, self.before] += part[:, :first]


def attend(
    query: Float[Tensor, "1 heads tokens size"],
    key: Float[Tensor, "1 shared tokens size"],
    value: Float[Tensor, "1 shared tokens width"],
    pieces: Sequence[Piece],
    scaling: float,
) -> Float[Tensor, "1 tokens heads width"]:
    """softmax(q kᵀ · scaling) v for every piece; keys and values may be shared by several heads. Scores and softmax are float32
    or wider, the other products in the values' type, under autocast in its own, as a library's attention does it."""
    device = query.device.type
    low = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else value.dtype
    out: Any = _Attend.apply(query.to(low), key.to(low), value.to(low), pieces, scaling)
    return out


class _Attend(torch.autograd.Function):
    """With p = softmax(s), s = scaling · q kᵀ, o = p v and the slope g of what follows o:

    dv = pᵀ g,    dp = g vᵀ,    ds = p (dp − Σ p dp),    dq = scaling · ds k,    dk = scaling · dsᵀ q
    """

    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, pieces: Sequence[Piece], scaling: float
    ) -> Tensor:
        out = query.new_empty(1, query.shape[2], query.shape[1], value.shape[3])
        with torch.autocast(query.device.type, enabled=False):
            for piece in pieces:
                p = _weights(_grouped(query, key, piece), piece.of(key[0]), piece, scaling)
                o = p.to(value.dtype) @ piece.of(value[0])
                out[0, piece.queries] = o.view(query.shape[1], -1, o.shape[-1]).transpose(0, 1)
        ctx.save_for_backward(query, key, value)
        ctx.pieces, ctx.scaling = pieces, scaling
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        query, key, value = ctx.saved_tensors
        wide = torch.promote_types(query.dtype, torch.float32)
        of_query = torch.empty_like(query)
        of_key, of_value = (torch.zeros(x.shape[1:], device=x.device, dtype=wide) for x in (key, value))
        slope = slope.transpose(1, 2)  # heads before tokens, as queries are
        with torch.autocast(query.device.type, enabled=False):
            for piece in ctx.pieces:
                q, g = _grouped(query, key, piece), _grouped(slope, key, piece)
                k, v = piece.of(key[0]), piece.of(value[0])
                p = _weights(q, k, piece, ctx.scaling)
                piece.add(of_value, p.to(g.dtype).transpose(1, 2) @ g)
                dp = (g @ v.transpose(1, 2)).to(wide)
                ds = p.mul_(dp.sub_((p * dp).sum(-1, keepdim=True))).to(q.dtype)
                piece.add(of_key, ds.transpose(1, 2) @ q)
                of_query[0, :, piece.queries] = (ds @ k).view(query.shape[1], -1, k.shape[-1])
        of_key, of_value = of_key.mul_(ctx.scaling).to(key.dtype)[None], of_value.to(value.dtype)[None]
        return of_query.mul_(ctx.scaling), of_key, of_value, None, None


def _grouped(x: Tensor, key: Tensor, piece: Piece) -> Tensor:
    """A piece's queries (or what has their shape, [1, heads, tokens, size]), those of all heads that share a key one after the
    other: [shared, heads of each · queries, size]. So every product is one of few large ones."""
    return x[0, :, piece.queries].reshape(key.shape[1], -1, x.shape[-1])


def _weights(q: Tensor, k: Tensor, piece: Piece, scaling: float) -> Tensor:
    """The softmax of a piece's scores, [shared, heads of each · queries, keys] in float32 or wider."""
    wide = torch.promote_types(q.dtype, torch.float32)
    scores = (q.to(wide) * scaling) @ k.to(wide).transpose(1, 2)
    rows, columns = piece.hidden.shape
    scores.view(len(q), -1, rows, scores.shape[-1])[..., scores.shape[-1] - columns :] += piece.hidden.to(wide)
    return scores.softmax(-1)

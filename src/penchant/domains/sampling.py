"""Sampling from a text policy: each prompt is read once for all of its samples, and every sample has random numbers of its
own, so what a prompt gets does not hang on what else is in the batch. Nothing is scored or decoded here."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from penchant.domains.policy import TextPolicy
from penchant.domains.tree import collate


@torch.no_grad()
def generate(
    policy: TextPolicy,
    prompts: Sequence[Tensor],
    *,
    stops: Collection[int],
    count: int,
    limit: int,
    temperature: float,
    top_p: float,
    seed: int,
    batch: int,
) -> list[list[Tensor]]:
    """`count` answers of at most `limit` tokens to each prompt's ids, int64, each ending in one of `stops` unless it was
    cut. `batch` is how many tokens are held at once."""
    out: list[list[Tensor]] = [[] for _ in prompts]
    for rows in by_size([count * (len(prompt) + limit) for prompt in prompts], batch):
        noise = torch.stack([_uniform(seed, i, k, limit) for i in rows for k in range(count)])
        answers = _answers(policy, [prompts[i] for i in rows], stops, count, limit, temperature, top_p, noise)
        for place, i in enumerate(rows):
            out[i] = answers[place * count : (place + 1) * count]
    return out


def _answers(
    policy: TextPolicy,
    prompts: list[Tensor],
    stops: Collection[int],
    count: int,
    limit: int,
    temperature: float,
    top_p: float,
    noise: Float[Tensor, "n limit"],
) -> list[Tensor]:
    device = policy.device
    ends = torch.tensor(sorted(stops), device=device)
    tokens, attention, _ = collate(prompts, [prompt[:0] for prompt in prompts], device)
    z, cache = policy.read(tokens, attention, 1, keep_cache=True)
    if count > 1:
        cache.batch_repeat_interleave(count)
    z, attention = z[:, -1].repeat_interleave(count, 0), attention.repeat_interleave(count, 0)
    going = torch.arange(len(z), device=device)  # which answer each row of the cache belongs to
    noise = noise.to(device)
    out: list[list[int]] = [[] for _ in range(len(z))]
    for step in range(limit):
        token = pick(z, noise[going, step], temperature, top_p)
        for answer, chosen in zip(going.tolist(), token.tolist(), strict=True):
            out[answer].append(chosen)
        stay = (~torch.isin(token, ends)).nonzero()[:, 0]
        if step + 1 == limit or len(stay) == 0:
            break
        if len(stay) < len(going):  # rows that have ended are read no further
            cache.batch_select_indices(stay)
            going, token, attention = going[stay], token[stay], attention[stay]
        attention = torch.nn.functional.pad(attention, (0, 1), value=1)
        z, cache = policy.read(token[:, None], attention, 1, cache, keep_cache=True)
        z = z[:, -1]
    return [torch.tensor(answer, dtype=torch.long) for answer in out]


def pick(z: Float[Tensor, "n vocabulary"], noise: Float[Tensor, "n"], temperature: float, top_p: float) -> Int[Tensor, "n"]:
    """One token per row of logits: the likeliest at temperature 0, else the one at which the cumulative probability passes
    `noise`, uniform in [0, 1). `top_p` < 1 keeps the fewest likeliest tokens that reach it (Holtzman et al. 2020)."""
    if temperature == 0:
        return z.argmax(-1)
    p = (z.double() / temperature).softmax(-1)
    order = None
    if top_p < 1:
        p, order = p.sort(-1, descending=True)
        p = torch.where(p.cumsum(-1) - p < top_p, p, 0.0)
    reached = p.cumsum(-1)
    token = torch.searchsorted(reached, (noise[:, None] * reached[:, -1:]).contiguous(), right=True)
    token = token.clamp(max=z.shape[-1] - 1)
    return (token if order is None else order.gather(-1, token))[:, 0]


def _uniform(seed: int, prompt: int, sample: int, limit: int) -> Float[Tensor, "limit"]:
    name = hashlib.sha256(f"{seed}/{prompt}/{sample}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(name[:8], "little") >> 1)
    return torch.rand(limit, generator=generator, dtype=torch.float64)


def by_size(sizes: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Places of similar size together, longest first, as many as `budget` holds when all are padded to the longest."""
    order = sorted(range(len(sizes)), key=lambda i: (-sizes[i], i))
    while order:
        n = max(1, budget // max(sizes[order[0]], 1))
        yield order[:n]
        order = order[n:]

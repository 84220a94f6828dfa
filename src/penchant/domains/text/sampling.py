"""Sampling from a text policy: each prompt is read once for all of its samples, and every sample has random numbers of its
own, so what a prompt gets does not hang on what else is in the batch. Nothing is judged or decoded here."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from penchant.domains.text.policy import TextPolicy
from penchant.domains.text.products import laid_out
from penchant.domains.text.reading import begin

DROP = 8
"""Answers that have ended are read no further once they are one in so many: letting them go moves the others' memory."""


@dataclass(frozen=True, eq=False)
class Answer:
    """One sampled answer."""

    ids: Int[Tensor, "tokens"]
    """The tokens that were drawn, the stop token among them."""
    logp: Float[Tensor, "tokens"]
    """log π of each at temperature 1, as the sampler saw it while it drew."""


@runtime_checkable
class Sampler(Protocol):
    """Who draws answers: `generate` here, or somebody in its place."""

    def __call__(
        self,
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
        numbers: Sequence[int],
    ) -> list[list[Answer]]:
        """What `generate` says."""
        ...


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
    numbers: Sequence[int],
) -> list[list[Answer]]:
    """`count` answers of at most `limit` tokens to each prompt's ids, int64, each ending in one of `stops` unless it was
    cut. `batch` is how many tokens are held at once. `numbers`: the i of each prompt, from which and from seed and k the random
    numbers of its sample k are made."""
    out: list[list[Answer]] = [[] for _ in prompts]
    assert policy.scoring_path is not None  # probed, if it was not, with the model's layers as they are
    with laid_out(policy.plain_model):
        for rows in by_size([len(prompt) + count * limit for prompt in prompts], batch):
            noise = torch.stack([_uniform(seed, numbers[i], k, limit) for i in rows for k in range(count)])
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
) -> list[Answer]:
    ends = torch.tensor(sorted(stops), device=policy.device)
    reader, z = begin(policy, prompts, count, limit)
    going = torch.arange(len(z), device=policy.device)  # which answer each row of the reader belongs to
    noise = noise.to(policy.device)
    ids = torch.zeros(len(z), limit, dtype=torch.long, device=policy.device)
    logp = torch.zeros(len(z), limit, device=policy.device)
    ended = torch.zeros(len(z), dtype=torch.bool, device=policy.device)
    lengths = torch.full((len(z),), limit, device=policy.device)
    for step in range(limit):
        with torch.autocast(policy.device.type, enabled=False):
            token, said = pick(z.float(), noise[going, step], temperature, top_p)
        ids[going, step], logp[going, step] = token, said
        stop = torch.isin(token, ends) & ~ended[going]
        lengths[going[stop]] = step + 1
        ended[going[stop]] = True
        stay = (~ended[going]).nonzero()[:, 0]
        if step + 1 == limit or len(stay) == 0:
            break
        if DROP * (len(going) - len(stay)) >= len(going):
            reader.keep(stay)
            going, token = going[stay], token[stay]
        z = reader.read(token)
    kept = zip(ids.cpu(), logp.cpu(), lengths.tolist(), strict=True)
    return [Answer(row[:n].clone(), said[:n].clone()) for row, said, n in kept]


def pick(
    z: Float[Tensor, "n vocabulary"], noise: Float[Tensor, "n"], temperature: float, top_p: float
) -> tuple[Int[Tensor, "n"], Float[Tensor, "n"]]:
    """One token per row of logits, and its log-prob at temperature 1: the likeliest at temperature 0, else the one at which
    the cumulative probability passes `noise`, uniform in [0, 1). `top_p` < 1 keeps the fewest likeliest tokens that reach
    it (Holtzman et al. 2020)."""
    if temperature == 0:
        token = z.argmax(-1)
    else:
        p = (z if temperature == 1 else z / temperature).softmax(-1)
        order = None
        if top_p < 1:
            p, order = p.sort(-1, descending=True)
            p = torch.where(p.cumsum(-1, dtype=torch.float64) - p < top_p, p, 0.0)
        reached = p.cumsum(-1, dtype=torch.float64)
        token = torch.searchsorted(reached, (noise[:, None] * reached[:, -1:]).contiguous(), right=True)
        token = token.clamp(max=z.shape[-1] - 1)
        token = (token if order is None else order.gather(-1, token))[:, 0]
    return token, z.gather(-1, token[:, None])[:, 0] - z.logsumexp(-1)


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

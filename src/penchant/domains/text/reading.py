"""A model read token by token while it answers: with the prompt kept once for all of its answers where a probe shows that
right, else through the model's own cache. It draws no token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from penchant.domains.text.decoding import Growing
from penchant.domains.text.tree import collate, pack

if TYPE_CHECKING:
    from penchant.domains.text.policy import TextPolicy

Logits = Float[Tensor, "answers vocabulary"]


def begin(policy: TextPolicy, prompts: Sequence[Tensor], count: int, limit: int) -> tuple[Plain | Shared, Logits]:
    """Reads the prompts, for `count` answers of at most `limit` tokens to each. The logits of every answer's first token."""
    path = policy.scoring_path
    longest = max(map(len, prompts)) + limit
    shares = path.decodes and (path.reach is None or longest <= path.reach)
    return (Shared if shares else Plain).begin(policy, prompts, count, limit)


class Plain:
    """Through the model's own cache, each answer with its prompt to itself. What is in such a cache only the model knows (a
    recurrent state, say), so it is neither copied nor cut: answers that have ended are read on and not looked at."""

    def __init__(self, policy: TextPolicy, cache: Any, attention: Int[Tensor, "all tokens"]) -> None:
        self._policy, self._cache, self._attention = policy, cache, attention
        self._going = torch.arange(len(attention), device=policy.device)

    @classmethod
    def begin(cls, policy: TextPolicy, prompts: Sequence[Tensor], count: int, limit: int) -> tuple[Plain, Logits]:
        each = [prompt for prompt in prompts for _ in range(count)]
        tokens, attention, _ = collate(each, [prompt[:0] for prompt in each], policy.device)
        z, cache = policy.read(tokens, attention, 1, keep_cache=True)
        return cls(policy, cache, attention), z[:, -1]

    def read(self, token: Int[Tensor, "answers"]) -> Logits:
        """The logits after one more token of every answer."""
        self._attention = torch.nn.functional.pad(self._attention, (0, 1), value=1)
        every = token.new_zeros(len(self._attention)).index_copy(0, self._going, token)
        z, self._cache = self._policy.read(every[:, None], self._attention, 1, self._cache, keep_cache=True)
        return z[self._going, -1]

    def keep(self, stay: Int[Tensor, "staying"]) -> None:
        """Only these answers go on."""
        self._going = self._going[stay]


class Shared:
    """Prompts packed one after the other, read and kept once for all of their answers."""

    def __init__(self, policy: TextPolicy, cache: Growing) -> None:
        self._policy, self._cache = policy, cache

    @classmethod
    def begin(cls, policy: TextPolicy, prompts: Sequence[Tensor], count: int, limit: int) -> tuple[Shared, Logits]:
        layout = pack(prompts, [[prompt[:1]] for prompt in prompts], True, policy.device)
        assert layout.tree is not None
        cache = Growing([len(prompt) for prompt in prompts], count, limit, policy.device)
        z = policy.follow_up(layout.tokens, layout.positions, layout.tree, cache, layout.source)
        return cls(policy, cache), z[0].repeat_interleave(count, 0)

    def read(self, token: Int[Tensor, "answers"]) -> Logits:
        z = self._policy.follow_up(token[:, None], self._cache.positions, self._cache, self._cache)
        self._cache.grow()
        return z[:, -1]

    def keep(self, stay: Int[Tensor, "staying"]) -> None:
        self._cache.keep(stay)

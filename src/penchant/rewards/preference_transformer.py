"""Preference Transformer: a segment's score is a weighted sum of rewards that may hang on everything before, with weights that an
attention over the whole segment gives. It is a model alone; how it learns stands in learned.py."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from penchant.errors import Refusal
from penchant.rewards.steps import Steps
from penchant.rewards.stepwise import StepRewards, pooled

Score = Literal["attention", "sum", "mean", "last"]
"""attention: the paper's weighted sum. The others pool rewards of a plain head; the released code's setting is mean."""


def preference_attention(
    query: Float[Tensor, "n steps size"],
    key: Float[Tensor, "n steps size"],
    rewards: Float[Tensor, "n steps"],
    mask: Bool[Tensor, "n steps"],
) -> tuple[Float[Tensor, "n"], Float[Tensor, "n steps"]]:
    """Σ_t w_t r_t and w, [n, steps]: w_t = mean_i softmax_t(q_i · k_t / √size), over the segment's own steps, both ways in time
    (Kim et al. 2023, arXiv 2303.00957, section 4.2). It equals the mean over i of z_i = Σ_t softmax_t(q_i · k_t / √size) r_t,
    which the authors' code has."""
    said = (query @ key.mT / math.sqrt(query.shape[-1])).masked_fill(~mask[:, None], -torch.inf)
    attention = torch.where(mask[:, :, None], said.softmax(-1), 0.0)
    weight = attention.sum(1) / mask.sum(-1, keepdim=True)
    return (weight * torch.where(mask, rewards, 0.0)).sum(-1), weight


class Block(nn.Module):
    """A layer of GPT-2: attention to what came before, then two linear layers, each behind a LayerNorm and added."""

    def __init__(self, size: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.before, self.between = nn.LayerNorm(size), nn.LayerNorm(size)
        self.asked, self.answered = nn.Linear(size, 3 * size), nn.Linear(size, size)
        self.mixed = nn.Sequential(nn.Linear(size, 4 * size), nn.ReLU(), nn.Linear(4 * size, size), nn.Dropout(dropout))
        self.lost = nn.Dropout(dropout)

    def forward(self, x: Float[Tensor, "n tokens size"]) -> Float[Tensor, "n tokens size"]:
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in self.asked(self.before(x)).chunk(3, -1))
        lost = self.dropout if self.training else 0.0
        found = scaled_dot_product_attention(q, k, v, dropout_p=lost, is_causal=True).transpose(1, 2).flatten(2)
        x = x + self.lost(self.answered(found))
        return x + self.mixed(self.between(x))


class PreferenceTransformer(StepRewards):
    """Tokens a₁ s₁ a₂ s₂ …, each a linear layer of action or observation plus a learnt embedding of its step (counted from 1
    within the segment), through causal layers; the state at s_t has r_t, q_t and k_t (Kim et al. 2023, arXiv 2303.00957;
    csmile-1006/PreferenceTransformer, whose commands leave the attention of the paper off: `score="mean"`)."""

    kind = "preference-transformer"

    def __init__(
        self,
        observed: int,
        acted: int,
        size: int = 256,
        layers: int = 3,
        heads: int = 1,
        dropout: float = 0.1,
        longest: int = 1000,
        score: Score = "attention",
    ) -> None:
        """longest: steps of a segment, at most."""
        super().__init__(observed, acted)
        if min(size, layers, heads, longest) < 1 or size % heads or not 0 <= dropout < 1:
            raise Refusal(
                f"size={size}, layers={layers}, heads={heads}, dropout={dropout}, longest={longest}: all at least 1, size a "
                "multiple of heads, dropout in [0, 1)."
            )
        if score not in ("attention", "sum", "mean", "last"):
            raise Refusal(f"score={score!r}: it must be 'attention', 'sum', 'mean' or 'last'.")
        self.size, self.longest, self.dropout, self.heads = size, longest, dropout, heads
        self.score: Score = score
        self.of_observation, self.of_action = nn.Linear(observed, size), nn.Linear(acted, size)
        self.of_time = nn.Embedding(longest + 1, size)
        self.first, self.final = nn.LayerNorm(size), nn.LayerNorm(size)
        self.blocks = nn.ModuleList(Block(size, heads, dropout) for _ in range(layers))
        plain = nn.Sequential(nn.Linear(size, size // 2), nn.ReLU(), nn.Linear(size // 2, 1))
        self.head = nn.Linear(size, 2 * size + 1) if score == "attention" else plain

    def states(self, steps: Steps) -> Float[Tensor, "n steps size"]:
        """What is known at each step's observation."""
        n, length = steps.mask.shape
        if length > self.longest:
            raise Refusal(f"segments of {length} steps; this model reads at most {self.longest}.")
        when = self.of_time(torch.arange(1, length + 1, device=self.mean.device))
        tokens = torch.stack(
            [self.of_action(steps.actions.to(self.mean)) + when, self.of_observation(self.seen(steps.observations)) + when],
            2,
        )
        x = self.first(tokens.view(n, 2 * length, self.size))
        for block in self.blocks:
            x = block(x)
        return self.final(x)[:, 1::2]

    def rewards(self, steps: Steps) -> Float[Tensor, "members n steps"]:
        """r_t without its weight: what the authors hand to reinforcement learning."""
        return self.head(self.states(steps))[None, ..., -1]

    def scores(self, steps: Steps) -> Float[Tensor, "members n"]:
        if self.score != "attention":
            return pooled(self.rewards(steps), steps.mask, self.score)
        query, key, reward = self.head(self.states(steps)).split([self.size, self.size, 1], -1)
        return preference_attention(query, key, reward[..., 0], steps.mask)[0][None]

    def told(self) -> dict[str, Any]:
        return {
            "observed": self.observed, "acted": self.acted, "size": self.size, "layers": len(self.blocks), "heads": self.heads,
            "dropout": self.dropout, "longest": self.longest, "score": self.score,
        }  # fmt: skip

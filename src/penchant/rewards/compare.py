"""From scores to comparisons and back. A judge compares by the Bradley-Terry model, a comparer scores by how often a
response wins; neither is trained here."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from penchant.errors import Refusal
from penchant.objectives.base import Positive, check_fields
from penchant.rewards.base import Comparer, Context, Judge, Judgement
from penchant.rewards.combine import Weighable


@dataclass(frozen=True)
class BradleyTerry:
    """P(a ≻ b) = σ((r(a) − r(b)) / temperature)        Bradley & Terry 1952; NaN where either judgement failed"""

    judge: Judge
    """Gives the rewards r; the sum of its dimensions counts."""
    temperature: Positive = 1.0
    """In units of the reward: larger makes the comparer less sure."""

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def name(self) -> str:
        return self.judge.name

    def __call__(self, contexts: Sequence[Context], a: Sequence[str], b: Sequence[str]) -> Float[Tensor, "n"]:
        difference = self.judge(contexts, a).total - self.judge(contexts, b).total
        return torch.sigmoid(difference / self.temperature)


def as_comparer(judge: Judge, temperature: float | int = 1.0) -> BradleyTerry:
    """A judge as a comparer: P(a ≻ b) = σ((r(a) − r(b)) / temperature)."""
    return BradleyTerry(judge, temperature)


@dataclass(frozen=True)
class WinRate(Weighable):
    """A comparer as a judge: the mean probability with which a response beats the others given to the same prompt (and
    annotator) in the same call, in [0, 1]. Every two are asked in both orders, (P(a ≻ b) + 1 − P(b ≻ a)) / 2, so that a
    liking for the first place cancels. k responses cost k (k − 1) comparisons."""

    comparer: Comparer

    @property
    def name(self) -> str:
        return self.comparer.name

    def __call__(self, contexts: Sequence[Context], responses: Sequence[str]) -> Judgement:
        groups: dict[str, list[int]] = {}
        for row, context in enumerate(contexts):
            groups.setdefault(json.dumps([context.prompt, context.annotator]), []).append(row)
        alone = [rows[0] for rows in groups.values() if len(rows) == 1]
        if alone:
            raise Refusal(
                f"the comparer {self.name!r} can only score two or more responses to one prompt, "
                f"but response {alone[0] + 1} is the only one to its prompt; sample with count of at least 2."
            )
        asked = [(i, j) for rows in groups.values() for i in rows for j in rows if i != j]
        beats = self.comparer(
            [contexts[i] for i, _ in asked], [responses[i] for i, _ in asked], [responses[j] for _, j in asked]
        )
        wins = dict(zip(asked, beats.double().tolist(), strict=True))
        rates = [0.0] * len(responses)
        for rows in groups.values():
            for i in rows:
                both = [(wins[i, j] + 1 - wins[j, i]) / 2 for j in rows if j != i]
                rates[i] = sum(both) / len(both)
        reward = torch.tensor(rates, dtype=torch.float32).reshape(len(responses), 1)
        return Judgement(reward, torch.isfinite(reward[:, 0]), (self.name,))


def as_judge(comparer: Comparer) -> WinRate:
    """A comparer as a judge: each response's mean probability of beating the others to its prompt."""
    return WinRate(comparer)

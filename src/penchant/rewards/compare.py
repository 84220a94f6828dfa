"""From scores to comparisons and back. A judge compares by the Bradley-Terry model, a comparer scores by how often a
response wins; neither is trained here."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from jaxtyping import Float
from torch import Tensor

from penchant.errors import Refusal
from penchant.objectives.base import Positive, check_fields
from penchant.rewards.base import Comparer, Context, Judge, Judgement
from penchant.rewards.combine import Weighable


@dataclass(frozen=True)
class ByScore:
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

    @property
    def symmetric(self) -> bool:
        return True

    def __call__(self, contexts: Sequence[Context], a: Sequence[str], b: Sequence[str]) -> Float[Tensor, "n"]:
        difference = self.judge(contexts, a).total - self.judge(contexts, b).total
        return torch.sigmoid(difference / self.temperature)


def as_comparer(judge: Judge, temperature: float | int = 1.0) -> ByScore:
    """A judge as a comparer: P(a ≻ b) = σ((r(a) − r(b)) / temperature)."""
    return ByScore(judge, temperature)


def both_ways(comparer: Comparer, contexts: Sequence[Context], a: Sequence[str], b: Sequence[str]) -> Float[Tensor, "n"]:
    """(P(a ≻ b) + 1 − P(b ≻ a)) / 2, in float64: a liking for the first place cancels, so that a comparer with nothing else
    says 1/2, and what is asked the other way round is answered 1 − p. A symmetric comparer is asked once."""
    n = len(contexts)
    if comparer.symmetric:
        return checked(comparer, comparer(contexts, a, b), n)
    said = checked(comparer, comparer([*contexts, *contexts], [*a, *b], [*b, *a]), 2 * n)
    return (said[:n] + 1 - said[n:]) / 2


def checked(comparer: Comparer, said: Tensor, n: int) -> Float[Tensor, "n"]:
    """What a comparer said, detached, in float64; refused where it is not one probability (or NaN) for each question."""
    said = torch.as_tensor(said).detach().double().cpu()
    if said.shape != (n,):
        raise Refusal(f"the comparer {comparer.name!r} said {said.numel()} things of {n} comparisons.")
    if bool(((said < 0) | (said > 1)).any()):
        worst = float(said[(said < 0) | (said > 1)][0])
        raise Refusal(f"the comparer {comparer.name!r} said {worst:g}; it must give probabilities in [0, 1].")
    return said


@dataclass(frozen=True)
class WinRate(Weighable):
    """A comparer as a judge: the mean probability with which a response beats the others given to the same prompt (and
    annotator) in the same call, in [0, 1]. Every two are asked in both orders where the comparer is not symmetric, so
    that a liking for the first place cancels. k responses cost k (k − 1) comparisons then, and half of it else."""

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
        asked = [both for rows in groups.values() for both in combinations(rows, 2)]
        beats = both_ways(
            self.comparer,
            [contexts[i] for i, _ in asked],
            [responses[i] for i, _ in asked],
            [responses[j] for _, j in asked],
        )
        wins = dict(zip(asked, beats.tolist(), strict=True))
        rates = [0.0] * len(responses)
        for rows in groups.values():
            for i in rows:
                rates[i] = sum(wins[i, j] if i < j else 1 - wins[j, i] for j in rows if j != i) / (len(rows) - 1)
        reward = torch.tensor(rates, dtype=torch.float32).reshape(len(responses), 1)
        return Judgement(reward, torch.isfinite(reward[:, 0]), (self.name,))


@dataclass(frozen=True)
class WinAgainst(Weighable):
    """A comparer as a judge of one response at a time: how probably it beats a given answer to the same prompt, in [0, 1].
    Against answers of the model that a run starts from, 1/2 is no change."""

    comparer: Comparer
    answers: Mapping[str, str]
    """By prompt, as `key` writes it."""

    @property
    def name(self) -> str:
        return f"P(better than at the start), {self.comparer.name}"

    @staticmethod
    def key(context: Context) -> str:
        return json.dumps(context.prompt)

    def __call__(self, contexts: Sequence[Context], responses: Sequence[str]) -> Judgement:
        against = [self.answers[self.key(context)] for context in contexts]
        reward = both_ways(self.comparer, contexts, responses, against).float().reshape(len(responses), 1)
        return Judgement(reward, torch.isfinite(reward[:, 0]), (self.name,))


def as_judge(comparer: Comparer) -> WinRate:
    """A comparer as a judge: each response's mean probability of beating the others to its prompt."""
    return WinRate(comparer)

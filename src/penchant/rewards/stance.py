"""Which side an answer takes on a topic: support, neutral or oppose, as probabilities. A language model is asked through its
label tokens, or a rule counts words; whether a side is right is nobody's business here."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from penchant.errors import Refusal
from penchant.feedback.records import as_text
from penchant.rewards.asking import AnswerScore
from penchant.rewards.base import Context
from penchant.rewards.ngrams import words

STANCES = ("support", "neutral", "oppose")
QUESTION = (
    "Somebody was asked about {topic} and answered. Say which side the answer takes.\n\nQuestion:\n{prompt}\n\n"
    "Answer:\n{answer}\n\nDoes the answer support, oppose or stay neutral on {topic}? Reply with support, neutral or oppose alone."
)
"""How it is put. What is filled in is never read as a place to fill."""


class StanceJudge(Protocol):
    """(contexts, topics, answers) → P(support, neutral, oppose), NaN where it cannot say."""

    @property
    def name(self) -> str: ...

    def __call__(
        self, contexts: Sequence[Context], topics: Sequence[str], answers: Sequence[str]
    ) -> Float[Tensor, "n stances"]: ...


@dataclass(frozen=True)
class AskedStance:
    """P(label) ∝ the probability of its spellings with and without a leading space, as the answer of a language model that is
    shown question, answer and topic. Soft: an unsure judge says so. A small model has likings of its own for a label; look at
    what it says of answers whose side you know."""

    score: AnswerScore
    name: str = "self"
    question: str = QUESTION

    def __post_init__(self) -> None:
        for place in ("{prompt}", "{answer}", "{topic}"):
            if place not in self.question:
                raise Refusal(f"the question of a stance judge has no {place}; it would not see what it is to judge.")

    def put(self, context: Context, topic: str, answer: str) -> str:
        filled = {"prompt": as_text(context.prompt), "topic": topic, "answer": answer}
        return re.sub(r"\{(prompt|topic|answer)\}", lambda place: filled[place[1]], self.question)

    def __call__(
        self, contexts: Sequence[Context], topics: Sequence[str], answers: Sequence[str]
    ) -> Float[Tensor, "n stances"]:
        asked = [self.put(*one) for one in zip(contexts, topics, answers, strict=True)]
        spelled = [spelling for label in STANCES for spelling in (label, f" {label}")]
        with torch.no_grad():
            logp = self.score([q for q in asked for _ in spelled], spelled * len(asked)).detach().double()
        return logp.reshape(len(asked), len(STANCES), 2).logsumexp(-1).softmax(-1)


@dataclass(frozen=True)
class RuleStance:
    """One-hot by words: support where more words of one kind stand in the answer than of the other, neutral where as many. An
    answer without any, a refusal among them, is neutral."""

    support: frozenset[str]
    oppose: frozenset[str]
    name: str = "rule"

    def __call__(
        self, contexts: Sequence[Context], topics: Sequence[str], answers: Sequence[str]
    ) -> Float[Tensor, "n stances"]:
        return torch.stack([self._one(answer) for answer in answers]) if answers else torch.zeros(0, len(STANCES))

    def _one(self, answer: str) -> Tensor:
        found = words(answer)
        gap = sum(w in self.support for w in found) - sum(w in self.oppose for w in found)
        return torch.eye(len(STANCES), dtype=torch.float64)[0 if gap > 0 else 2 if gap < 0 else 1]


FOR = (
    "yes",
    "agree",
    "support",
    "favour",
    "favor",
    "good",
    "right",
    "benefit",
    "benefits",
    "should",
    "important",
    "approve",
)
AGAINST = ("no", "disagree", "oppose", "against", "bad", "wrong", "harm", "harms", "not", "never", "reject")
SIMPLE = RuleStance(frozenset(FOR), frozenset(AGAINST))
"""A toy: yes against no. For trying things out."""

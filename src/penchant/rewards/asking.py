"""A language model as a comparer: it is asked which of two answers is better, and the log-probs of "A" and "B" say how sure
it is. Nothing is sampled and nothing carries gradient; the model itself is a callable that somebody above provides."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from penchant.errors import Refusal
from penchant.feedback.records import Prompt, as_text
from penchant.objectives.base import Positive, check_fields
from penchant.rewards.base import Context

AnswerScore = Callable[[Sequence[Prompt], Sequence[str]], Float[Tensor, "n"]]
"""(prompts, answers) → log π(answer | prompt) without its stop token, NaN where it cannot be scored."""

LABELS = ("A", "B")
QUESTION = (
    "Two answers were given to the same conversation. Read both and say which one is better.\n\n"
    "Conversation:\n{prompt}\n\nAnswer A:\n{a}\n\nAnswer B:\n{b}\n\nWhich answer is better? Reply with A or B alone."
)
"""How a comparison is put. {prompt}, {a} and {b} are filled in; nothing in them is read as a place to fill."""


@dataclass(frozen=True)
class Asking:
    """Who is to be asked, and how; with a scorer (`by`) it is a comparer. Zhai et al. 2024, arXiv 2405.14103, let a model
    judge its own answers so; their prompt and their treatment of the two orders were not at hand, these are ours."""

    model: str | None = None
    """A language model by name; None is the model that the run starts from, as it was then."""
    temperature: Positive = 1.0
    """The log-odds of the two labels are divided by it: larger makes an over-confident judge less sure."""
    question: str = QUESTION
    """The comparison prompt, with {prompt}, {a} and {b} in it."""

    def __post_init__(self) -> None:
        check_fields(self)
        for place in ("{prompt}", "{a}", "{b}"):
            if place not in self.question:
                raise Refusal(f"the question of Asking has no {place}; the judge would not see what it is to compare.")

    @property
    def name(self) -> str:
        who = "self" if self.model is None else f"model:{self.model}"
        plain = self.temperature == 1 and self.question == QUESTION
        return who if plain else f"{who}, temperature {self.temperature:g}, asking {self.question!r}"

    def by(self, score: AnswerScore) -> Labels:
        """The comparer that asks this scorer."""
        return Labels(self, score)

    def put(self, context: Context, a: str, b: str) -> str:
        """The comparison prompt."""
        filled = {"prompt": as_text(context.prompt), "a": a, "b": b}
        return re.sub(r"\{(prompt|a|b)\}", lambda place: filled[place[1]], self.question)  # in one pass: texts may hold {a}


@dataclass(frozen=True)
class Labels:
    """q(a ≻ b) = P(A) / (P(A) + P(B)), where a label's probability is the sum of its spellings with and without a leading
    space. It likes a place, as judges do, so it is to be asked in both orders."""

    asking: Asking
    score: AnswerScore

    @property
    def name(self) -> str:
        return self.asking.name

    @property
    def symmetric(self) -> bool:
        return False

    def __call__(self, contexts: Sequence[Context], a: Sequence[str], b: Sequence[str]) -> Float[Tensor, "n"]:
        prompts = [self.asking.put(*one) for one in zip(contexts, a, b, strict=True)]
        answers = [spelling for label in LABELS for spelling in (label, f" {label}")]
        with torch.no_grad():
            logp = self.score([p for p in prompts for _ in answers], answers * len(prompts)).detach().double()
        first, second = logp.reshape(len(prompts), len(LABELS), 2).logsumexp(-1).unbind(1)
        return torch.sigmoid((first - second) / self.asking.temperature)

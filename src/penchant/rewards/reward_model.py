"""A trained model as a judge: one with a head for scores, or a finished run by the reward that its objective implies. Nothing is
trained and no file is read here: the scorer is a callable that somebody above provides."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from penchant.feedback.records import Prompt
from penchant.rewards.base import Context, Judgement
from penchant.rewards.combine import Weighable

Score = Callable[[Sequence[Prompt], Sequence[str]], Float[Tensor, "n"]]
"""(prompts, responses) → one score each, NaN where one cannot be scored (a prompt that is too long, say)."""


@dataclass(frozen=True)
class RewardModel:
    """Who is to score; with a scorer (`by`) it is a judge."""

    model: str
    """reward: a folder or hub id of a model for sequence classification with one label. implicit: the folder of a finished run,
    which knows its objective and what it began with."""
    kind: Literal["reward", "implicit"] = "reward"
    """reward: the model's own score. implicit: the reward by which its objective trained it, for DPO β log π/π_ref."""

    @property
    def name(self) -> str:
        return f"{self.kind}:{self.model}"

    def by(self, score: Score) -> Scores:
        """The judge that asks this scorer."""
        return Scores(self, score)


@dataclass(frozen=True)
class Scores(Weighable):
    """A reward model that is ready. Only differences between responses to one prompt mean something."""

    who: RewardModel
    score: Score

    @property
    def name(self) -> str:
        return self.who.name

    def __call__(self, contexts: Sequence[Context], responses: Sequence[str]) -> Judgement:
        with torch.no_grad():
            said = self.score([context.prompt for context in contexts], responses).detach().float().cpu()
        reward = said.reshape(len(responses), 1)
        return Judgement(reward, torch.isfinite(reward[:, 0]), ("reward",))

"""Positivity of a text by the VADER lexicon (Hutto & Gilbert 2014). It reads the response alone: a word list knows nothing
of the prompt, of truth or of sense, which is what makes it an honest example of a reward that can be gamed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch

from penchant.errors import Refusal
from penchant.rewards.base import Context, Judgement
from penchant.rewards.combine import Weighable


@cache
def analyser() -> Callable[[str], dict[str, Any]]:
    """The lexicon's scorer, loaded once per process. It keeps no state between texts, so threads may share it."""
    try:
        from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer
    except ImportError as missing:
        raise Refusal(
            "the judge 'vader' needs the package vaderSentiment, which is not installed: "
            "pip install 'penchant[demo]' (or: pip install vaderSentiment)."
        ) from missing
    return SentimentIntensityAnalyzer().polarity_scores


class Vader(Weighable):
    """VADER's compound score of each response, in [-1, 1]; 0 for a text without a word of feeling, and for no text."""

    name = "vader"

    def __init__(self) -> None:
        analyser()

    def __repr__(self) -> str:
        return "Vader()"

    def __call__(self, contexts: Sequence[Context], responses: Sequence[str]) -> Judgement:
        score = analyser()
        compound = [[float(score(text)["compound"])] for text in responses]
        reward = torch.tensor(compound, dtype=torch.float32).reshape(len(responses), 1)
        return Judgement(reward, torch.ones(len(responses), dtype=torch.bool), (self.name,))

"""What a run has to know of the thing it aligns, beyond what the engine asks of its domain. Text, pictures and policies have one
each; the run's stages are the same for all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from penchant.domains.base import Domain, Encoded, Samples
from penchant.engine.precision import Precision
from penchant.engine.sources import Anchors, Past, Scorer
from penchant.engine.spread import Spread
from penchant.feedback.records import Prompt
from penchant.rewards.base import Comparer, Context, Judge
from penchant.rewards.naming import Named
from penchant.rollouts.round import Agreement
from penchant.running.measure import Measure


class Ready(Protocol):
    """A policy ready to be aligned, as it is loaded."""

    @property
    def policy(self) -> Any:
        """The module that trains: named_trainable, state, load_state, tensors, save, knows_reference, hold."""
        ...

    @property
    def domain(self) -> Domain: ...

    @property
    def source(self) -> dict[str, Any]:
        """Where it came from, with a fingerprint of everything that decides what it says."""
        ...


@dataclass(frozen=True)
class Prepared:
    """What a run has to work with."""

    train: Encoded | None
    """Rows to train on; None for an on-policy run."""
    prompts: tuple[Context, ...]
    """Prompts to sample in rounds; empty for a run on a file."""
    held_pairs: Encoded | None
    """Pairs whose prompts are not trained on; None where the data has no pairs."""
    held_factors: dict[str, list[float]] | None
    """How the two sides of these pairs differ, by factor, in their order."""
    held_lists: Encoded | None
    """The held-out rows as they are, where they are lists."""
    held_prompts: tuple[Context, ...]
    """Prompts to answer before and after."""
    preferred: dict[str, str]
    """The answer that the held-out rows prefer, by prompt, as WinAgainst writes it."""
    about: dict[str, Any]
    """source, fingerprint, unseen (the fingerprint of rows given to judge on), format, accounting, goals (rows read, made,
    of equal scores, without), counts, annotators (rows of each, where the objective asks): what the evidence says of the
    data."""
    notes: tuple[str, ...]
    """What was done to the rows on the way, for the terminal."""


class Subject(Protocol):
    """The thing that is aligned. `loaded` is always what its own `load` gave."""

    name: str
    """As it was written."""

    def load(self) -> Ready:
        """The policy as the run starts it; the same at every call, or a refusal."""
        ...

    def identity(self, loaded: Any) -> dict[str, Any]:
        """What of it makes this run another run, besides what was asked of all."""
        ...

    def prepare(self, loaded: Any, data: Any, unseen: Any) -> Prepared:
        """Rows read, split and encoded."""
        ...

    def choose(self, loaded: Any, prepared: Prepared, spread: Spread) -> dict[str, Any]:
        """How this run computes here, chosen by trying. All processes come."""
        ...

    def still(self, chosen: dict[str, Any], loaded: Any, spread: Spread, reached: int) -> tuple[dict[str, Any], str]:
        """The choices of a run that goes on after step `reached`, with what has changed around them since, in words."""
        ...

    def follow(self, chosen: Mapping[str, Any], loaded: Any) -> tuple[Precision, str]:
        """Computes from now on as was chosen; the choices in a line."""
        ...

    def reference(self, loaded: Any) -> Callable[[], AbstractContextManager[None]] | None:
        """A context in which the policy is its own reference; None where a copy or stored log-probs must serve."""
        ...

    def cache(self, loaded: Any, precision: Precision, device: torch.device) -> Path:
        """Where the reference's log-probs are kept: a folder named by everything they hang on but the rows."""
        ...

    def history(self, chosen: Mapping[str, Any], loaded: Any, precision: Precision, device: torch.device) -> Sequence[Past]:
        """The saved models that the policy is held against besides its reference."""
        ...

    def judge(self, scorer: Scorer, named: Named | None) -> Judge | Comparer | None:
        """Who judges samples, made ready; None where nobody does."""
        ...

    def measure(
        self, anchors: Anchors, judge: Judge | Comparer | None, guard: Judge | None, loaded: Any, prepared: Prepared
    ) -> Measure:
        """What measures the policy before, on the way and after."""
        ...

    def drawing(
        self, scorer: Scorer, folder: Path
    ) -> Callable[[Sequence[Prompt], int], tuple[Samples, Agreement | None]] | None:
        """Who draws the samples of prompts by a seed, and leaves in the run's folder what a person can look at; None for texts."""
        ...

    def leave(self, loaded: Any, draft: Path) -> None:
        """What stands beside the saved model for whoever loads it."""
        ...

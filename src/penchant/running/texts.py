"""A language model as the subject of a run: how it is loaded, how it reads responses, what it is held against and who judges it.
The stages of a run are in align.py."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch

from penchant.domains.text import reward_head
from penchant.domains.text.models import Loaded
from penchant.domains.text.paths import ScoringPath, alike
from penchant.domains.text.policy import TextPolicy, reference_of
from penchant.engine.budget import Budget
from penchant.engine.precision import Precision
from penchant.engine.ranks import first
from penchant.engine.settings import Settings
from penchant.engine.sources import Anchors, Past, Scorer
from penchant.engine.spread import Spread
from penchant.feedback.goals import Goals
from penchant.objectives.base import Objective
from penchant.rewards.base import Comparer, Judge
from penchant.rewards.naming import Named
from penchant.running import choices
from penchant.running.ceiling import budget
from penchant.running.consistent import PICTURES, only, splits
from penchant.running.judging import ready
from penchant.running.measure import Measure, text_cache
from penchant.running.models import Models
from penchant.running.prepare import prepare
from penchant.running.subject import Prepared


class Texts:
    """A causal language model, or a reward model made of one."""

    def __init__(
        self,
        name: str,
        objective: Objective,
        settings: Settings,
        named: Named | None,
        spread: Spread,
        answers: Path | None = None,
    ) -> None:
        """named: the judge as it was asked for. answers: a folder in which runs that begin alike keep what their start answers."""
        self.name, self.objective, self.settings, self.answers = name, objective, settings, answers
        only(settings, PICTURES, "a language model")
        self.models = Models(name, settings, spread.place, objective.needs.head)
        self._past: dict[str, str] = {}
        if spread.mesh is not None:
            splits(settings, named)

    def load(self) -> Loaded:
        return self.models.load()

    def identity(self, loaded: Loaded) -> dict[str, Any]:
        """The saved models it is held against."""
        self._past = self.models.identities(loaded)
        return {"history": list(self._past.values())} if self._past else {}

    def prepare(self, loaded: Loaded, data: Any, unseen: Any) -> Prepared:
        return prepare(data, unseen, loaded.domain, self.objective, self.settings, self._goals(loaded))

    def _goals(self, loaded: Loaded) -> Goals | None:
        """The scale of goals this run trains towards, put as the model's template can."""
        scale = self.settings.goals
        return None if scale is None else Goals(*scale, system=loaded.domain.chat.takes_system)

    # --- how it computes

    def choose(self, loaded: Loaded, prepared: Prepared, spread: Spread) -> dict[str, Any]:
        """Besides what all choose: how responses are read, tried by all processes, for a policy may be split over them."""
        where = spread.accelerator.device, spread.accelerator.num_processes

        def more(precision: Precision) -> dict[str, Any]:
            with precision.forward(where[0]):
                scoring = loaded.policy.probed()
                past = {name: self.models.saved(name, loaded).policy for name in self.settings.history}
                history = {name: _read(policy, loaded.policy, scoring).to_json() for name, policy in past.items()}
            fits: list[Budget | None] = []
            asked = (loaded, prepared, self.objective, self.settings)
            first(spread.accelerator, lambda: fits.append(budget(*asked, precision, scoring, *where)))
            found = fits[0] if fits else None
            return {
                "scoring": scoring.to_json(),
                "history": history,
                "tokens": self.settings.tokens if found is None else found.tokens,
                "budget": None if found is None else found.to_json(),
            }

        return choices.choose(loaded, self.settings, spread, more)

    def still(self, chosen: dict[str, Any], loaded: Loaded, spread: Spread, reached: int) -> tuple[dict[str, Any], str]:
        return choices.still(chosen, spread, reached, lambda precision: no_longer_right(chosen, loaded.policy, precision))

    def follow(self, chosen: Mapping[str, Any], loaded: Loaded) -> tuple[Precision, str]:
        precision = choices.follow(chosen)
        self.models.scoring = loaded.policy.follow(ScoringPath(**chosen["scoring"]))
        return precision, choices.line(chosen, precision, str(self.models.scoring))

    # --- what it is held against, and who judges it

    def reference(self, loaded: Loaded) -> Callable[[], AbstractContextManager[None]] | None:
        return reference_of(loaded.policy)

    def cache(self, loaded: Loaded, precision: Precision, device: torch.device) -> Path:
        return text_cache(loaded.source["fingerprint"], precision, device, loaded.policy.scoring_path)

    def history(
        self, chosen: Mapping[str, Any], loaded: Loaded, precision: Precision, device: torch.device
    ) -> Sequence[Past]:
        reads = {name: ScoringPath(**chosen["history"][name]) for name in self._past}
        return self.models.history(self._past, reads, loaded, precision, device)

    def judge(self, scorer: Scorer, named: Named | None) -> Judge | Comparer | None:
        return ready(named, scorer, self.settings)

    def measure(
        self, anchors: Anchors, judge: Judge | Comparer | None, guard: Judge | None, loaded: Loaded, prepared: Prepared
    ) -> Measure:
        answers = None if self.answers is None else self.answers / anchors.cache.name
        asked = self.objective, self.settings, judge, self._goals(loaded)
        return Measure(anchors, *asked, prepared.preferred, answers, guard)

    def drawing(self, scorer: Scorer, folder: Path) -> None:
        """As the settings say: the model itself, or a server."""
        return None

    def leave(self, loaded: Loaded, draft: Path) -> None:
        """The goals it was trained towards; of a reward model, how it is to be read."""
        if (goals := self._goals(loaded)) is not None:
            goals.save(draft)
        if loaded.policy.reward is not None:
            reward_head.leave(draft, loaded.domain.chat.templated, loaded.policy.tokenizer.pad_token_id)


def _read(past: TextPolicy, ours: TextPolicy, scoring: ScoringPath) -> ScoringPath:
    """How a saved model reads responses: as the policy does where it is built alike, else as its own probe finds."""
    return scoring if alike(past, ours) else past.probed()


def no_longer_right(chosen: Mapping[str, Any], policy: TextPolicy, precision: Precision) -> str:
    """The way of reading that a run began with and that no longer bears here, in words; empty where it does."""
    path = ScoringPath(**chosen["scoring"])
    with precision.forward(policy.device):
        found = policy.probed()
    return "" if found.bears(path) else f"{path}, which is no longer right here ({found})"

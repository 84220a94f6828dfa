"""The models of a run: the policy as it starts, as often as it is needed, and the saved models it is held against. All are
loaded alike; nothing is trained here."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from accelerate.utils import set_seed
from torch import nn

from penchant.domains.text.models import Loaded, LoRA, identity_of, load
from penchant.domains.text.paths import ScoringPath
from penchant.domains.text.policy import TextPolicy
from penchant.engine.precision import Precision
from penchant.engine.settings import Settings
from penchant.engine.sources import Past
from penchant.errors import Refusal
from penchant.running.measure import text_cache


class Models:
    """name: a folder, a hub id or "smollm2". place: puts a policy on its device, or its shards on several. head: what of the
    policy is read, in an objective's words."""

    def __init__(
        self,
        name: str,
        settings: Settings,
        place: Callable[[TextPolicy], object],
        head: Literal["lm", "reward"] = "lm",
    ) -> None:
        self.name, self.settings, self._place = name, settings, place
        self.head: Literal["lm", "reward"] = head
        self.scoring: ScoringPath | None = None
        """How the run's models read responses, once that is chosen."""
        self._fingerprint: str | None = None

    def load(self) -> Loaded:
        """The policy as the run starts it, with the first values of a new adapter; the same at every call, or a refusal."""
        settings = self.settings
        set_seed(settings.seed)
        lora = None
        if settings.lora:
            names = tuple(name.strip() for name in settings.lora_targets.split(","))
            # peft reads a single string as a regular expression, or as its own word all-linear
            targets = names if len(names) > 1 else settings.lora_targets
            lora = LoRA(settings.lora, settings.lora_alpha or 2 * settings.lora, targets)
        loaded = self._read(self.name, lora, settings.top, settings.revision)
        made = loaded.source["fingerprint"]
        if self._fingerprint not in (None, made):
            raise Refusal(
                f"model {self.name!r} is no longer what it was when this run began, and the run is held against its start. Put "
                "its files back; the same command then goes on."
            )
        self._fingerprint = made
        if self.scoring is not None:  # a copy says what the policy says only if it reads as the policy does
            loaded.policy.follow(self.scoring)
        return loaded

    def identities(self, ours: Loaded) -> dict[str, str]:
        """The saved models of the settings, newest first, each with its name by content."""
        return {name: identity_of(name, ours.domain, self.settings.allow_bin) for name in self.settings.history}

    def saved(self, name: str, ours: Loaded) -> Loaded:
        """One of them. Raises Refusal where it cannot be compared with the policy."""
        past = self._read(name)
        if past.domain.fingerprint != ours.domain.fingerprint:
            raise Refusal(
                f"history: {name!r} makes other tokens of a text than {self.name!r} does (its tokenizer, its template or "
                "its length differ), so their log-probs cannot be compared."
            )
        return past

    def history(
        self,
        identities: dict[str, str],
        paths: dict[str, ScoringPath],
        ours: Loaded,
        precision: Precision,
        device: torch.device,
    ) -> list[Past]:
        """The saved models, each loaded only when something is to be scored by it. paths: how each reads responses."""

        def opened(name: str) -> nn.Module:
            policy = self.saved(name, ours).policy
            policy.follow(paths[name])
            return policy.requires_grad_(False)

        return [
            Past(Path(name).name, text_cache(identity, precision, device, paths[name]), partial(opened, name))
            for name, identity in identities.items()
        ]

    def _read(self, name: str, lora: LoRA | None = None, top: int | None = None, revision: str | None = None) -> Loaded:
        settings = self.settings
        loaded = load(
            name,
            lora=lora,
            top=top,
            revision=revision,
            allow_bin=settings.allow_bin,
            template=settings.template,
            max_length=settings.max_length,
            too_long=settings.too_long,
            head=self.head,
        )
        self._place(loaded.policy)
        return loaded

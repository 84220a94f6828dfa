"""A diffusion model as the subject of a run: how it is loaded, at what scale its errors stand for log-probs, what is shown of it.
The stages of a run are in align.py."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate.utils import set_seed

from penchant.domains.diffusion import domain, loading, networks, noise, policy
from penchant.domains.diffusion.domain import KAPPA, Pictures, kappa_of, said_of
from penchant.domains.diffusion.loading import DEMO
from penchant.domains.diffusion.policy import DiffusionPolicy, reference_of
from penchant.domains.diffusion.sampling import SAMPLERS, Sampler
from penchant.engine.precision import Precision
from penchant.engine.settings import Settings
from penchant.engine.sources import Anchors
from penchant.engine.spread import Spread
from penchant.errors import Refusal
from penchant.feedback.pictures import Gallery, open_pictures
from penchant.feedback.reading import Source
from penchant.files import fingerprint
from penchant.objectives.base import Objective
from penchant.objectives.diffusion_kto import DiffusionKTO
from penchant.rewards.base import Comparer, Judge
from penchant.running import choices
from penchant.running.beside import Beside
from penchant.running.consistent import DRAWN, TEXTS, only
from penchant.running.demos import pictures as demo_pictures
from penchant.running.measure import Measure, reference_cache
from penchant.running.subject import Prepared

if TYPE_CHECKING:
    from PIL.Image import Image

WIDEST = 256
"""Pixels of a side of what a report shows; larger pictures are made smaller for it."""


@dataclass(frozen=True, eq=False)
class Loaded:
    """A model of pictures ready to be aligned."""

    policy: DiffusionPolicy
    domain: Pictures
    source: dict[str, Any]
    """name, kind, fingerprint (of every file of weights and settings)."""


class Drawn(Beside):
    """A diffusion or flow model."""

    made = "pictures"
    judged = (
        "pictures are judged by ink, compressible, recognised, or a module:function of your own, (prompt, image) → score."
    )

    def __init__(self, name: str, objective: Objective, settings: Settings, spread: Spread) -> None:
        super().__init__(name, objective, settings, spread)
        only(settings, (*TEXTS, *DRAWN), "a model of pictures")
        if settings.kappa is not None and settings.paper_beta is not None:
            raise Refusal("kappa and paper_beta say the same in two scales; leave one of them out.")
        if objective.needs.head != "lm":
            raise Refusal(f"{objective!r} trains a reward model; a model of pictures has no such head.")

    def load(self) -> Loaded:
        """The policy as the run starts it, with the first values of a new adapter; the same at every call, or a refusal."""
        settings = self.settings
        set_seed(settings.seed)
        adapter = None
        if settings.lora:
            given = "lora_targets" in settings.model_fields_set
            targets = tuple(x.strip() for x in settings.lora_targets.split(",")) if given else loading.ATTENTION
            adapter = loading.Adapter(settings.lora, settings.lora_alpha or 2 * settings.lora, targets)
        model, kind = loading.load(self.name, adapter=adapter, size=settings.size)
        made = contents(model)
        self.unchanged(made)
        model.to(self.device)
        usual = SAMPLERS[kind]
        view = Pictures(
            model,
            kappa=self._kappa(KAPPA[kind]),
            weighting=settings.weighting or "none",
            opened=self.open,
            sampler=Sampler(settings.denoising_steps or usual.steps, settings.guidance or usual.guidance),
        )
        return Loaded(model, view, {"name": self.name, "kind": kind, "fingerprint": made})

    def _kappa(self, usual: float) -> float:
        if self.settings.paper_beta is None:
            return self.settings.kappa or usual
        betas = betas_of(self.objective)
        if len(betas) != 1:
            raise Refusal(
                f"paper_beta={self.settings.paper_beta:g} is 2·β·κ, but {self.objective!r} has {len(betas) or 'no'} beta; give "
                "--kappa instead."
            )
        alone = any(isinstance(term, DiffusionKTO) for _, term in self.objective.terms)
        return kappa_of(self.settings.paper_beta, betas[0], "response" if alone else "pair")

    def identity(self, loaded: Loaded) -> dict[str, Any]:
        """The scale of log π, which the name of the objective does not say."""
        return {"kappa": loaded.domain.kappa}

    def read(self, loaded: Loaded, rows: Any) -> tuple[Source, Gallery]:
        rows = demo_pictures(loaded.policy, self.name) if rows == DEMO else rows
        return open_pictures(rows, bad_rows=self.settings.bad_rows)

    # --- how it computes

    def choose(self, loaded: Loaded, prepared: Prepared, spread: Spread) -> dict[str, Any]:
        """Besides what all choose: the scale of log π, and how pictures are drawn."""
        how = loaded.domain.sampler
        told = {
            "kappa": loaded.domain.kappa,
            "denoising_steps": how.steps,
            "guidance": how.guidance,
            "side": loaded.domain.size[1],
        }
        return choices.choose(loaded, self.settings, spread, lambda _: {"pictures": told})

    def follow(self, chosen: Mapping[str, Any], loaded: Loaded) -> tuple[Precision, str]:
        precision, kappa, betas = choices.follow(chosen), loaded.domain.kappa, betas_of(self.objective)
        said = said_of(kappa, betas[0]) if len(betas) == 1 else f"log π = −{kappa:,g} · mean squared error"
        return precision, choices.line(chosen, precision, said)

    # --- what it is held against, and who judges it

    def reference(self, loaded: Loaded) -> Callable[[], AbstractContextManager[None]] | None:
        return reference_of(loaded.policy)

    def cache(self, loaded: Loaded, precision: Precision, device: torch.device) -> Path:
        modules = (domain, policy, noise, networks)
        return reference_cache(loaded.source["fingerprint"], precision, device, loaded.domain.kappa, modules)

    def measure(
        self, anchors: Anchors, judge: Judge | Comparer | None, guard: Judge | None, loaded: Loaded, prepared: Prepared
    ) -> Measure:
        return Measure(anchors, self.objective, self.settings, judge, guard=guard, pictured=pictured)

    def written(self) -> Callable[[Any], bytes]:
        return lambda image: _bytes(image, "PNG")


def betas_of(objective: Objective) -> list[float]:
    """The β of every term that has one, of an objective within a wrapper too."""

    def within(one: Any) -> Iterable[float]:
        for field in fields(one):
            value = getattr(one, field.name)
            if field.name == "beta" and isinstance(value, int | float):
                yield float(value)
            elif is_dataclass(value):
                yield from within(value)

    return [beta for _, term in objective.terms for beta in within(term)]


def contents(model: DiffusionPolicy) -> str:
    """A name by content of all that decides what a model says: its weights, its schedule, its size."""
    parts = [f"{name} {tuple(x.shape)} {x.dtype} " for name, x in model.state_dict().items()]
    sums = [x.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes() for x in model.state_dict().values()]
    return fingerprint("".join(parts), str(dict(model.scheduler.config)), str(model.shape), *sums)


def pictured(image: Any) -> str:
    """A picture as a report shows it: PNG where it is small, else JPEG of at most 256 pixels a side."""
    small = image if max(image.size) <= WIDEST else image.copy()
    small.thumbnail((WIDEST, WIDEST))
    form = "PNG" if max(small.size) <= 64 else "JPEG"
    return f"data:image/{form.lower()};base64,{base64.b64encode(_bytes(small, form)).decode()}"


def _bytes(image: Image, form: str) -> bytes:
    out = io.BytesIO()
    image.save(out, format=form)
    return out.getvalue()

"""Feedback for the packaged models, made here by what can be computed: whoever has no data yet can see a run. It is no claim."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from filelock import FileLock

from penchant.domains.diffusion import demo
from penchant.domains.diffusion.loading import DEMO
from penchant.domains.diffusion.networks import Classes
from penchant.domains.diffusion.policy import DiffusionPolicy
from penchant.domains.diffusion.reading import image_of
from penchant.domains.diffusion.sampling import SAMPLERS, draw
from penchant.domains.policy.policy import DEMO as ACTING_DEMO
from penchant.errors import Refusal
from penchant.files import cache_folder, fingerprint, whole_folder

PAIRS = 400
"""Pairs of pictures, as many of each class."""


STARTS = 96
"""Starts of the task that the packaged policy can be asked for."""


def behaviour(name: str) -> list[dict[str, str]]:
    """Prompts of the packaged policy: its task from different starts. name: the model that is to learn from them."""
    if name != ACTING_DEMO:
        raise Refusal(
            f"the data {ACTING_DEMO!r} are starts of the task of {ACTING_DEMO!r}; {name!r} learns from data of its own."
        )
    from penchant.domains.policy.demo import TASK

    return [{"prompt": f"{TASK} seed {k}"} for k in range(1000, 1000 + STARTS)]


def pictures(policy: DiffusionPolicy, name: str) -> Path:
    """Pairs of the packaged model's own samples of one class, the one with more ink chosen, as a file with its pictures beside it
    in the cache; drawn at the first call. name: the model that is to learn from them."""
    if name != DEMO or not isinstance(policy.conditioner, Classes):
        raise Refusal(f"the data {DEMO!r} are samples of the model {DEMO!r}; {name!r} learns from data of its own.")
    code = Path(__file__).read_bytes()
    folder = cache_folder() / "demos" / f"{DEMO}-{fingerprint(code, demo.folder().name)[:12]}"
    rows = folder / "pairs.jsonl"
    if not rows.is_file():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.parent / f".{folder.name}.lock"):
            if not rows.is_file():
                with whole_folder(folder) as draft:
                    _pairs(policy, policy.conditioner.names, draft)
    return rows


def _pairs(policy: DiffusionPolicy, classes: tuple[str, ...], folder: Path) -> None:
    each = PAIRS // len(classes)
    contexts = [torch.tensor([k]) for k in range(len(classes))]
    drawn = draw(policy, contexts, 2 * each, SAMPLERS["pixels"], seed=1, at_once=256)
    ink = drawn.clamp(-1, 1).mean((1, 2, 3)).view(-1, 2)
    lines = []
    for i, (a, b) in enumerate(ink.tolist()):
        better, worse = (0, 1) if a > b else (1, 0)
        names = {}
        for field, which in (("chosen", better), ("rejected", worse)):
            names[field] = f"{i:04d}-{field}.png"
            image_of(drawn[2 * i + which]).save(folder / names[field])
        lines.append(json.dumps({"prompt": classes[i // each], **names}))
    (folder / "pairs.jsonl").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")

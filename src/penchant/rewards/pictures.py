"""Judges of pictures that anybody can compute: how much ink is in one, how well it can be compressed, and whether a classifier that
was trained on real pictures sees in it what was asked for. No model of taste is here."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from penchant.errors import Refusal
from penchant.feedback.records import Prompt, as_text
from penchant.rewards.function import FunctionJudge
from penchant.words import brief

if TYPE_CHECKING:
    from PIL.Image import Image

SEEN = 5000
"""Real pictures that the classifier learns from, the first of each class in equal parts."""


class Ink(FunctionJudge):
    """The mean brightness of a picture's pixels, from 0 (black) to 1 (white): in white on black, how much ink is in it."""

    def __init__(self) -> None:
        super().__init__(_ink, "ink")


class Compressible(FunctionJudge):
    """Minus the size in kilobytes of the picture as a JPEG of quality 95: the compressibility of DDPO (Black et al. 2023,
    arXiv 2305.13301, section 5.1)."""

    def __init__(self) -> None:
        super().__init__(_compressible, "compressible")


class Recognised(FunctionJudge):
    """1 where a support vector machine sees in the picture the class that was asked for, else 0. It was trained on the real
    pictures that diffusion-demo was trained on, knows nothing of any reward, and is meant as a guard."""

    def __init__(self) -> None:
        super().__init__(_recognised, "recognised")


def _looked(image: Any) -> Image:
    from PIL.Image import Image as Picture

    if not isinstance(image, Picture):
        raise TypeError(f"{brief(image)} is no picture")
    return image


def _ink(prompt: Prompt, image: Any) -> float:
    return float(np.asarray(_looked(image).convert("L"), dtype=np.float64).mean() / 255)


def _compressible(prompt: Prompt, image: Any) -> float:
    out = io.BytesIO()
    _looked(image).convert("RGB").save(out, format="JPEG", quality=95)
    return -len(out.getvalue()) / 1000


def _recognised(prompt: Prompt, image: Any) -> float:
    reads, classes, side = classifier()
    asked = as_text(prompt)
    if asked not in classes:
        raise Refusal(f"the prompt {brief(asked)} is none of the classes {', '.join(classes)}")
    pixels = np.asarray(_looked(image).convert("L").resize((side, side)), dtype=np.float64) / 127.5 - 1
    return float(classes[reads(pixels.reshape(1, -1))[0]] == asked)


@cache
def classifier() -> tuple[Callable[[Any], Any], tuple[str, ...], int]:
    """Reads pictures [n, side · side] in [−1, 1]: numbers of classes; the classes, and the side."""
    from sklearn.svm import SVC

    from penchant.domains.diffusion.demo import real_pictures

    real = real_pictures()
    labels = real.labels.numpy()
    each = SEEN // len(real.classes)
    some = np.concatenate([np.flatnonzero(labels == k)[:each] for k in range(len(real.classes))])
    x = real.pixels.flatten(1).numpy()[some].astype(np.float64)
    make: Any = SVC
    machine = make(gamma="scale", C=10.0).fit(x, labels[some])
    return machine.predict, real.classes, real.side

"""The model called diffusion-demo: a small flow model that is told a class, trained here, once, on real pictures. They are Debian's
Fashion-MNIST where it is installed, else scikit-learn's handwritten digits; no weights are fetched."""

from __future__ import annotations

import gzip
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from jaxtyping import Float, Int
from torch import Tensor

from penchant.domains.diffusion.loading import DEMO, of_classes_model, the_library
from penchant.domains.diffusion.policy import PICTURES, DiffusionPolicy
from penchant.errors import Refusal
from penchant.files import cache_folder, fingerprint, whole_folder

FASHION = Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's package dataset-fashion-mnist puts its files."""
PLACE = "PENCHANT_FASHION_MNIST"
"""The environment's word for another folder with them; empty: the digits."""
GARMENTS = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot")
STEPS, BATCH, RATE = 400, 64, 1e-3


@dataclass(frozen=True, eq=False)
class RealPictures:
    """Labelled pictures that were not made by a model."""

    name: str
    classes: tuple[str, ...]
    pixels: Float[Tensor, "n 1 side side"]
    """In [−1, 1]; −1 is paper, 1 is ink."""
    labels: Int[Tensor, "n"]

    @property
    def side(self) -> int:
        return self.pixels.shape[-1]


def real_pictures() -> RealPictures:
    """Fashion-MNIST (Xiao et al. 2017, MIT licence) as 16×16 by means of areas, where its files are; else the digits."""
    said = os.environ.get(PLACE)
    folder = FASHION if said is None else Path(said)
    if said != "" and (folder / "train-images-idx3-ubyte.gz").is_file():
        whole = torch.from_numpy(_idx(folder / "train-images-idx3-ubyte.gz").copy()).float() / 127.5 - 1
        small = torch.nn.functional.adaptive_avg_pool2d(whole[:, None], 16)
        labels = torch.from_numpy(_idx(folder / "train-labels-idx1-ubyte.gz").copy()).long()
        return RealPictures("Fashion-MNIST", GARMENTS, small, labels)
    if said:
        raise Refusal(f"{PLACE}={said!r}: there is no train-images-idx3-ubyte.gz in it; leave it out, or name its folder.")
    return digits()


def digits() -> RealPictures:
    """Scikit-learn's handwritten digits (8×8, from the UCI repository)."""
    from sklearn.datasets import load_digits

    found: Any = load_digits()
    pixels = torch.tensor(found.images, dtype=torch.float32)[:, None] / 8 - 1
    return RealPictures("handwritten digits", tuple("0123456789"), pixels, torch.tensor(found.target, dtype=torch.long))


def _idx(file: Path) -> np.ndarray:
    """A file of the MNIST family: two zeros, the type 8 (bytes), the number of sides, their sizes, the bytes."""
    data = gzip.decompress(file.read_bytes())
    sides = data[3]
    shape = tuple(int.from_bytes(data[4 + 4 * i : 8 + 4 * i], "big") for i in range(sides))
    if data[:3] != b"\0\0\x08" or len(data) != 4 + 4 * sides + int(np.prod(shape)):
        raise Refusal(f"{file} is not a whole IDX file of bytes; install dataset-fashion-mnist anew.")
    return np.frombuffer(data, np.uint8, offset=4 + 4 * sides).reshape(shape)


def trained(real: RealPictures, seed: int = 0, steps: int = STEPS) -> DiffusionPolicy:
    """A flow model of these pictures, told their class, after so many steps of 64."""
    library = the_library()
    widths = (32, 64) if real.side == 8 else (16, 32, 32)
    attends = len(widths) - 1
    torch.manual_seed(seed)
    network = library.UNet2DModel(
        sample_size=real.side,
        in_channels=1,
        out_channels=1,
        layers_per_block=1,
        block_out_channels=widths,
        down_block_types=("DownBlock2D",) * attends + ("AttnDownBlock2D",),
        up_block_types=("AttnUpBlock2D",) + ("UpBlock2D",) * attends,
        norm_num_groups=8,
        attention_head_dim=16,
        num_class_embeds=len(real.classes),
    )
    policy = of_classes_model(network, library.FlowMatchEulerDiscreteScheduler(), list(real.classes))
    optimiser = torch.optim.AdamW(policy.model.parameters(), lr=RATE)
    make = torch.Generator().manual_seed(seed)
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = RATE * (1 - step / steps)
        some = torch.randint(len(real.pixels), (BATCH,), generator=make)
        # logit-normal, as flow models are trained
        level = policy.process.level(torch.randn(BATCH, generator=make, dtype=torch.float64).sigmoid())
        x0, noise = real.pixels[some], torch.randn(BATCH, *real.pixels.shape[1:], generator=make)
        target = policy.process.target(x0, noise, level)
        error = policy(real.labels[some][:, None], level.noised(x0, noise), target, level)["error"].mean()
        optimiser.zero_grad()
        error.backward()
        optimiser.step()
    return policy


def folder() -> Path:
    """The trained model in the cache, as `load` reads it; made at the first call, in about a minute of one core."""
    real = real_pictures()
    code = Path(__file__).read_bytes()
    name = f"{DEMO}-{fingerprint(code, real.pixels.numpy().tobytes(), torch.__version__)[:12]}"
    target = cache_folder() / "models" / name
    if not (target / PICTURES).is_file():
        the_library()
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(target.parent / f".{name}.lock"):  # a second process waits, and finds the first one's work
            if not (target / PICTURES).is_file():
                with whole_folder(target) as draft:
                    trained(real).save(draft)
    return target

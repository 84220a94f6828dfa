"""What a denoiser predicts and at which noise level: schedules, targets, weightings, and the draw of (level, noise) that a row's
responses share. It knows no network.

A picture x0 stands at a level as x = a·x0 + s·ε with ε ~ N(0, I). What the network predicts decides the error's scale; all errors
of one prediction are multiples of each other (`eps_weight`)."""

from __future__ import annotations

import hashlib
import math
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from penchant.errors import Refusal

Predicts = Literal["epsilon", "v_prediction", "sample"]
"""What a variance-preserving model's network gives, in the words of `diffusers`: ε; v = a·ε − s·x0; x0."""


@dataclass(frozen=True, eq=False)
class Level:
    """How noisy each of n pictures is."""

    time: Float[Tensor, "n"]
    """What the network is told."""
    a: Float[Tensor, "n"]
    """How much of the picture is left, float64."""
    s: Float[Tensor, "n"]
    """How much noise there is, float64."""

    @property
    def snr(self) -> Float[Tensor, "n"]:
        """a² / s², the signal-to-noise ratio; infinite without noise."""
        return (self.a / self.s) ** 2

    def spread(self, x: Tensor, like: Tensor) -> Tensor:
        """One number per picture, as it is multiplied with pictures [n, C, H, W]."""
        return x.to(like).view(-1, *[1] * (like.dim() - 1))

    def noised(self, x0: Tensor, noise: Tensor) -> Tensor:
        """a·x0 + s·ε."""
        return self.spread(self.a, x0) * x0 + self.spread(self.s, x0) * noise


Density = Callable[[torch.Generator], Tensor]
"""Draws u in [0, 1], float64: 0 is the picture, 1 is noise."""


@dataclass(frozen=True)
class Uniform:
    """Every level alike."""

    def __call__(self, generator: torch.Generator) -> Tensor:
        return torch.rand((), generator=generator, dtype=torch.float64)


@dataclass(frozen=True)
class LogitNormal:
    """u = 1 / (1 + e^−z), z ~ N(mean, std²): the middle levels more often.        Esser et al. 2024, eq. 19"""

    mean: float = 0.0
    std: float = 1.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.mean) and math.isfinite(self.std) and self.std > 0):
            raise Refusal(f"LogitNormal(mean={self.mean}, std={self.std}): both must be finite, and std above 0.")

    def __call__(self, generator: torch.Generator) -> Tensor:
        return (torch.randn((), generator=generator, dtype=torch.float64) * self.std + self.mean).sigmoid()


class Process(ABC):
    """How pictures become noise, and what the network says of a noisy one."""

    density: Density
    """Where training takes its levels."""

    @abstractmethod
    def level(self, u: Float[Tensor, "n"]) -> Level:
        """The levels at u in [0, 1]."""

    @abstractmethod
    def target(self, x0: Tensor, noise: Tensor, level: Level) -> Tensor:
        """What the network should give."""

    @abstractmethod
    def clean(self, x: Tensor, given: Tensor, level: Level) -> tuple[Tensor, Tensor]:
        """(x0, ε) that follow from what the network gives at x."""

    @abstractmethod
    def eps_weight(self, level: Level) -> Float[Tensor, "n"]:
        """w with ‖error of ε‖² = w · ‖error of what is predicted‖²."""


@dataclass(frozen=True, eq=False)
class VariancePreserving(Process):
    """Steps t = 0 … T − 1 with a² = ᾱ_t and s² = 1 − ᾱ_t, as Stable Diffusion 1.5 and XL have them."""

    alphas: Float[Tensor, "T"]
    """ᾱ_t."""
    predicts: Predicts = "epsilon"
    density: Density = field(default_factory=Uniform)

    def __post_init__(self) -> None:
        if self.predicts not in ("epsilon", "v_prediction", "sample"):
            raise Refusal(f"predicts={self.predicts!r}; it must be 'epsilon', 'v_prediction' or 'sample'.")
        if len(self.alphas) == 0 or not bool(((self.alphas >= 0) & (self.alphas <= 1)).all()):
            raise Refusal("alphas holds ᾱ of every step, so numbers from 0 to 1, and at least one.")

    def at(self, t: Tensor) -> Level:
        """The levels of steps, int64 [n]. Step −1 is the picture itself."""
        alphas = torch.cat([self.alphas.double(), torch.ones(1, dtype=torch.float64)]).to(t.device)
        return Level(t.double(), alphas[t].sqrt(), (1 - alphas[t]).sqrt())

    def level(self, u: Float[Tensor, "n"]) -> Level:
        return self.at((u * len(self.alphas)).long().clamp(0, len(self.alphas) - 1))

    def target(self, x0: Tensor, noise: Tensor, level: Level) -> Tensor:
        if self.predicts == "v_prediction":
            return level.spread(level.a, x0) * noise - level.spread(level.s, x0) * x0
        return noise if self.predicts == "epsilon" else x0

    def clean(self, x: Tensor, given: Tensor, level: Level) -> tuple[Tensor, Tensor]:
        a, s = level.spread(level.a, x), level.spread(level.s, x)
        if self.predicts == "epsilon":
            return (x - s * given) / a, given
        if self.predicts == "v_prediction":
            return a * x - s * given, s * x + a * given
        return given, (x - a * given) / s

    def eps_weight(self, level: Level) -> Float[Tensor, "n"]:
        """1; for v, ᾱ; for x0, ᾱ / (1 − ᾱ)."""
        if self.predicts == "epsilon":
            return torch.ones_like(level.a)
        return level.a**2 if self.predicts == "v_prediction" else level.snr


@dataclass(frozen=True, eq=False)
class Flow(Process):
    """Rectified flow: x = (1 − s)·x0 + s·ε, the network gives ε − x0.        Liu et al. 2022; Esser et al. 2024"""

    shift: float = 1.0
    """s = shift·u / (1 + (shift − 1)·u): above 1 the levels are noisier, as large pictures need it."""
    scale: float = 1000.0
    """The network is told scale·s."""
    density: Density = field(default_factory=LogitNormal)

    def __post_init__(self) -> None:
        for name, value in (("shift", self.shift), ("scale", self.scale)):
            if not (math.isfinite(value) and value > 0):
                raise Refusal(f"Flow({name}={value}): it must be finite and above 0.")

    def at(self, s: Tensor) -> Level:
        """The levels of the given amounts of noise, [n]."""
        s = s.double()
        return Level(s * self.scale, 1 - s, s)

    def level(self, u: Float[Tensor, "n"]) -> Level:
        return self.at(self.shift * u / (1 + (self.shift - 1) * u))

    def target(self, x0: Tensor, noise: Tensor, level: Level) -> Tensor:
        return noise - x0

    def clean(self, x: Tensor, given: Tensor, level: Level) -> tuple[Tensor, Tensor]:
        return x - level.spread(level.s, x) * given, x + level.spread(level.a, x) * given

    def eps_weight(self, level: Level) -> Float[Tensor, "n"]:
        """(1 − s)²."""
        return level.a**2


Weighting = Callable[[Process, Level], Float[Tensor, "n"]]
"""How much the error of a picture counts at its level."""


def unweighted(process: Process, level: Level) -> Tensor:
    """1 at every level."""
    return torch.ones_like(level.a)


def eps_equivalent(process: Process, level: Level) -> Tensor:
    """The error counts as that of ε, whatever is predicted. For rectified flow this is β·(1 − s)² (Liu et al. 2025, Flow-DPO),
    which its authors found worse than a constant β: it lets the noisiest levels go."""
    return process.eps_weight(level)


@dataclass(frozen=True)
class MinSNR:
    """min(SNR, γ) on the error of x0, so min(1, γ / SNR) on the error of ε.        Hang et al. 2023"""

    gamma: float = 5.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.gamma) and self.gamma > 0):
            raise Refusal(f"MinSNR(gamma={self.gamma}): gamma must be finite and above 0.")

    def __call__(self, process: Process, level: Level) -> Tensor:
        return process.eps_weight(level) * (self.gamma / level.snr).clamp(max=1.0)


def weighting_of(said: str | Weighting) -> Weighting:
    """ "none", "eps-equivalent", "min-snr-5" (or another γ), or a function of process and level."""
    if not isinstance(said, str):
        return said
    if said in (named := {"none": unweighted, "eps-equivalent": eps_equivalent}):
        return named[said]
    if found := re.fullmatch(r"min-snr-(\d+(\.\d+)?)", said):
        return MinSNR(float(found[1]))
    raise Refusal(f"weighting={said!r}; it must be 'none', 'eps-equivalent', 'min-snr-5' (any γ) or a function.")


def generator_of(*names: object) -> torch.Generator:
    """Random numbers on the CPU that hang on the names alone, equal on every machine."""
    digest = hashlib.sha256(" ".join(map(str, names)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def drawn(
    density: Density, shape: Sequence[int], seed: int, numbers: Sequence[int], draws: int
) -> tuple[Float[Tensor, "n draws"], Tensor]:
    """For each row number: u [n, draws] in float64, and noise [n, draws, *shape] in float32. Draw k of a row hangs on (seed,
    number, k) and on nothing else, so whoever asks for the row again meets the same noise."""
    if draws < 1:
        raise Refusal(f"draws={draws}: at least one draw of noise is needed.")
    u, noise = torch.empty(len(numbers), draws, dtype=torch.float64), torch.empty(len(numbers), draws, *shape)
    for i, number in enumerate(numbers):
        for k in range(draws):
            generator = generator_of(seed, number, k)
            u[i, k] = density(generator)
            noise[i, k] = torch.randn(tuple(shape), generator=generator)
    return u, noise

"""Pictures as something to align: rows of feedback become latents, and a picture's log-probability is what its denoising error
says of it. How a model computes stands in policy.py, how noise is drawn in noise.py."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from penchant.domains.base import Cost, Encoded, Samples, Want
from penchant.domains.columns import BATCHES, columns_of
from penchant.domains.diffusion.drawing import NoiseSource, shared_noise
from penchant.domains.diffusion.noise import Weighting, weighting_of
from penchant.domains.diffusion.policy import DiffusionPolicy, unwrap
from penchant.domains.diffusion.reading import image_of, pixels_of
from penchant.domains.diffusion.sampling import SAMPLERS, Sampler, draw
from penchant.errors import Refusal
from penchant.feedback.records import Accounting, Problem, Prompt, Row, as_text
from penchant.files import fingerprint
from penchant.objectives.scored import Rollouts, Scored

if TYPE_CHECKING:
    from PIL.Image import Image

KAPPA = {"sd": 10_000.0, "sdxl": 25_000.0, "sd3": 500.0, "flux": 500.0, "pixels": 5_000.0}
"""κ by kind of model, where none is given. With DPO's β = 0.1 the papers' code value 2·β·κ is 2,000 for Stable Diffusion 1.5 and
5,000 for XL (Wallace et al. 2023), 100 for Stable Diffusion 3.5 (Flow-GRPO's DPO; FLUX, of the same kind, is given the same), and
1,000 for small models of pixels."""
VALUES = frozenset({"ref", "error"})
"""What can be wanted besides log π: the reference's log π in the same noise, and the mean squared error itself."""
Pair = Literal["pair", "response"]


def kappa_of(paper_beta: float, beta: float, per: Pair = "pair") -> float:
    """κ with which an objective of this β computes what a paper's code does with its own. The code of Diffusion-DPO multiplies
    mean errors with β/2, so 2·β·κ = paper_beta; that of Diffusion-KTO ("response") has no half: β·κ = paper_beta."""
    for name, value in (("paper_beta", paper_beta), ("beta", beta)):
        if not (math.isfinite(value) and value > 0):
            raise Refusal(f"{name}={value}: it must be finite and above 0.")
    return paper_beta / (2 * beta if per == "pair" else beta)


def said_of(kappa: float, beta: float) -> str:
    """What κ and an objective's β come to in the papers' own scale, to be printed."""
    return (
        f"log π = −{kappa:,g} · mean squared error; with beta = {beta:g} that is {2 * beta * kappa:,g} in the code of "
        f"Diffusion-DPO (2·β·κ) and {beta * kappa:,g} in that of Diffusion-KTO (β·κ)"
    )


class Pictures:
    """A diffusion model's view of feedback. A response is one step, a picture in the model's own space, float32 [1, C, H, W];
    a context is the prompt's ids. The surrogate of log π is −κ · mean squared error (Wallace et al. 2023): up to a constant the
    bound on log π at one noise level, in units that κ sets."""

    name, noisy = "pictures", True

    def __init__(
        self,
        policy: DiffusionPolicy,
        *,
        kappa: float = KAPPA["pixels"],
        weighting: str | Weighting = "none",
        noise: NoiseSource = shared_noise,
        opened: Callable[[str], Image] | None = None,
        sampler: Sampler = SAMPLERS["pixels"],
        at_once: int = 8,
    ) -> None:
        """policy: by whose text encoders' tokenizers and autoencoder rows are encoded, now and later. weighting: how the error
        counts at each level (`weighting_of`). noise: where levels and noise come from; left out, drawn at random and shared by a
        row's pictures. opened: gives the picture behind a name in a row, as `Gallery.open` does. sampler:
        how pictures are drawn (SAMPLERS by kind of model). at_once: pictures that the autoencoder reads together."""
        if not (math.isfinite(kappa) and kappa > 0):
            raise Refusal(f"kappa={kappa}: it must be finite and above 0.")
        self.kappa, self.weighting, self.opened, self.at_once = kappa, weighting_of(weighting), opened, at_once
        self.sampler, self.noise = sampler, noise
        self.conditioner, self.autoencoder, self.shape = policy.conditioner, policy.autoencoder, policy.shape

    # --- encode

    @property
    def size(self) -> tuple[int, int, int]:
        """[channels, height, width] of a picture as it is looked at."""
        if self.autoencoder is None:
            return self.shape[0], self.shape[1], self.shape[2]
        told: Any = self.autoencoder.config
        scale = 2 ** (len(told.block_out_channels) - 1)
        return told.in_channels, self.shape[1] * scale, self.shape[2] * scale

    def encode(self, rows: Iterable[Row]) -> Encoded:
        """Rows of one kind to latents. A picture that is missing, broken or out of bounds is refused by its row's number; pairs of
        one picture twice are left out and counted, prompts that were cut are counted."""
        account = Accounting()
        kept: list[Row] = []
        contexts: list[Tensor] = []
        seen: list[tuple[Tensor, ...]] = []
        kind = None
        for row in rows:
            kind = kind or row.kind
            if row.kind != kind:
                raise Refusal(f"row {row.number} is of the kind {row.kind!r}, but the rows before are {kind!r}.")
            account.read += 1
            context, cut, pixels = self._row(row)
            if row.kind == "pairs" and torch.equal(*pixels):
                said = "chosen and rejected are the same picture, so there is nothing to prefer."
                account.drop("identical", Problem(row.number, "rejected", "", said))
                continue
            account.truncated += cut
            kept.append(row)
            contexts.append(context)
            seen.append(self.latents(pixels))
        account.kept = len(kept)
        columns, annotators = columns_of(kind or "prompts", kept)
        return Encoded(
            data=BATCHES[kind or "prompts"],
            contexts=tuple(contexts),
            responses=tuple(seen),
            numbers=tuple(row.number for row in kept),
            columns=columns,
            annotators=annotators,
            accounting=account,
        )

    def _row(self, row: Row) -> tuple[Tensor, bool, tuple[Tensor, ...]]:
        """A row's context, whether its prompt was cut, and its pictures in pixels."""
        if row.weights is not None:
            raise Refusal(
                f"row {row.number}: weights of parts of a response are given in characters, which pictures have not."
            )
        field = "prompt"
        try:
            context, cut = self.context(row.prompt)
            pixels = []
            for i, given in enumerate(row.responses):
                field = _field(row, i)
                if self.opened is None:
                    raise Refusal("pictures were not given with the rows; open the data by open_pictures.")
                pixels.append(pixels_of(self.opened(given), *self.size))
        except Refusal as refusal:
            raise Refusal(f"row {row.number}, {field}: {refusal}") from refusal
        return context, cut, tuple(pixels)

    def context(self, prompt: Prompt) -> tuple[Tensor, bool]:
        """A prompt's ids, int64 [tokens], and whether it was cut."""
        return self.conditioner.encode(as_text(prompt))

    def latents(self, pixels: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Pictures [C, H, W] in [−1, 1] in the model's own space, each [1, C, H, W]: the mean of the autoencoder's posterior,
        shifted and scaled as the model was trained. (The papers' code draws from the posterior, whose spread is far below the
        noise of any level; its mean makes a picture the same each time.)"""
        if self.autoencoder is None:
            return tuple(x[None] for x in pixels)
        auto: Any = self.autoencoder
        parts = []
        with torch.no_grad():
            for i in range(0, len(pixels), self.at_once):
                x = torch.stack(list(pixels[i : i + self.at_once])).to(auto.device, auto.dtype)
                parts.append(
                    (auto.encode(x).latent_dist.mode() - (auto.config.shift_factor or 0.0)) * auto.config.scaling_factor
                )
        return tuple(torch.cat(parts).float().cpu().split(1)) if parts else ()

    def pixels(self, latents: Tensor) -> Tensor:
        """What latents [n, C, H, W] look like: pixels in [−1, 1], float32 [n, C, H, W]."""
        if self.autoencoder is None:
            return latents.float().cpu().clamp(-1, 1)
        auto: Any = self.autoencoder
        parts = []
        with torch.no_grad():
            for x in latents.split(self.at_once):
                x = x.to(auto.device, auto.dtype) / auto.config.scaling_factor + (auto.config.shift_factor or 0.0)
                parts.append(auto.decode(x).sample.float().cpu().clamp(-1, 1))
        return torch.cat(parts)

    # --- score

    def score(self, policy: nn.Module, encoded: Encoded, want: Want = Want()) -> Scored:  # noqa: B008
        """−κ · weighting · mean squared error of every picture, [n, 1], the mean over want.draws draws of (level, noise), with
        gradient. A draw hangs on (want.seed, the row's number, its place), so all of a row's pictures and the reference meet the
        same. values: "ref", the reference's in the same noise; "error", the mean squared error as it is, with gradient. Raises
        Refusal where the reference is wanted of a policy that has none."""
        allowed(want, VALUES)
        inner = unwrap(policy)
        if "ref" in want.values and not inner.knows_reference:
            raise Refusal(
                "the value 'ref' compares the policy with its reference, but this policy trains whole and holds no copy of it: "
                "call its hold() with its twin(), or train an adapter."
            )
        flat = list(encoded.flat)
        if not flat:
            nothing = torch.zeros(0, 0)
            return Scored(nothing, nothing.bool(), values={value: nothing for value in want.values})
        for number, (_, y) in zip(encoded.response_numbers, flat, strict=True):
            if y.shape != (1, *self.shape):
                raise Refusal(f"row {number}: a picture {list(y.shape)}, but this model's are {[1, *self.shape]}.")
        contexts = torch.stack([x for x, _ in flat]).repeat_interleave(want.draws, 0)
        x0 = torch.cat([y for _, y in flat]).repeat_interleave(want.draws, 0).to(inner.device, inner.wide)
        level, noise = self.noise(inner, encoded, contexts, x0, want)
        x, target = level.noised(x0, noise), inner.process.target(x0, noise, level)
        given = policy(contexts, x, target, level, "ref" in want.values)
        errors = {name: some.view(len(flat), want.draws) for name, some in given.items()}
        weight = self.weighting(inner.process, level).view(len(flat), -1).to(errors["error"])
        said = {name: (-self.kappa * weight * x).mean(1, keepdim=True) for name, x in errors.items()}
        values = {"ref": said.get("ref"), "error": errors["error"].mean(1, keepdim=True)}
        logp = said["error"]
        wanted = {name: x for name, x in values.items() if name in want.values and x is not None}
        return Scored(logp, torch.ones_like(logp, dtype=torch.bool), values=wanted)

    def cost(self, policy: nn.Module, encoded: Encoded) -> Cost:
        """Places of a picture (height · width in the model's own space) times the row's pictures."""
        places = math.prod(self.shape[1:])
        return Cost([places * count for count in encoded.counts], padded=False)

    # --- sample

    def sample(
        self,
        policy: nn.Module,
        contexts: Sequence[Prompt | Tensor],
        *,
        count: int = 1,
        limit: int = 1,
        temperature: float = 1.0,
        top_p: float = 1.0,
        seed: int = 0,
        scored: bool = True,
        sampler: Sampler | None = None,
    ) -> Samples:
        """`count` pictures to each prompt (or its ids), drawn by the model's own scheduler. limit: of a response's steps, of which
        a picture has one. sampler: how it draws; left out, as the domain does. A sample's text is the name of a file by content,
        what is shown of it a PIL image. `scored`: by the surrogate, in noise of `seed`. Raises Refusal for a temperature or
        top_p other than 1."""
        at_one(temperature, top_p)
        if limit < 1:
            raise Refusal(f"limit={limit}: a picture is one step.")
        inner = unwrap(policy)
        asked = tuple(x if isinstance(x, Tensor) else self.context(x)[0] for x in contexts)
        found = draw(inner, asked, count, sampler or self.sampler, seed)
        rows = tuple(tuple(some.split(1)) for some in found.split(count)) if len(found) else ((),) * len(asked)
        made = self.as_samples(asked, rows, found)
        with torch.no_grad():
            return replace(made, logp=self.score(policy, made.encoded, Want(seed=seed))) if scored else made

    def as_samples(self, asked: tuple[Tensor, ...], rows: tuple[tuple[Tensor, ...], ...], found: Tensor) -> Samples:
        """Responses to each context with what is to be looked at: the pictures `found`, flat, in the model's own space."""
        unknown = torch.full((len(found),), torch.nan)
        encoded = Encoded(
            data=Rollouts,
            contexts=asked,
            responses=rows,
            numbers=tuple(range(1, len(asked) + 1)),
            columns={"reward": unknown, "advantage": unknown.clone()},
            accounting=Accounting(read=len(asked), kept=len(asked)),
        )
        names = iter([f"samples/{fingerprint(x[None].numpy().tobytes())[:16]}.png" for x in found])
        images = iter([image_of(x) for x in self.pixels(found)] if len(found) else ())
        texts = tuple(tuple(next(names) for _ in row) for row in rows)
        shown = tuple(tuple(next(images) for _ in row) for row in rows)
        return Samples(encoded, texts, tuple((True,) * len(row) for row in rows), None, shown=shown)

    # --- the same pictures otherwise

    def recombine(self, encoded: Encoded, i: Sequence[int], j: Sequence[int]) -> Encoded:
        """The prompt (and columns) of row i[k] with the first picture of row j[k]."""
        base = encoded.select(i)
        return replace(
            base,
            responses=tuple((encoded.responses[row][0],) for row in j),
            columns={name: x for name, x in base.columns.items() if len(x) == len(base)},
            accounting=Accounting(read=len(base), kept=len(base)),
        )


def allowed(want: Want, values: frozenset[str]) -> None:
    """Refuses what cannot be wanted of a diffusion model's scoring."""
    if unknown := want.values - values:
        raise Refusal(f"the value {min(unknown)!r} is not known of pictures; valid are {', '.join(sorted(values))}.")
    if want.head != "lm":
        raise Refusal(f"this policy has no head {want.head!r}; valid is 'lm'.")
    if want.temperature != 1.0:
        raise Refusal(f"temperature={want.temperature}: pictures are scored at temperature 1 alone.")


def at_one(temperature: float, top_p: float) -> None:
    """Refuses sampling by another distribution than the model's own."""
    for name, value in (("temperature", temperature), ("top_p", top_p)):
        if value != 1.0:
            raise Refusal(f"{name}={value}: pictures are drawn at 1 alone; guidance is the sampler's.")


def _field(row: Row, i: int) -> str:
    """What the i-th picture of a row is called in its source."""
    if row.kind == "pairs":
        return ("chosen", "rejected")[i]
    return "completion" if row.kind == "labelled" else f"responses[{i}]"

"""Diffusion models by name or from a folder, ready to be scored: which kind it is, how it is asked, at which levels it was trained.
Nothing is trained or sampled here."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import nn

from penchant.domains.diffusion.networks import (
    Classes,
    ClipAndT5,
    Conditioner,
    LastStates,
    Network,
    OfFlux,
    OfTextAndSize,
    TwoClips,
    TwoClipsAndT5,
    of_classes,
    of_sd3,
    of_text,
)
from penchant.domains.diffusion.noise import Flow, Process, Uniform, VariancePreserving
from penchant.domains.diffusion.policy import PICTURES, DiffusionPolicy
from penchant.errors import Refusal
from penchant.words import brief

DEMO = "diffusion-demo"
"""The small model of classes that is trained here, in demo.py."""
Kind = Literal["sd", "sdxl", "sd3", "flux", "pixels"]
KINDS: dict[str, Kind] = {
    "StableDiffusionPipeline": "sd",
    "StableDiffusionXLPipeline": "sdxl",
    "StableDiffusion3Pipeline": "sd3",
    "FluxPipeline": "flux",
}
"""The pipelines of `diffusers` that are known."""
ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
"""The layers that an adapter changes, where none are named."""


@dataclass(frozen=True)
class Adapter:
    """Low-rank adapters on the denoiser."""

    rank: int
    alpha: int
    targets: tuple[str, ...] = ATTENTION


def load(name: str, *, adapter: Adapter | None = None, size: int | None = None) -> tuple[DiffusionPolicy, Kind]:
    """The policy behind a folder or a hub id, and its kind. name: a pipeline of Stable Diffusion 1.5, XL or 3, of FLUX, a folder
    that a run on a model of classes left, or diffusion-demo. size: pixels of a side, where it is not to be the model's own.
    Weights are read from safetensors alone, and no code that comes with a model is run. Raises Refusal for other models and
    without `diffusers`."""
    diffusers = the_library()
    if name == DEMO:
        from penchant.domains.diffusion import demo  # which loads what it has made by this module

        name = str(demo.folder())
    folder = Path(name)
    if (folder / PICTURES).is_file():
        return of_folder(folder, adapter), "pixels"
    try:
        said = diffusers.DiffusionPipeline.load_config(name)
    except OSError as error:
        raise Refusal(f"{brief(name)} is no diffusion model that can be read: {brief(str(error), 200)}.") from error
    found = str(said.get("_class_name"))
    if found not in KINDS:
        raise Refusal(f"{brief(name)} is a {found}; known are {', '.join(KINDS)}.")
    kind = KINDS[found]
    unused: dict[str, Any] = {"safety_checker": None, "requires_safety_checker": False} if kind == "sd" else {}
    pipeline = getattr(diffusers, found).from_pretrained(name, use_safetensors=True, **unused)
    return of_pipeline(pipeline, adapter=adapter, size=size)


def of_pipeline(pipeline: Any, *, adapter: Adapter | None = None, size: int | None = None) -> tuple[DiffusionPolicy, Kind]:
    """The policy that a pipeline of `diffusers` is, sharing its parts."""
    kind = KINDS[type(pipeline).__name__]
    denoiser: Any = pipeline.unet if kind in ("sd", "sdxl") else pipeline.transformer
    auto = pipeline.vae
    scale = 2 ** (len(auto.config.block_out_channels) - 1)
    # FLUX reads pieces of 2×2 latents as one place of four times the channels, and has no size of its own
    channels = denoiser.config.in_channels // (4 if kind == "flux" else 1)
    own = pipeline.default_sample_size if kind == "flux" else denoiser.config.sample_size
    if size is not None and (size < 1 or size % (2 * scale)):
        raise Refusal(f"size={size}: a side must be a multiple of {2 * scale} pixels for this model.")
    side = own if size is None else size // scale
    network: dict[Kind, Callable[[], Network]] = {
        "sd": lambda: of_text,
        "sdxl": lambda: OfTextAndSize(scale),
        "sd3": lambda: of_sd3,
        "flux": lambda: OfFlux(3.5 if denoiser.config.guidance_embeds else None),
    }
    policy = DiffusionPolicy(
        _adapted(denoiser, adapter),
        network[kind](),
        process_of(pipeline.scheduler),
        conditioner_of(pipeline, kind),
        (channels, side, side),
        scheduler=pipeline.scheduler,
        autoencoder=auto,
        reference=None if adapter is None else "adapter off",
        pipeline=pipeline,
    )
    return policy, kind


def of_folder(folder: Path, adapter: Adapter | None = None) -> DiffusionPolicy:
    """A model of classes, as `DiffusionPolicy.save` leaves one: `unet`, `scheduler` and the names of its classes."""
    names = json.loads((folder / PICTURES).read_text(encoding="utf-8")).get("classes")
    if not (isinstance(names, list) and all(isinstance(x, str) for x in names)):
        raise Refusal(f"{folder / PICTURES}, classes: {brief(names)}; it must be a list of names.")
    model = the_library().UNet2DModel.from_pretrained(folder / "unet", use_safetensors=True)
    return of_classes_model(model, scheduler_of(folder / "scheduler"), names, adapter)


def of_classes_model(model: Any, scheduler: Any, names: list[str], adapter: Adapter | None = None) -> DiffusionPolicy:
    """A UNet2DModel of pixels that is told a class, or nothing where there is one class alone."""
    classes = Classes(names)
    told = model.class_embedding
    if (len(names) > 1) != (told is not None) or (len(names) > 1 and told.num_embeddings < len(names)):
        has = 1 if told is None else told.num_embeddings
        raise Refusal(f"{len(names)} classes are named, but the network tells {has} apart.")
    side = model.config.sample_size
    high, wide = (side, side) if isinstance(side, int) else side
    return DiffusionPolicy(
        _adapted(model, adapter),
        of_classes,
        process_of(scheduler),
        classes,
        (model.config.in_channels, high, wide),
        scheduler=scheduler,
        reference=None if adapter is None else "adapter off",
    )


def scheduler_of(folder: Path) -> Any:
    """The scheduler of `diffusers` that a folder names."""
    said = json.loads((folder / "scheduler_config.json").read_text(encoding="utf-8")).get("_class_name")
    known = ("FlowMatchEulerDiscreteScheduler", "DDIMScheduler", "DDPMScheduler")
    if said not in known:
        raise Refusal(f"{folder}: the scheduler {brief(said)}; a model of classes has one of {', '.join(known)}.")
    return getattr(the_library(), said).from_pretrained(folder)


def process_of(scheduler: Any) -> Process:
    """How the model was trained, as its scheduler tells. Rectified flow: the middle levels more often (logit-normal), shifted as
    the scheduler is; one that shifts by size does so when it samples, not in training, and neither is it shifted here."""
    diffusers, how = the_library(), scheduler.config
    if isinstance(scheduler, diffusers.FlowMatchEulerDiscreteScheduler):
        return Flow(shift=1.0 if how.use_dynamic_shifting else how.shift, scale=float(how.num_train_timesteps))
    if "beta_schedule" not in how or "prediction_type" not in how:
        raise Refusal(f"the scheduler {type(scheduler).__name__} says neither noise levels nor what is predicted.")
    return VariancePreserving(
        diffusers.DDPMScheduler.from_config(how).alphas_cumprod.double(), how.prediction_type, Uniform()
    )


def conditioner_of(pipeline: Any, kind: Kind) -> Conditioner:
    """What makes conditions of prompts in this pipeline. A T5 reads as many tokens as the pipeline lets it: 256 in Stable Diffusion
    3, 512 in FLUX."""
    tokenizers, encoders = [pipeline.tokenizer], [pipeline.text_encoder]
    lengths = [pipeline.tokenizer.model_max_length]
    if kind == "sd":
        return LastStates(tokenizers, encoders, lengths)
    tokenizers.append(pipeline.tokenizer_2)
    encoders.append(pipeline.text_encoder_2)
    lengths.append(512 if kind == "flux" else pipeline.tokenizer_2.model_max_length)
    if kind == "sdxl":
        return TwoClips(tokenizers, encoders, lengths)
    if kind == "flux":
        return ClipAndT5(tokenizers, encoders, lengths)
    if pipeline.text_encoder_3 is not None:
        tokenizers.append(pipeline.tokenizer_3)
        encoders.append(pipeline.text_encoder_3)
        lengths.append(256)
    return TwoClipsAndT5(tokenizers, encoders, lengths, pipeline.transformer.config.joint_attention_dim)


def the_library() -> Any:
    """`diffusers`, or a sentence that says how to have it."""
    try:
        import diffusers
    except ImportError:
        raise Refusal('pictures need diffusers: pip install "penchant[diffusion]".') from None
    return diffusers


def _adapted(model: nn.Module, adapter: Adapter | None) -> nn.Module:
    """The denoiser, trained whole, or with an adapter that alone is trained."""
    if adapter is None:
        return model.requires_grad_(True)
    from peft import LoraConfig, get_peft_model

    how = LoraConfig(r=adapter.rank, lora_alpha=adapter.alpha, target_modules=list(adapter.targets))
    return get_peft_model(model, how)  # pyright: ignore[reportArgumentType]

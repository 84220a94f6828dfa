"""A diffusion model as something to align: it tells its denoising errors, and its reference's, inside its own forward, so that a
wrapper sees every use of it. It saves itself in the format of `diffusers`; it knows no rows and no feedback."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from penchant.domains.diffusion.networks import Classes, Condition, Conditioner, Network
from penchant.domains.diffusion.noise import Level, Process
from penchant.domains.trained import Trained
from penchant.errors import Refusal
from penchant.files import write_json

PICTURES = "pictures.json"
"""What a folder of a model without a text encoder says of its classes."""


class DiffusionPolicy(Trained):
    """A denoiser of `diffusers`, or a `peft` model around one, with the frozen parts it needs: text encoders and autoencoder.
    Dropout is off, in training too: policy and reference must agree exactly before the first step."""

    head: Literal["lm"] = "lm"

    def __init__(
        self,
        model: nn.Module,
        network: Network,
        process: Process,
        conditioner: Conditioner,
        shape: Sequence[int],
        *,
        scheduler: Any,
        autoencoder: nn.Module | None = None,
        reference: Literal["adapter off"] | None = None,
        pipeline: Any = None,
    ) -> None:
        """shape: [C, H, W] of a picture in the model's own space. scheduler: of `diffusers`, by which it is sampled. autoencoder:
        None where that space is pixels in [−1, 1]. pipeline: of `diffusers`, that the parts came from."""
        super().__init__()
        self.model = model
        self.network, self.process, self.shape = network, process, tuple(shape)
        self.conditioner = conditioner.requires_grad_(False)
        self.autoencoder = None if autoencoder is None else autoencoder.requires_grad_(False)
        self.scheduler, self.reference, self.pipeline = scheduler, reference, pipeline
        self._held: tuple[nn.Module, ...] = ()  # a tuple: a submodule would train, be saved and be counted
        self.train()

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """What the denoiser computes in."""
        return next(self.model.parameters()).dtype

    @property
    def plain_model(self) -> Any:
        """The model of `diffusers` itself."""
        model: Any = self.model
        return model if self.reference is None else model.get_base_model()

    def train(self, mode: bool = True) -> DiffusionPolicy:
        """Leaves dropout off."""
        super().train(False)
        self.training = mode
        return self

    @property
    def wide(self) -> torch.dtype:
        """What errors are computed in: float32, or float64 for a denoiser in float64."""
        return torch.float64 if self.dtype == torch.float64 else torch.float32

    def forward(
        self,
        contexts: Int[Tensor, "n tokens"],
        x: Float[Tensor, "n channels height width"],
        target: Float[Tensor, "n channels height width"],
        level: Level,
        reference: bool = False,
    ) -> dict[str, Tensor]:
        """`error` [n]: the squared error of what the network gives at x against the target, its MEAN over channels, height and
        width. With `reference`, `ref` is the reference's, without gradient, and `apart` the mean squared difference between what
        the two give. Conditional prediction only: there is no guidance in it."""
        x, target = x.to(self.device, self.wide), target.to(self.device, self.wide)
        told = self.condition(contexts)
        mean = lambda gap: (gap**2).mean((1, 2, 3))  # noqa: E731
        given = self.predict(x, level, told).to(self.wide)
        out = {"error": mean(given - target)}
        if reference:
            with self.reading_reference():
                other = self.predict(x, level, told).to(self.wide)
            out |= {"ref": mean(other - target), "apart": mean(given - other)}
        return out

    def predict(self, x: Tensor, level: Level, told: Condition) -> Tensor:
        """What the network gives at noisy pictures [n, C, H, W]."""
        return self.network(self.model, x.to(self.dtype), level.time.to(self.device, self.dtype), told)

    def condition(self, contexts: Int[Tensor, "n tokens"]) -> Condition:
        """What the network is told of the prompts, without gradient; each different prompt is read once."""
        with torch.no_grad():
            ids, place = contexts.to(self.device).unique(dim=0, return_inverse=True)
            told = self.conditioner(ids)
            cast = [None if x is None else x.to(self.dtype) for x in (told.states, told.pooled)]
            return Condition(told.labels, *cast).take(place)

    # --- the reference

    @property
    def knows_reference(self) -> bool:
        """Whether the reference's errors can be wanted."""
        return self.reference is not None or bool(self._held)

    def twin(self) -> DiffusionPolicy:
        """A frozen copy of the policy as it is now. What never trains, text encoders and autoencoder, is shared with it."""
        other = DiffusionPolicy(
            copy.deepcopy(self.model),
            self.network,
            self.process,
            self.conditioner,
            self.shape,
            scheduler=self.scheduler,
            autoencoder=self.autoencoder,
            reference="adapter off" if self.reference else None,
        )
        return other.requires_grad_(False)

    def hold(self, copy: DiffusionPolicy) -> None:
        """Keeps a frozen copy's denoiser as the reference of a model that trains whole. It is no part of this module: it is
        neither trained, nor saved, nor counted."""
        self._held = (copy.model.requires_grad_(False).to(self.device),)

    @contextmanager
    def reading_reference(self) -> Iterator[None]:
        """In here the policy computes as its reference, without gradient, whichever way it knows it."""
        with torch.no_grad():
            if not self._held:
                with self.as_reference():
                    yield
                return
            mine, self.model = self.model, self._held[0]
            try:
                yield
            finally:
                self.model = mine

    @contextmanager
    def as_reference(self) -> Iterator[None]:
        """In here the policy computes without its adapter. What trains and what does not is the same after it as before."""
        if self.reference is None:
            raise Refusal("this policy trains whole and holds no copy, so it is not its own reference.")
        model: Any = self.model
        trains = {name: p.requires_grad for name, p in self.named_parameters()}
        try:
            with model.disable_adapter():
                yield
        finally:
            for name, p in self.named_parameters():
                p.requires_grad_(trains[name])

    # --- what is kept

    def tensors(self, keep: bool = True) -> dict[str, Tensor] | None:
        """None: nothing is split over processes, so the model itself has all tensors."""
        return None

    def save(self, folder: Path, tensors: Mapping[str, Tensor] | None = None) -> None:
        """The model as `diffusers` reads it, in safetensors: the whole pipeline; of an adapter the LoRA weights alone, for
        `load_lora_weights`. A model without a pipeline leaves `unet`, `scheduler` and its classes; its adapter is one of
        `peft`. Not atomic by itself: give it a draft folder. tensors: what `tensors` gave."""
        folder.mkdir(parents=True, exist_ok=True)
        model: Any = self.model
        if self.pipeline is not None and self.reference is None:
            self.pipeline.save_pretrained(folder, safe_serialization=True)
        elif self.pipeline is not None:
            save_lora(model, self.pipeline, folder)
        elif self.reference is not None:
            model.save_pretrained(folder, safe_serialization=True)
        else:
            model.save_pretrained(folder / "unet", safe_serialization=True)
            self.scheduler.save_pretrained(folder / "scheduler")
            assert isinstance(self.conditioner, Classes)
            write_json(folder / PICTURES, {"classes": list(self.conditioner.names)})


def save_lora(model: Any, pipeline: Any, folder: Path) -> None:
    """An adapter's weights in the format of `diffusers`, with its rank and scale."""
    from peft.utils import get_peft_model_state_dict

    before = "base_model.model."
    layers = {name.removeprefix(before): x for name, x in get_peft_model_state_dict(model).items()}
    told = {k: v for k, v in model.peft_config["default"].to_dict().items() if k in ("r", "lora_alpha", "target_modules")}
    part = "transformer" if pipeline.components.get("unet") is None else "unet"
    how = {
        f"{part}_lora_layers": layers,
        f"{part}_lora_adapter_metadata": told | {"target_modules": sorted(told["target_modules"])},
    }
    type(pipeline).save_lora_weights(folder, safe_serialization=True, **how)


def reference_of(policy: nn.Module) -> Callable[[], AbstractContextManager[None]] | None:
    """A context in which the policy is its own reference. None where the whole model trains, so that a copy must serve."""
    inner = unwrap(policy)
    return None if inner.reference is None else inner.as_reference


def unwrap(policy: nn.Module) -> DiffusionPolicy:
    """The policy inside whatever accelerate has put around it."""
    from accelerate.utils import extract_model_from_parallel

    inner = extract_model_from_parallel(policy)
    if not isinstance(inner, DiffusionPolicy):
        raise Refusal(
            f"pictures need a DiffusionPolicy, as penchant.domains.diffusion.loading.load gives it, not a {type(inner).__name__}."
        )
    return inner

"""Pictures drawn from a policy by its own scheduler, from noise that hangs on seed, row and place alone. Nothing is scored or
decoded here."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from penchant.domains.diffusion.loading import the_library
from penchant.domains.diffusion.networks import Condition, OfFlux, Texts
from penchant.domains.diffusion.noise import Level, generator_of
from penchant.domains.diffusion.policy import DiffusionPolicy
from penchant.errors import Refusal


@dataclass(frozen=True)
class Sampler:
    """How pictures are drawn."""

    steps: int = 15
    """Of the scheduler."""
    guidance: float = 1.0
    """Classifier-free guidance, 1 is none. FLUX is told its strength, and is not guided besides."""

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise Refusal(f"steps={self.steps}: at least one step is needed to draw a picture.")
        if not (math.isfinite(self.guidance) and self.guidance >= 1):
            raise Refusal(f"guidance={self.guidance}: it must be 1, which is none, or more.")


SAMPLERS = {
    "sd": Sampler(50, 7.5),
    "sdxl": Sampler(50, 5.0),
    "sd3": Sampler(28, 7.0),
    "flux": Sampler(28),
    "pixels": Sampler(15),
}
"""By kind of model, as its pipeline has it; of a small model of pixels, what is enough."""


def draw(
    policy: DiffusionPolicy, contexts: Sequence[Tensor], count: int, how: Sampler, seed: int, at_once: int = 64
) -> Float[Tensor, "n channels height width"]:
    """`count` pictures for each context, row after row, in the model's own space, float32 on the CPU. at_once: pictures that are
    drawn together. Raises Refusal where guidance is wanted of a model that knows no empty prompt, and for a scheduler that draws
    noise of its own."""
    if not contexts or count < 1:
        return torch.zeros(0, *policy.shape)
    places = [(row, k) for row in range(len(contexts)) for k in range(count)]
    noise = torch.stack([torch.randn(policy.shape, generator=generator_of("sample", seed, *place)) for place in places])
    ids = torch.stack(list(contexts)).repeat_interleave(count, 0)
    with torch.no_grad():
        pairs = zip(ids.split(at_once), noise.split(at_once), strict=True)
        return torch.cat([_together(policy, some, start, how) for some, start in pairs])


def _together(policy: DiffusionPolicy, ids: Tensor, noise: Tensor, how: Sampler) -> Tensor:
    scheduler, flows = started(policy, how.steps)
    told = policy.condition(ids)
    guided = how.guidance != 1 and not isinstance(policy.network, OfFlux)
    if guided:
        told = _joined(_nothing(policy, ids), told)
    x = noise.to(policy.device) * (1.0 if flows else scheduler.init_noise_sigma)
    for t in scheduler.timesteps:
        seen = x if flows else scheduler.scale_model_input(x, t)
        seen = torch.cat([seen, seen]) if guided else seen
        time = t.to(policy.device).double().expand(len(seen))
        given = policy.predict(seen, Level(time, time, time), told).float()  # only the time of a level is asked
        if guided:
            without, given = given.chunk(2)
            given = without + how.guidance * (given - without)
        x = scheduler.step(given, t, x, return_dict=False)[0]
    return x.float().cpu()


def started(policy: DiffusionPolicy, steps: int) -> tuple[Any, bool]:
    """A copy of the policy's scheduler at its first step, and whether it is one of rectified flow. DDPM's own steps draw noise, so
    such a model is sampled by DDIM."""
    library, own = the_library(), policy.scheduler
    if isinstance(own, library.FlowMatchEulerDiscreteScheduler):
        scheduler = copy.deepcopy(own)
        if own.config.use_dynamic_shifting:  # by the number of 2×2 pieces, as the pipelines of FLUX and SD 3.5 do
            a, b = own.config.base_image_seq_len, own.config.max_image_seq_len
            low, high = own.config.base_shift, own.config.max_shift
            pieces = policy.shape[1] * policy.shape[2] // 4
            mu = low + (high - low) * (pieces - a) / (b - a)
            sigmas = torch.linspace(1.0, 1 / steps, steps).tolist()
            scheduler.set_timesteps(sigmas=sigmas, mu=mu, device=policy.device)
        else:
            scheduler.set_timesteps(steps, device=policy.device)
        return scheduler, True
    known = (
        library.DDIMScheduler,
        library.PNDMScheduler,
        library.EulerDiscreteScheduler,
        library.DPMSolverMultistepScheduler,
    )
    scheduler = (
        library.DDIMScheduler.from_config(own.config) if isinstance(own, library.DDPMScheduler) else copy.deepcopy(own)
    )
    if not isinstance(scheduler, known) or str(scheduler.config.get("algorithm_type", "")).startswith("sde"):
        raise Refusal(
            f"the scheduler {type(own).__name__} draws noise of its own or is not known; use DDIM, PNDM, Euler or DPM-Solver."
        )
    scheduler.set_timesteps(steps, device=policy.device)
    return scheduler, False


def _nothing(policy: DiffusionPolicy, ids: Tensor) -> Condition:
    """What the network is told where there is no prompt. Stable Diffusion XL is told zeros."""
    if not isinstance(policy.conditioner, Texts):
        raise Refusal("a model of classes knows no empty prompt, so it cannot be guided; leave guidance at 1.")
    empty, _ = policy.conditioner.encode("")
    told = policy.condition(empty.expand(len(ids), -1))
    if policy.pipeline is None or not policy.pipeline.config.get("force_zeros_for_empty_prompt", False):
        return told
    zeros = [None if x is None else torch.zeros_like(x) for x in (told.states, told.pooled)]
    return Condition(told.labels, *zeros)


def _joined(a: Condition, b: Condition) -> Condition:
    """One after the other."""
    pairs = ((a.labels, b.labels), (a.states, b.states), (a.pooled, b.pooled))
    return Condition(*(None if x is None or y is None else torch.cat([x, y]) for x, y in pairs))

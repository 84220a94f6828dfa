"""How each kind of denoiser of `diffusers` is asked, and what it is told of the prompt. Nothing here knows noise levels or what is
trained."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn

from penchant.errors import Refusal, nearest
from penchant.words import brief


@dataclass(frozen=True, eq=False)
class Condition:
    """What a denoiser is told of n prompts."""

    labels: Tensor | None = None
    """Classes, int64 [n]."""
    states: Tensor | None = None
    """The text encoders' states, [n, tokens, size]."""
    pooled: Tensor | None = None
    """A prompt as one vector, [n, size]."""

    def take(self, index: Tensor) -> Condition:
        """The prompts at `index`, in that order."""
        return Condition(*(None if x is None else x[index] for x in (self.labels, self.states, self.pooled)))


Network = Callable[[nn.Module, Tensor, Tensor, Condition], Tensor]
"""A way of asking a denoiser: pictures [n, C, H, W] at a time [n], with their conditions, give [n, C, H, W]."""


def of_classes(model: nn.Module, x: Tensor, time: Tensor, told: Condition) -> Tensor:
    """A UNet2DModel, told a class or nothing."""
    return model(x, time, class_labels=told.labels).sample


def of_text(model: nn.Module, x: Tensor, time: Tensor, told: Condition) -> Tensor:
    """A UNet2DConditionModel as Stable Diffusion 1.5 has it."""
    return model(x, time, encoder_hidden_states=told.states).sample


@dataclass(frozen=True)
class OfTextAndSize:
    """A UNet2DConditionModel as Stable Diffusion XL has it: it is told the pooled prompt and, of the picture, original size, corner
    of the crop and size. Pictures are brought to one size before, so that is (size, size, 0, 0, size, size)."""

    scale: int
    """Pixels of the picture per place of a latent."""

    def __call__(self, model: nn.Module, x: Tensor, time: Tensor, told: Condition) -> Tensor:
        high, wide = (side * self.scale for side in x.shape[-2:])
        ids = torch.tensor([high, wide, 0, 0, high, wide], device=x.device, dtype=x.dtype).expand(len(x), -1)
        added = {"text_embeds": told.pooled, "time_ids": ids}
        return model(x, time, encoder_hidden_states=told.states, added_cond_kwargs=added).sample


def of_sd3(model: nn.Module, x: Tensor, time: Tensor, told: Condition) -> Tensor:
    """An SD3Transformer2DModel."""
    return model(hidden_states=x, timestep=time, encoder_hidden_states=told.states, pooled_projections=told.pooled).sample


@dataclass(frozen=True)
class OfFlux:
    """A FluxTransformer2DModel: it reads pieces of 2×2 latents with their places, and time in [0, 1]."""

    guidance: float | None = 3.5
    """The strength of guidance that a distilled model is told; None for one that is not told any."""

    def __call__(self, model: nn.Module, x: Tensor, time: Tensor, told: Condition) -> Tensor:
        n, channels, high, wide = x.shape
        if high % 2 or wide % 2:
            raise Refusal(f"latents of {high}×{wide}: FLUX reads pieces of 2×2, so both sides must be even.")
        assert told.states is not None
        pieces = x.view(n, channels, high // 2, 2, wide // 2, 2).permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)
        places = torch.zeros(high // 2, wide // 2, 3, device=x.device, dtype=x.dtype)
        places[..., 1] = torch.arange(high // 2, device=x.device)[:, None]
        places[..., 2] = torch.arange(wide // 2, device=x.device)[None, :]
        given = model(
            hidden_states=pieces,
            timestep=time / 1000,
            guidance=None if self.guidance is None else torch.full_like(time, self.guidance),
            pooled_projections=told.pooled,
            encoder_hidden_states=told.states,
            txt_ids=torch.zeros(told.states.shape[1], 3, device=x.device, dtype=x.dtype),
            img_ids=places.flatten(0, 1),
        ).sample
        given = given.view(n, high // 2, wide // 2, channels, 2, 2).permute(0, 3, 1, 4, 2, 5)
        return given.reshape(n, channels, high, wide)


class Conditioner(nn.Module):
    """What makes conditions of prompts: prompts become ids (a row's context), ids become what the network is told."""

    def encode(self, prompt: str) -> tuple[Int[Tensor, "tokens"], bool]:
        """A prompt's ids, and whether some of it was cut off."""
        raise NotImplementedError

    def forward(self, ids: Int[Tensor, "n tokens"]) -> Condition:
        raise NotImplementedError


class Classes(Conditioner):
    """Prompts are names of classes, or their numbers from 0. With one class the network is told nothing."""

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__()
        if not names or len(set(names)) != len(names):
            raise Refusal(f"names of classes: {brief(list(names), 200)}; there must be at least one, and none twice.")
        self.names = tuple(names)

    def encode(self, prompt: str) -> tuple[Tensor, bool]:
        if prompt in self.names:
            return torch.tensor([self.names.index(prompt)]), False
        if prompt.isascii() and prompt.isdigit() and int(prompt) < len(self.names):
            return torch.tensor([int(prompt)]), False
        raise Refusal(f"the prompt {brief(prompt)} names no class of this model; {nearest(prompt, self.names)}")

    def forward(self, ids: Tensor) -> Condition:
        return Condition(labels=ids[:, 0] if len(self.names) > 1 else None)


class Texts(Conditioner):
    """Prompts are read by one to three frozen text encoders; a context is all of their ids, one encoder's after the other's, each
    padded to the length its encoder was trained with."""

    def __init__(self, tokenizers: Sequence[Any], encoders: Sequence[nn.Module | None], lengths: Sequence[int]) -> None:
        """encoders: None for one that a pipeline was saved without."""
        super().__init__()
        self.tokenizers, self.lengths = tuple(tokenizers), tuple(lengths)
        self.encoders = nn.ModuleList(nn.Identity() if x is None else x for x in encoders)

    def encode(self, prompt: str) -> tuple[Tensor, bool]:
        read = [
            tokenizer(prompt, padding="max_length", max_length=length, truncation=True).input_ids
            for tokenizer, length in zip(self.tokenizers, self.lengths, strict=True)
        ]
        # the longest reading decides what the model knows of the prompt: where only another encoder's is cut, nothing is lost
        whole = [len(tokenizer(prompt).input_ids) <= n for tokenizer, n in zip(self.tokenizers, self.lengths, strict=True)]
        return torch.tensor([token for ids in read for token in ids]), not any(whole)

    def read(self, ids: Tensor) -> list[Tensor]:
        """Each encoder's ids."""
        return list(ids.split(self.lengths, dim=1))


class LastStates(Texts):
    """Stable Diffusion 1.5: the last states of one CLIP."""

    def forward(self, ids: Tensor) -> Condition:
        return Condition(states=self.encoders[0](ids)[0])


def clip_states(encoder: nn.Module, ids: Tensor) -> tuple[Tensor, Tensor]:
    """The states before a CLIP's last layer, and its pooled vector."""
    out = encoder(ids, output_hidden_states=True)
    return out.hidden_states[-2], out[0]


class TwoClips(Texts):
    """Stable Diffusion XL: the states of two CLIPs side by side; the pooled vector is the second's."""

    def forward(self, ids: Tensor) -> Condition:
        (first, _), (second, pooled) = map(clip_states, self.encoders, self.read(ids))
        return Condition(states=torch.cat([first, second], -1), pooled=pooled)


class TwoClipsAndT5(Texts):
    """Stable Diffusion 3: two CLIPs side by side, filled with zeros to the T5's width, and the T5's states after them. Without
    its T5 these are zeros."""

    def __init__(self, tokenizers: Sequence[Any], encoders: Sequence[nn.Module | None], lengths: Sequence[int], width: int):
        """width: of what the transformer reads."""
        super().__init__(tokenizers, encoders, lengths)
        self.width = width

    def forward(self, ids: Tensor) -> Condition:
        one, two, three = self.read(ids) if len(self.lengths) == 3 else (*self.read(ids), None)
        (first, pooled), (second, other) = clip_states(self.encoders[0], one), clip_states(self.encoders[1], two)
        clips = torch.cat([first, second], -1)
        clips = nn.functional.pad(clips, (0, self.width - clips.shape[-1]))
        t5 = clips.new_zeros(len(ids), 256, self.width) if three is None else self.encoders[2](three)[0]
        return Condition(states=torch.cat([clips, t5.to(clips)], 1), pooled=torch.cat([pooled, other], -1))


class ClipAndT5(Texts):
    """FLUX: the T5's states; the pooled vector is the CLIP's."""

    def forward(self, ids: Tensor) -> Condition:
        clip, t5 = self.read(ids)
        return Condition(states=self.encoders[1](t5)[0], pooled=self.encoders[0](clip).pooler_output)

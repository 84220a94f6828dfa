"""Keys and values while answers grow: a prompt's are kept once for all of its answers, which attend to it together, and each
answer's own are written into room made at the start. Which models this is right for is probed elsewhere; nothing is drawn here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import Cache

from penchant.domains.text.tree import Keys, Queries, Values, capped, refuse_unknown


class Growing(Cache):
    """The cache of `count` answers to each prompt, all as long as each other. It is handed to the model twice: as its cache,
    and in place of the tree as what its layers attend by."""

    def __init__(self, sizes: Sequence[int], count: int, limit: int, device: torch.device) -> None:
        """sizes: tokens of each prompt, as they stand packed one after the other. limit: tokens of an answer at most."""
        super().__init__(layers=[])
        self.count, self.limit, self.device = count, limit, device
        self.step = 0
        """Tokens of every answer that have been read before."""
        self.sizes = torch.tensor(sizes, device=device)
        self.seats = torch.arange(len(sizes) * count, device=device)
        """Where each answer sits: its prompt's number times `count`, and which of that prompt's answers it is."""
        starts = self.sizes.cumsum(0) - self.sizes
        place = torch.arange(max(sizes), device=device)
        self._packed = (starts[:, None] + place).clamp(max=sum(sizes) - 1)  # past a prompt's end, where nothing is seen
        self._prompts: dict[int, tuple[Tensor, Tensor]] = {}
        self._answers: dict[int, tuple[Tensor, Tensor]] = {}
        self._hidden: dict[int | None, Tensor | None] = {}

    # --- what a model asks of its cache

    def update(
        self, key_states: Keys, value_states: Values, layer_idx: int, *args: Any, **how: Any
    ) -> tuple[Tensor, Tensor]:
        """Keeps what a layer made of the tokens it is given, and gives what it has of the answers; first of all the prompts'."""
        if layer_idx not in self._prompts:
            self._prompts[layer_idx] = self._apart(key_states), self._apart(value_states)
            return key_states, value_states
        if layer_idx not in self._answers:
            self._answers[layer_idx] = self._room(key_states), self._room(value_states)
        keys, values = self._answers[layer_idx]
        keys[:, :, self.step].copy_(key_states[:, :, 0])
        values[:, :, self.step].copy_(value_states[:, :, 0])
        return keys[:, :, : self.step + 1], values[:, :, : self.step + 1]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return int(self.sizes.max()) + self.step

    def _apart(self, packed: Float[Tensor, "one shared tokens width"]) -> Float[Tensor, "prompts shared longest width"]:
        return packed[0].to(self._kind(packed))[:, self._packed].transpose(0, 1).contiguous()

    def _room(self, one: Float[Tensor, "answers shared 1 width"]) -> Float[Tensor, "answers shared limit width"]:
        return one.new_empty(*one.shape[:2], self.limit, one.shape[3], dtype=self._kind(one))

    def _kind(self, x: Tensor) -> torch.dtype:
        """The number format that products are taken in, so that what is kept is cast once."""
        device = self.device.type
        return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype

    # --- as answers grow and end

    @property
    def positions(self) -> Int[Tensor, "answers 1"]:
        """The position of the token that is read next."""
        return (self.sizes[self.seats // self.count] + self.step)[:, None]

    def grow(self) -> None:
        """A token of every answer has been read."""
        self.step += 1
        self._hidden = {}

    def keep(self, stay: Int[Tensor, "staying"]) -> None:
        """Only these answers go on. A prompt none of whose answers does is let go."""
        seats = self.seats[stay]
        prompts, numbers = torch.unique(seats // self.count, return_inverse=True)
        if len(prompts) < len(self.sizes):
            self.sizes = self.sizes[prompts]
            self._prompts = {layer: (k[prompts], v[prompts]) for layer, (k, v) in self._prompts.items()}
        self.seats = numbers * self.count + seats % self.count
        self._answers = {layer: (k[stay], v[stay]) for layer, (k, v) in self._answers.items()}
        self._hidden = {}

    # --- attention

    def attend(
        self,
        module: nn.Module,
        query: Queries,
        key: Keys,
        value: Values,
        scaling: float | None = None,
        dropout: float = 0.0,
        sliding_window: int | None = None,
        softcap: float | None = None,
        **others: Any,
    ) -> Float[Tensor, "answers 1 heads width"]:
        """softmax([q kᵀ of the prompt | q kᵀ of the answer]) v. All answers to a prompt are multiplied with it at once. Raises
        Refusal on an argument that might change what is attended to."""
        refuse_unknown(others, dropout)
        before, its_value = self._prompts[module.layer_idx]  # pyright: ignore[reportArgumentType]
        n, heads, _, size = query.shape
        scale = size**-0.5 if scaling is None else scaling
        # heads that share their keys are queries of one product
        q = (query * scale).to(key.dtype).reshape(n, key.shape[1], heads // key.shape[1], size)
        z = torch.cat([self._from_seats(self._seated(q) @ before.mT), q @ key.mT], -1)
        z = z if softcap is None else capped(z, softcap)
        hidden = self._unseen(sliding_window)
        p = (z if hidden is None else z.masked_fill(hidden, -torch.inf)).softmax(-1, dtype=torch.float32).to(value.dtype)
        prompt, answer = p.split([before.shape[2], key.shape[2]], -1)
        y = self._from_seats(self._seated(prompt) @ its_value) + answer @ value
        return y.reshape(n, 1, heads, -1)

    def _seated(self, x: Float[Tensor, "answers shared heads width"]) -> Float[Tensor, "prompts shared queries width"]:
        """The answers to each prompt beside each other, empty seats 0."""
        seats = len(self.sizes) * self.count
        if len(x) < seats:
            x = x.new_zeros(seats, *x.shape[1:]).index_copy(0, self.seats, x)
        x = x.unflatten(0, (-1, self.count)).transpose(1, 2)
        return x.flatten(2, 3)

    def _from_seats(self, x: Float[Tensor, "prompts shared queries width"]) -> Float[Tensor, "answers shared heads width"]:
        x = x.unflatten(2, (self.count, -1)).transpose(1, 2).flatten(0, 1)
        return x if len(x) == len(self.seats) else x[self.seats]

    def _unseen(self, window: int | None) -> Bool[Tensor, "answers 1 1 tokens"] | None:
        """What of [prompt | answer] an answer's newest token does not see; None where it sees all. The same in every layer, so
        made once a step."""
        if window not in self._hidden:
            size = self.sizes[self.seats // self.count, None]
            place, own = (
                torch.arange(self._packed.shape[1], device=self.device),
                torch.arange(self.step + 1, device=self.device),
            )
            unseen = torch.cat([place >= size, (own < 0).expand(len(size), -1)], -1)
            if window is not None:
                back = torch.cat([size + self.step - place, (self.step - own).expand(len(size), -1)], -1)
                unseen |= back >= window
            self._hidden[window] = unseen[:, None, None] if bool(unseen.any()) else None
        return self._hidden[window]

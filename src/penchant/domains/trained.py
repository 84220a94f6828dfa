"""What of a policy trains, by name: the part of every domain's policy that checkpoints and optimisers read. How a policy
computes is its own domain's to say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from penchant.domains.sharding import placed_like
from penchant.errors import Refusal, nearest


class Trained(nn.Module):
    """A module whose parameters train as far as they require a gradient."""

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def named_trainable(self) -> Iterator[tuple[str, nn.Parameter]]:
        """The parameters that train, by name; tied ones once."""
        return ((name, p) for name, p in self.named_parameters() if p.requires_grad)

    def state(self) -> dict[str, Tensor]:
        """The trained tensors by name, as they stand in memory (not copies): shards, where they are split."""
        return {name: p.detach() for name, p in self.named_trainable()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Puts back what `state` gave. The tensors are written in place, so tied weights and optimisers follow."""
        mine = dict(self.named_trainable())
        for name in sorted(mine.keys() ^ state.keys()):
            if name in mine:
                raise Refusal(f"the saved state lacks the parameter {name!r}, which trains in this model.")
            raise Refusal(f"the saved state has the parameter {name!r}, which does not train here; {nearest(name, mine)}")
        for name, p in mine.items():
            if state[name].shape != p.shape:
                raise Refusal(f"parameter {name!r} was saved as {tuple(state[name].shape)}, but here is {tuple(p.shape)}.")
        with torch.no_grad():
            for name, p in mine.items():
                p.copy_(placed_like(state[name], p))

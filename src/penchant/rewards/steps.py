"""Segments of behaviour side by side as tensors, for models of reward that look at every step. Nothing here scores them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from penchant.errors import Refusal
from penchant.feedback.trajectories import Trajectory
from penchant.objectives.scored import masks


@dataclass(frozen=True, eq=False)
class Steps:
    """n segments of at most `steps` steps, padded with 0 behind their last."""

    observations: Float[Tensor, "n steps observed"]
    actions: Float[Tensor, "n steps acted"]
    mask: Bool[Tensor, "n steps"]
    """True for the steps of a segment, which stand first."""

    def __len__(self) -> int:
        return len(self.mask)

    def __getitem__(self, rows: Tensor | slice) -> Steps:
        return Steps(self.observations[rows], self.actions[rows], self.mask[rows])

    @property
    def both(self) -> Float[Tensor, "n steps given"]:
        """Each observation beside its action."""
        return torch.cat([self.observations, self.actions], -1)

    def to(self, like: Tensor) -> Steps:
        """On the device and in the precision of a model's parameters."""
        return Steps(self.observations.to(like), self.actions.to(like), self.mask.to(like.device))


def steps_of(behaviour: Sequence[Trajectory]) -> Steps:
    """Trajectories as tensors, in float32. Refuses none at all, and widths that differ."""
    widths = {(one.observations.shape[1], one.actions.shape[1]) for one in behaviour}
    if len(widths) != 1:
        raise Refusal(
            f"{len(behaviour)} trajectories with observations and actions of {sorted(widths)} numbers: one is needed."
        )
    ((observed, acted),) = widths
    mask = masks([len(one) for one in behaviour])
    observations, actions = torch.zeros(*mask.shape, observed), torch.zeros(*mask.shape, acted)
    observations[mask] = torch.cat([torch.from_numpy(one.observations) for one in behaviour])
    actions[mask] = torch.cat([torch.from_numpy(one.actions) for one in behaviour])
    return Steps(observations, actions, mask)

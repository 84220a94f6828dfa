"""What the losses on lists share: who was graded above whom, the place each response has by its score, and one response
chosen out of several. It holds no method, and no loop over pairs: everything is a table of lists, or of lists and pairs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import pad

from penchant.errors import Refusal
from penchant.objectives.base import REFERENCE, Objective, Positive, Range, State
from penchant.objectives.scored import Batch, Grouped, Lists, Scored

UNIT = Range(0.0, 1.0)


class Listwise(Objective):
    """A loss on the rewards of a list of responses, one row per list, and on the gains they were given. A list of one
    response, or of equal gains where only the order is read, has loss 0 and still counts as a list."""

    data = Lists
    unit: str = "list"

    @property
    def gains(self) -> Range:
        """The gains that the method is defined for."""
        return Range()

    def loss(
        self, reward: Float[Tensor, "lists k"], gain: Float[Tensor, "lists k"], mask: Bool[Tensor, "lists k"]
    ) -> Float[Tensor, "lists"]:
        raise NotImplementedError(f"{type(self).__name__} does not say how to compute its loss.")

    def __call__(self, batch: Grouped, state: State | None = None) -> Float[Tensor, "units"]:
        return self.loss(*self.tables(batch))

    def tables(self, batch: Grouped) -> tuple[Float[Tensor, "lists k"], Float[Tensor, "lists k"], Bool[Tensor, "lists k"]]:
        """Reward, gain and where a response stands, one row per list."""
        if batch.gain.is_cpu:  # elsewhere every step would wait for the device; the engine has looked at all rows before
            self.check_gains(batch.gain)
        reward, mask = batch.dense(self.reward(batch.y))
        return reward, batch.dense(batch.gain.to(reward.dtype))[0], mask

    def check_gains(self, gain: Float[Tensor, "n"], rows: Sequence[int] | None = None) -> None:
        """Refuses gains that the method is not defined for. `rows` says which row of a source each response is from."""
        allowed = self.gains
        wrong = ~(gain.isfinite() & (gain >= allowed.low) & (gain <= allowed.high))
        if not wrong.any():
            return
        at = int(wrong.nonzero()[0])
        where = f"gain {at}" if rows is None else f"row {rows[at]}, scores"
        raise Refusal(
            f"{where}: {gain[at].item():g}; {self!r} takes scores in {allowed}. Rescale them, all rows alike: for example "
            "(score − lowest) / (highest − lowest)."
        )


@dataclass(frozen=True, repr=False)
class OverPairs(Listwise):
    """A cost of the margin s_i − s_j, s = β log π/π_ref, over all pairs of a list of which i was graded above j."""

    beta: Positive = 0.05
    """Strength of the pull to the reference: larger stays closer. 0.05 is the LiPO paper's."""
    reduction: Literal["sum", "rax"] = "sum"
    """sum: over a list's pairs, as printed. rax: the mean over all pairs of the step, as in the authors' library Rax."""

    needs = REFERENCE

    @property
    def unit(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        return "list" if self.reduction == "sum" else "pair"

    def reward(self, y: Scored) -> Float[Tensor, "n"]:
        return self.beta * y.ratio

    def cost(self, margin: Float[Tensor, "lists k k"]) -> Float[Tensor, "lists k k"]:
        """What a pair costs by its margin."""
        raise NotImplementedError(f"{type(self).__name__} does not say how to compute its loss.")

    def weight(
        self, reward: Float[Tensor, "lists k"], gain: Float[Tensor, "lists k"], mask: Bool[Tensor, "lists k"]
    ) -> Float[Tensor, "#lists #k #k"]:
        """How much each pair weighs, without gradient."""
        return reward.new_ones(1, 1, 1)

    def __call__(self, batch: Grouped, state: State | None = None) -> Float[Tensor, "units"]:
        reward, gain, mask = self.tables(batch)
        better = above(gain, mask)
        values = self.weight(reward.detach(), gain, mask) * self.cost(differences(reward))
        return values[better] if self.reduction == "rax" else torch.where(better, values, 0.0).sum((-2, -1))

    def count(self, batch: Batch) -> int:
        if self.reduction == "sum":
            return super().count(batch)
        return count_above(batch)


@dataclass(frozen=True, repr=False)
class Pointwise(Listwise):
    """A cost of each score s = β log π/π_ref by itself, on lists."""

    beta: Positive = 0.05
    """Scale of the log-ratio, which is held against the label itself. 0.05 is the LiPO paper's."""
    reduction: Literal["sum", "rax"] = "sum"
    """sum: over a list's responses, as printed. rax: the mean over all responses of the step, as in the authors' Rax."""

    needs = REFERENCE

    @property
    def unit(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        return "list" if self.reduction == "sum" else "response"

    def reward(self, y: Scored) -> Float[Tensor, "n"]:
        return self.beta * y.ratio

    def cost(self, reward: Float[Tensor, "lists k"], gain: Float[Tensor, "lists k"]) -> Float[Tensor, "lists k"]:
        """What a response costs by its score and its label."""
        raise NotImplementedError(f"{type(self).__name__} does not say how to compute its loss.")

    def __call__(self, batch: Grouped, state: State | None = None) -> Float[Tensor, "units"]:
        reward, gain, mask = self.tables(batch)
        values = self.cost(reward, gain)
        return values[mask] if self.reduction == "rax" else torch.where(mask, values, 0.0).sum(-1)


def differences(x: Float[Tensor, "lists k"]) -> Float[Tensor, "lists k k"]:
    """x_i − x_j at [i, j]."""
    return x[..., :, None] - x[..., None, :]


def above(gain: Float[Tensor, "lists k"], mask: Bool[Tensor, "lists k"]) -> Bool[Tensor, "lists k k"]:
    """Whether i was graded above j, at [i, j]: equal gains are above neither way, and neither is what is not there."""
    return (differences(gain) > 0) & mask[..., :, None] & mask[..., None, :]


def count_above(batch: Batch) -> int:
    """How many pairs of a list, of all lists together, have one graded above the other."""
    batch = batch.kept()
    assert isinstance(batch, Grouped)
    return int(above(*batch.dense(batch.gain)).sum())


def places(score: Float[Tensor, "lists k"], mask: Bool[Tensor, "lists k"]) -> Float[Tensor, "lists k"]:
    """The place of each response by its score, 1 for the highest, those of equal score in the order they came in; what is
    not there comes last. It has no gradient."""
    order = torch.argsort(score.detach().masked_fill(~mask, -math.inf), dim=-1, descending=True, stable=True)
    return order.argsort(-1).to(score.dtype) + 1


def log_share(x: Float[Tensor, "lists k"], mask: Bool[Tensor, "lists k"]) -> Float[Tensor, "lists k"]:
    """log softmax of each list over the places where it has a response; 0 elsewhere."""
    return x.masked_fill(~mask, -math.inf).log_softmax(-1).masked_fill(~mask, 0.0)


def passed_over(
    own: Float[Tensor, "lists k"], others: Float[Tensor, "lists k k"], among: Bool[Tensor, "lists k k"]
) -> Float[Tensor, "lists k"]:
    """−log( e^own_i / (e^own_i + Σ_j e^others_ij) ) over the j that are `among` i's rivals; 0 where there are none."""
    return pad((others - own[..., None]).masked_fill(~among, -math.inf), (1, 0)).logsumexp(-1)

"""What an objective sees: n responses after a model has looked at them, and the batches they come in.
No model, tokenizer or file is known here; a step is a token, a denoising step, an action or a reasoning step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

NOTHING: Mapping[str, Any] = MappingProxyType({})

FAMILIES = frozenset({"history"})
"""Names in an objective's needed anchors that stand for several: history/0, history/1, …, the policy at the starts of the
phases so far, newest first. As many are given as there are."""


def wide(x: Tensor) -> Tensor:
    """Half precision is summed in float32; float32 and float64 stay what they are."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def masks(lengths: Sequence[int]) -> Tensor:
    """Bool [n, longest]: True for the first lengths[i] steps of row i."""
    steps = torch.arange(max(lengths, default=0))
    return steps[None] < torch.tensor(list(lengths), dtype=torch.long)[:, None]


@dataclass(frozen=True, eq=False)
class Scored:
    """n responses of at most `steps` steps each. Where `mask` is False nothing is read, whatever stands there."""

    logp: Float[Tensor, "n steps"]
    """log π(step | past)."""
    mask: Bool[Tensor, "n steps"]
    """True where a step belongs to the response."""
    ref: Float[Tensor, "n steps"] | None = None
    """log π_ref(step | past), the usual anchor; the same as anchors["ref"]."""
    anchors: Mapping[str, Tensor] = field(default_factory=lambda: NOTHING)
    """Further log-probs [n, steps]: prev, history/0, teacher, a degraded view."""
    values: Mapping[str, Tensor] = field(default_factory=lambda: NOTHING)
    """Declared extras, may carry gradient: entropy, value, error, kl."""
    weight: Float[Tensor, "n steps"] | None = None
    """Per-step weights (discount, sentence severity); None counts every step once."""

    def __post_init__(self) -> None:
        anchors = dict(self.anchors)
        if self.ref is None:
            object.__setattr__(self, "ref", anchors.get("ref"))
        else:
            anchors["ref"] = self.ref
        for name, x in {"mask": self.mask, "weight": self.weight, **anchors}.items():
            if x is not None and x.shape != self.logp.shape:
                raise ValueError(
                    f"{name} has shape {tuple(x.shape)}, but logp has {tuple(self.logp.shape)}; they must agree."
                )
        object.__setattr__(self, "anchors", MappingProxyType(anchors))
        object.__setattr__(self, "values", MappingProxyType(dict(self.values)))

    def __len__(self) -> int:
        return len(self.logp)

    def sum(self, x: Float[Tensor, "n steps"]) -> Float[Tensor, "n"]:
        """Σ over the response's own steps of weight · x; pads are never read, not even as 0 · x."""
        x = torch.where(self.mask, wide(x), 0.0)
        return (x if self.weight is None else x * torch.where(self.mask, wide(self.weight), 0.0)).sum(-1)

    @property
    def each(self) -> Float[Tensor, "tokens"]:
        """weight · logp of every step of every response, in one row."""
        return self.flat(self.logp)

    def flat(self, x: Float[Tensor, "n steps"]) -> Float[Tensor, "tokens"]:
        """weight · x of every step of every response, in one row."""
        x = wide(x)[self.mask]
        return x if self.weight is None else x * wide(self.weight)[self.mask]

    @property
    def length(self) -> Float[Tensor, "n"]:
        """Number of steps of each response."""
        return self.mask.sum(-1).to(wide(self.logp).dtype)

    @property
    def total(self) -> Float[Tensor, "n"]:
        """log π(y | x) = Σ logp."""
        return self.sum(self.logp)

    @property
    def mean(self) -> Float[Tensor, "n"]:
        """Σ logp / length (with weights: / Σ weight), 0 for a response without steps."""
        return self.per_step(self.total)

    def per_step(self, x: Float[Tensor, "n"]) -> Float[Tensor, "n"]:
        """x / length (with weights: / Σ weight)."""
        count = self.length if self.weight is None else self.sum(torch.ones_like(self.logp))
        return x / torch.where(count > 0, count, 1.0)

    def against(self, anchor: str | Mapping[str, float]) -> Float[Tensor, "n"]:
        """log π(y | x) − log π_name(y | x) for an anchor given by name. Where several are given with their weights,
        log π(y | x) − Σ_k weight_k · log π_k(y | x): the log-ratio to their geometric mixture, which is not normalised."""
        weights = {anchor: 1.0} if isinstance(anchor, str) else anchor
        return self.sum(wide(self.logp) - sum(weight * wide(self.anchor(name)) for name, weight in weights.items()))

    def anchor(self, name: str) -> Float[Tensor, "n steps"]:
        if name not in self.anchors:
            have = ", ".join(self.anchors) or "none"
            raise ValueError(f"this objective needs the anchor {name!r}, but the batch was scored with: {have}.")
        return self.anchors[name]

    def family(self, name: str) -> list[str]:
        """The names of the anchors "name/0", "name/1", … of a family, as many as were scored."""
        found = [f"{name}/{k}" for k in range(len(self.anchors)) if f"{name}/{k}" in self.anchors]
        if not found:
            have = ", ".join(self.anchors) or "none"
            raise ValueError(
                f"this objective needs the anchors {name!r} ({name}/0, {name}/1, …), but the batch was scored with: {have}."
            )
        return found

    def value(self, name: str) -> Tensor:
        if name not in self.values:
            have = ", ".join(self.values) or "none"
            raise ValueError(f"this objective needs the value {name!r}, but the batch was scored with: {have}.")
        return self.values[name]

    @property
    def ratio(self) -> Float[Tensor, "n"]:
        """log π(y | x) / π_ref(y | x), summed over steps."""
        return self.against("ref")

    @property
    def mean_ratio(self) -> Float[Tensor, "n"]:
        """The ratio per step: ratio / length."""
        return self.per_step(self.ratio)

    def take(self, index: Tensor | slice) -> Scored:
        """The responses at `index`, in that order."""
        pick = lambda x: None if x is None else x[index]  # noqa: E731
        return Scored(
            self.logp[index],
            self.mask[index],
            None,
            {name: x[index] for name, x in self.anchors.items()},
            {name: x[index] for name, x in self.values.items()},
            pick(self.weight),
        )

    def unweighted(self) -> Scored:
        """The same responses with every step counted once."""
        return self if self.weight is None else replace(self, weight=None)

    def detach(self) -> Scored:
        """The same numbers without gradient."""
        return Scored(
            self.logp.detach(),
            self.mask,
            None,
            {name: x.detach() for name, x in self.anchors.items()},
            {name: x.detach() for name, x in self.values.items()},
            self.weight,
        )


class Batch:
    """Scored responses with what was said of them. `columns` are extras per row: annotator, strength, margin, head."""

    columns: Mapping[str, Tensor]

    def column(self, name: str) -> Tensor:
        if name not in self.columns:
            have = ", ".join(self.columns) or "none"
            raise ValueError(f"this objective needs the column {name!r}, but the data has: {have}.")
        return self.columns[name]

    @property
    def responses(self) -> Scored:
        """The scored responses whose steps count as this batch's tokens."""
        raise NotImplementedError

    def size(self, unit: str) -> int:
        """How many `unit`s this batch holds, counted from its masks alone."""
        raise NotImplementedError

    def kept(self) -> Batch:
        """The batch without rows that have no step at all (padding rows)."""
        raise NotImplementedError

    def unweighted(self) -> Batch:
        """The batch with every step counted once."""
        raise NotImplementedError

    def _no_unit(self, unit: str) -> ValueError:
        return ValueError(f"{type(self).__name__} has no unit {unit!r}.")


def _tensors(columns: Mapping[str, Tensor], rows: int) -> Mapping[str, Tensor]:
    for name, x in columns.items():
        if len(x) != rows:
            raise ValueError(f"column {name!r} has {len(x)} values for {rows} rows.")
    return MappingProxyType(dict(columns))


class Pairs(Batch):
    """`w` was preferred to `l`, row by row. `Pairs(w, l, strength=…)` adds columns of one value per pair."""

    def __init__(self, w: Scored, l: Scored, **columns: Tensor) -> None:
        if len(w) != len(l):
            raise ValueError(f"{len(w)} chosen but {len(l)} rejected responses; a pair has one of each.")
        self.w, self.l, self.columns = w, l, _tensors(columns, len(w))

    @property
    def responses(self) -> Scored:
        return _join(self.w, self.l)

    @property
    def good(self) -> Scored:
        """The chosen."""
        return self.w

    @property
    def bad(self) -> Scored:
        """The rejected."""
        return self.l

    def size(self, unit: str) -> int:
        if unit == "pair":
            return len(self.kept().w)
        if unit == "response":
            return 2 * len(self.kept().w)
        if unit in ("token", "step"):
            return int(self.w.mask.sum() + self.l.mask.sum())
        raise self._no_unit(unit)

    def unweighted(self) -> Pairs:
        return Pairs(self.w.unweighted(), self.l.unweighted(), **self.columns)

    def kept(self) -> Pairs:
        keep = self.w.mask.any(-1) | self.l.mask.any(-1)
        if bool(keep.all()):
            return self
        return Pairs(self.w.take(keep), self.l.take(keep), **{k: x[keep] for k, x in self.columns.items()})


class Labelled(Batch):
    """Single responses that were called good (True) or bad (False). `mismatched` holds responses scored under another
    row's prompt, without gradient, for methods that estimate a KL from them (KTO)."""

    def __init__(self, y: Scored, label: Bool[Tensor, "n"], mismatched: Scored | None = None, **columns: Tensor) -> None:
        if len(label) != len(y):
            raise ValueError(f"{len(y)} responses but {len(label)} labels.")
        self.y, self.label, self.mismatched, self.columns = y, label, mismatched, _tensors(columns, len(y))

    @property
    def responses(self) -> Scored:
        return self.y

    @property
    def good(self) -> Scored:
        """The responses labelled True."""
        return self.y.take(self.label)

    @property
    def bad(self) -> Scored:
        """The responses labelled False."""
        return self.y.take(~self.label)

    @property
    def strangers(self) -> Scored:
        """The mismatched responses that have steps; a sentence where they were not scored."""
        if self.mismatched is None:
            raise ValueError(
                "this objective needs 'mismatched' responses (scored under another row's prompt), but none came."
            )
        return self.mismatched.take(self.mismatched.mask.any(-1))

    def size(self, unit: str) -> int:
        if unit == "response":
            return int(self.y.mask.any(-1).sum())
        if unit in ("token", "step"):
            return int(self.y.mask.sum())
        raise self._no_unit(unit)

    def unweighted(self) -> Labelled:
        return Labelled(self.y.unweighted(), self.label, self.mismatched, **self.columns)

    def kept(self) -> Labelled:
        keep = self.y.mask.any(-1)
        other = self.mismatched
        if other is not None:
            other = other.take(other.mask.any(-1))
        if bool(keep.all()):
            return self if other is self.mismatched else Labelled(self.y, self.label, other, **self.columns)
        return Labelled(self.y.take(keep), self.label[keep], other, **{k: x[keep] for k, x in self.columns.items()})


class Grouped(Batch):
    """Several responses to each prompt, flat: what lists and rollouts have in common."""

    y: Scored
    group: Int[Tensor, "n"]
    """Which prompt a response answers: any integers, equal within a group. Groups may be of unequal size."""
    gain: Float[Tensor, "n"]
    """How good a response was: larger is better."""

    @property
    def responses(self) -> Scored:
        return self.y

    def size(self, unit: str) -> int:
        if unit == "list":
            return len(torch.unique(self.group[self.y.mask.any(-1)]))
        if unit == "response":
            return int(self.y.mask.any(-1).sum())
        if unit in ("token", "step"):
            return int(self.y.mask.sum())
        raise self._no_unit(unit)

    def dense(self, x: Float[Tensor, "n"]) -> tuple[Float[Tensor, "lists k"], Bool[Tensor, "lists k"]]:
        """One row per group, in order of group number, padded with 0; and where a value stands."""
        filled, at, order = self._table
        return torch.zeros(filled.shape, dtype=x.dtype, device=x.device).index_put(at, x[order]), filled

    @cached_property
    def _table(self) -> tuple[Tensor, tuple[Tensor, Tensor], Tensor]:
        """Where responses stand in the table of groups, at which places, and in which order they are put there."""
        _, row, count = torch.unique(self.group, return_inverse=True, return_counts=True)
        order = torch.argsort(row, stable=True)
        start = torch.cumsum(count, 0) - count
        at = row[order], torch.arange(len(row), device=row.device) - start[row[order]]
        longest = int(count.max()) if len(count) else 1  # one place at least, so that a list has a largest value
        filled = torch.zeros((len(count), longest), dtype=torch.bool, device=row.device)
        return filled.index_put(at, torch.ones_like(row, dtype=torch.bool)), at, order


class Lists(Grouped):
    """Several responses to each prompt, flat. `group` says which prompt a response answers (any integers, equal within
    a list), `gain` how good it was (larger is better). Lists may be of unequal length."""

    def __init__(self, y: Scored, group: Int[Tensor, "n"], gain: Float[Tensor, "n"], **columns: Tensor) -> None:
        if not len(y) == len(group) == len(gain):
            raise ValueError(f"{len(y)} responses, {len(group)} groups and {len(gain)} gains; they must agree.")
        self.y, self.group, self.gain = y, group, gain
        self.columns = MappingProxyType(dict(columns))

    def unweighted(self) -> Lists:
        return Lists(self.y.unweighted(), self.group, self.gain, **self.columns)

    def kept(self) -> Lists:
        keep = self.y.mask.any(-1)
        if bool(keep.all()):
            return self
        return Lists(self.y.take(keep), self.group[keep], self.gain[keep], **self.columns)


class Rollouts(Grouped):
    """Sampled responses with the reward they got, which is their gain, and the advantage computed from the whole set."""

    def __init__(
        self, y: Scored, group: Int[Tensor, "n"], reward: Float[Tensor, "n"], advantage: Tensor, **columns: Tensor
    ) -> None:
        if not len(y) == len(group) == len(reward) == len(advantage):
            raise ValueError("responses, groups, rewards and advantages must be of one length.")
        self.y, self.group, self.reward, self.advantage = y, group, reward, advantage
        self.gain = reward
        self.columns = _tensors(columns, len(y))

    def unweighted(self) -> Rollouts:
        return Rollouts(self.y.unweighted(), self.group, self.reward, self.advantage, **self.columns)

    def kept(self) -> Rollouts:
        keep = self.y.mask.any(-1)
        if bool(keep.all()):
            return self
        pick = {k: x[keep] for k, x in self.columns.items()}
        return Rollouts(self.y.take(keep), self.group[keep], self.reward[keep], self.advantage[keep], **pick)


def _join(a: Scored, b: Scored) -> Scored:
    """a's responses followed by b's, padded to one width."""
    steps = max(a.logp.shape[1], b.logp.shape[1])
    pad = lambda x: torch.nn.functional.pad(x, (0, steps - x.shape[1]))  # noqa: E731
    both = lambda x, y: torch.cat([pad(x), pad(y)])  # noqa: E731
    weight = None
    if a.weight is not None and b.weight is not None:
        weight = both(a.weight, b.weight)
    return Scored(
        both(a.logp, b.logp),
        both(a.mask, b.mask),
        None,
        {name: both(a.anchors[name], b.anchors[name]) for name in a.anchors.keys() & b.anchors.keys()},
        weight=weight,
    )

"""How good a reward model is on pairs: how many it puts in order, how many it leaves tied, and how much of that is length. It reads
plain numbers; calibration.py asks whether stated and true shares agree, rewardbench.py has that benchmark's own figures."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from penchant.evaluation.statistics import RESAMPLES, Estimate, correlation, share


@dataclass(frozen=True)
class RewardAccuracy:
    """The pairs whose chosen response has the greater reward."""

    strict: Estimate
    """r(chosen) > r(rejected): a tie is wrong, as RewardBench counts."""
    half: Estimate
    """The same with a tie as half: what a guess would get of it."""
    ties: Estimate
    """Pairs of equal rewards. A model that has not left its start has nothing else: strict 0, half ½."""


def reward_accuracy(
    chosen: Sequence[float], rejected: Sequence[float], groups: Sequence[Hashable] | None = None
) -> RewardAccuracy:
    """chosen, rejected: a reward for each pair. groups: which prompt a pair answers, for the intervals. Raises ValueError for no
    pairs, and for what is no finite number."""
    _checked(chosen, rejected)
    both = list(zip(chosen, rejected, strict=True))
    of = lambda value: share([value(w, l) for w, l in both], groups)  # noqa: E731
    return RewardAccuracy(
        of(lambda w, l: float(w > l)), of(lambda w, l: float(w > l) + 0.5 * (w == l)), of(lambda w, l: float(w == l))
    )


def by_subset(
    chosen: Sequence[float],
    rejected: Sequence[float],
    subsets: Sequence[str],
    groups: Sequence[Hashable] | None = None,
) -> dict[str, RewardAccuracy]:
    """The same for the pairs of each subset, in the order in which subsets first appear."""
    _checked(chosen, rejected, subsets)
    rows: dict[str, list[int]] = {}
    for i, name in enumerate(subsets):
        rows.setdefault(name, []).append(i)
    pick = lambda x, at: [x[i] for i in at]  # noqa: E731
    return {
        name: reward_accuracy(pick(chosen, at), pick(rejected, at), None if groups is None else pick(groups, at))
        for name, at in rows.items()
    }


def length_matched(
    chosen: Sequence[float],
    rejected: Sequence[float],
    length_chosen: Sequence[int],
    length_rejected: Sequence[int],
    groups: Sequence[Hashable] | None = None,
    within: float = 0.1,
) -> RewardAccuracy | None:
    """The accuracy on pairs whose lengths differ by at most this share of the longer; None where there is no such pair."""
    _checked(chosen, rejected, length_chosen, length_rejected)
    lengths = enumerate(zip(length_chosen, length_rejected, strict=True))
    at = [i for i, (w, l) in lengths if abs(w - l) <= within * max(w, l)]
    if not at:
        return None
    pick = lambda x: [x[i] for i in at]  # noqa: E731
    return reward_accuracy(pick(chosen), pick(rejected), None if groups is None else pick(groups))


@dataclass(frozen=True)
class LengthBias:
    """How much a reward goes by length, beside how much the people did who preferred."""

    correlation: Estimate | None
    """Pearson's r of reward and length over all responses; None where either does not vary. Rewards of different prompts are
    compared in it, which is what makes it the common figure and not the best one."""
    within: Estimate | None
    """The same of differences within pairs, Σ Δr Δn / √(Σ Δr² Σ Δn²): about 0, since which of a pair comes first means nothing."""
    prefers_longer: Estimate | None
    """Pairs of unequal length whose longer response has the greater reward, a tie of rewards as half."""
    longer_wins: Estimate | None
    """The accuracy of "the longer is better" on the same pairs: how often people preferred it. Where this is high, a reward that
    has learned length alone looks good."""
    n: int
    """Pairs of unequal length."""


def length_bias(
    chosen: Sequence[float],
    rejected: Sequence[float],
    length_chosen: Sequence[int],
    length_rejected: Sequence[int],
    groups: Sequence[Hashable] | None = None,
    *,
    resamples: int = RESAMPLES,
) -> LengthBias:
    """Lengths in any unit. groups: which prompt a pair answers."""
    _checked(chosen, rejected, length_chosen, length_rejected)
    rewards = [*chosen, *rejected]
    lengths = [float(n) for n in (*length_chosen, *length_rejected)]
    twice = [*range(len(chosen))] * 2 if groups is None else [*groups, *groups]  # a pair's two responses go together
    apart = [w - l for w, l in zip(chosen, rejected, strict=True)]
    longer = [float(w - l) for w, l in zip(length_chosen, length_rejected, strict=True)]
    unequal = [i for i, n in enumerate(longer) if n]
    by = None if groups is None else [groups[i] for i in unequal]
    agree = [apart[i] * math.copysign(1.0, longer[i]) for i in unequal]
    return LengthBias(
        correlation(rewards, lengths, twice, resamples=resamples),
        correlation(apart, longer, groups, centred=False, resamples=resamples),
        share([float(x > 0) + 0.5 * (x == 0) for x in agree], by) if unequal else None,
        share([float(longer[i] > 0) for i in unequal], by) if unequal else None,
        len(unequal),
    )


def _checked(*columns: Sequence[float] | Sequence[str]) -> None:
    """Raises ValueError where there is nothing to measure or something that is no number."""
    sizes = {len(column) for column in columns}
    if len(sizes) != 1 or sizes == {0}:
        raise ValueError(f"columns of {sorted(sizes)} values; they must be of one length, and not empty.")
    for column in columns:
        for value in column:
            if not isinstance(value, str) and not math.isfinite(value):
                raise ValueError(f"a value is {value}; rewards and lengths must be finite numbers.")

"""Pairs of trajectories cut alike: to the shorter of the two, or into windows that are held against each other place by place. It
judges nothing anew: a window is preferred because its whole was."""

from __future__ import annotations

from dataclasses import replace

import torch

from penchant.domains.base import Encoded
from penchant.errors import Refusal
from penchant.objectives.scored import Pairs


def truncated(pairs: Encoded) -> Encoded:
    """Both trajectories of every pair cut to the steps of the shorter, as the authors of GRAPE say they do (arXiv 2411.19309
    has the formula for any two lengths, which is the default: leave this out)."""
    _of_pairs(pairs)
    most = [min(map(len, ys)) for ys in pairs.responses]
    cut = lambda rows: tuple(tuple(x[:n] for x in xs) for xs, n in zip(rows, most, strict=True))  # noqa: E731
    return replace(pairs, responses=cut(pairs.responses), weights=None if pairs.weights is None else cut(pairs.weights))


def windows(pairs: Encoded, length: int) -> Encoded:
    """Every window of `length` steps of the chosen beside the one that begins at the same step of the rejected, each pair of
    windows a row of its own with its row's number and columns: GRAPE's code has 8. Where one trajectory has fewer windows, the
    other's last ones are left out; where one is shorter than a window, there is none. length 1 makes single steps, the
    step-wise DPO that trajectories are compared with."""
    _of_pairs(pairs)
    if length < 1:
        raise Refusal(f"length={length}: a window has at least one step.")
    counts = [max(0, min(map(len, ys)) - length + 1) for ys in pairs.responses]
    places = [(row, start) for row, n in enumerate(counts) for start in range(n)]
    if not places:
        raise Refusal(f"length={length}: no pair of trajectories is as long.")
    of = torch.tensor([row for row, _ in places])
    cut = lambda rows: tuple(tuple(x[start : start + length] for x in rows[row]) for row, start in places)  # noqa: E731
    return replace(
        pairs,
        contexts=tuple(pairs.contexts[row] for row, _ in places),
        responses=cut(pairs.responses),
        numbers=tuple(pairs.numbers[row] for row, _ in places),
        columns={name: x[of] for name, x in pairs.columns.items()},
        weights=None if pairs.weights is None else cut(pairs.weights),
    )


def _of_pairs(pairs: Encoded) -> None:
    if pairs.data is not Pairs:
        raise Refusal(f"these rows are {pairs.data.__name__}; only pairs are cut alike.")

"""Which pairs of segments a teacher is asked about: by chance, where models of the reward disagree or waver, or spread far apart.
It draws and chooses; it asks nobody."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from penchant.errors import Refusal
from penchant.feedback.trajectories import Trajectory

Floats = NDArray[np.float64]
Selection = Literal["uniform", "disagreement", "entropy", "k-center", "k-center of disagreement", "k-center of entropy"]
"""B-Pref's six ways (Lee et al. 2021, arXiv 2111.03026; its feed_type 0 to 5)."""


def segments(trajectories: Sequence[Trajectory], steps: int, count: int, seed: int) -> list[Trajectory]:
    """`count` segments of so many steps: a trajectory that is long enough by chance, then a place in it by chance."""
    able = [one for one in trajectories if len(one) >= steps]
    if not able or steps < 1:
        longest = max((len(one) for one in trajectories), default=0)
        raise Refusal(f"segments of {steps} steps: the longest of {len(trajectories)} trajectories has {longest}.")
    rng = np.random.default_rng(seed)
    which = rng.integers(len(able), size=count)
    start = rng.integers(0, np.array([len(able[i]) - steps + 1 for i in which]) if count else 1, size=count)
    return [able[i][s : s + steps] for i, s in zip(which.tolist(), start.tolist(), strict=True)]


def disagreement(wins: Floats) -> Floats:
    """[n]: the standard deviation (divided by members, as the code has it) of P(first wins) over members [members, n]."""
    return np.std(wins, axis=0)


def entropy(wins: Floats) -> Floats:
    """[n]: −Σ p log p of whether the first wins, the mean over members [members, n]; 0 log 0 = 0."""
    both = np.stack([wins, 1 - wins])
    logs = np.log(np.where(both > 0, both, 1.0))
    return -(both * logs).sum(0).mean(0)


def far_apart(candidates: Floats, known: Floats, count: int) -> list[int]:
    """Greedy k-center: `count` of the candidates [n, d], each the farthest (Euclidean) from what is `known` [m, d] and from
    those taken before; the first of equals. With nothing known it begins with the first candidate."""
    taken: list[int] = []
    distance = np.full(len(candidates), np.inf)
    for one in known:
        distance = np.minimum(distance, ((candidates - one) ** 2).sum(-1))
    for _ in range(count):
        best = int(np.argmax(distance))
        taken.append(best)
        distance = np.minimum(distance, ((candidates - candidates[best]) ** 2).sum(-1))
        distance[taken] = -1.0  # the same one is not asked twice, wherever others stand
    return taken


def chosen(
    by: Selection, count: int, *, candidates: int, wins: Floats | None = None, seen: Floats | None = None,
    known: Floats | None = None,
) -> list[int]:  # fmt: skip
    """Which `count` of so many candidate pairs are asked, best first; uniform takes the first, which were drawn by chance. wins:
    P(first wins) by each member of an ensemble, [members, candidates]. seen: what k-center spreads, one row a pair (B-Pref: both
    segments' observations, flat); known: the same of pairs that were asked before. k-center of … spreads over the better half."""
    if not 0 <= count <= candidates:
        raise Refusal(f"{count} queries of {candidates} candidates: draw more candidates than are asked.")
    if by == "uniform":
        return list(range(count))
    spread, _, measure = by.partition(" of ") if by.startswith("k-center") else ("", "", by)
    pool = np.arange(candidates)
    if measure:
        if wins is None or wins.ndim != 2 or wins.shape[1] != candidates:
            raise Refusal(
                f"{by} reads what each member of an ensemble says of {candidates} candidates; none or other was given."
            )
        measures = {"disagreement": disagreement, "entropy": entropy}
        if measure not in measures:
            raise Refusal(f"{by!r}: valid ways are {', '.join(map(repr, Selection.__args__))}.")
        order = np.argsort(-measures[measure](wins), kind="stable")
        pool = order[: max(count, candidates // 2) if spread else count]
    if not spread:
        return pool.tolist()
    if seen is None or len(seen) != candidates:
        raise Refusal(f"{by} reads what was seen in {candidates} candidates; none or other was given.")
    before = np.zeros((0, seen.shape[1])) if known is None else known
    return [int(pool[i]) for i in far_apart(seen[pool], before, count)]

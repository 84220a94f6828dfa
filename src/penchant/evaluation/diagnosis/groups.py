"""Whether annotators fall into two groups that disagree with each other: found on half of the questions that several people
answered, and believed only where the other half bears it out. What the groups want is told, not judged."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.cluster import hierarchy
from scipy.spatial.distance import squareform

from penchant.evaluation.diagnosis.people import FEWEST, SHARED, Votes
from penchant.evaluation.statistics import Estimate, ratio, resampled, wilson

Floats = NDArray[np.float64]
Side = NDArray[np.bool_]

SURELY = 0.01
"""Groups are said to be there below this p."""
PRIOR = 4.0
"""Answers in common that stand for what is known of two people beforehand: that they agree like any two."""
CUTS = 20
"""Branches of the tree that are tried, the most even first."""
MOST = 500
"""People who are looked at; of more, those with the most answers."""
DRAWS = 2000


@dataclass(frozen=True)
class Groups:
    """Two sides of annotators, and how far each agrees on questions that the sides were not found on."""

    sides: tuple[tuple[str, ...], tuple[str, ...]]
    """Names, the larger group first. Who answers at random stands on either side."""
    within: tuple[Estimate, Estimate]
    """Share of pairs of answers by two people of one group that agree."""
    between: Estimate
    """The same for two people of different groups."""
    p: float
    """Of there being no two such groups."""

    @property
    def found(self) -> bool:
        return self.p < SURELY

    def to_json(self) -> dict[str, Any]:
        return {
            "found": self.found,
            "groups": [list(side) for side in self.sides],
            "within": [one.to_json() for one in self.within],
            "between": self.between.to_json(),
            "p": self.p,
        }


def groups(given: Votes, seed: int) -> Groups | None:
    """Needs four people with `FEWEST` shared answers each, and `SHARED` questions; None where there are fewer, or where the
    halves share too little.

    With one right side of every question and people who are right with probability η_k ≥ ½, two people's answers correlate as
    c_j c_k, c = 2η − 1, times how clear questions are. Then of two groups the less reliable cannot agree with itself more
    than with the other. So four things must hold on the half that did not choose the groups: each group agrees with itself
    more than chance, and more than with the other. p is of the least of the four being 0 or below (an intersection–union
    test, Berger 1982), one-sided, by drawing prompts. It supposes that the groups were not given questions of different
    clearness apart from each other."""
    enough = (given.table != 0).sum(0)
    people = np.sort(np.argsort(-enough, kind="stable")[:MOST])
    people = people[enough[people] >= FEWEST]
    table = given.table[:, people]
    if len(people) < 4 or len(table) < SHARED:
        return None
    keys, prompt = np.unique(np.asarray(given.keys), return_inverse=True)
    half = np.random.default_rng(seed).permutation(len(keys))[prompt] % 2 == 0
    side = _split(table[half])
    if side is None:
        return None
    top, bottom = _pairs(table[~half], side)
    if not bottom.sum(0).all():
        return None
    drawn = prompt[~half].tolist()
    least = resampled([*top.T, *bottom.T], _least, drawn, resamples=DRAWS)
    rates = [_rate(top[:, k], bottom[:, k], drawn) for k in range(3)]
    final = _settled(*_agreement(table), side)
    names = np.array(given.names, dtype=object)[people]
    sides = [tuple(names[final].tolist()), tuple(names[~final].tolist())]
    inside = rates[:2]
    if len(sides[0]) < len(sides[1]):
        sides, inside = sides[::-1], inside[::-1]
    return Groups((sides[0], sides[1]), (inside[0], inside[1]), rates[2], least.p / 2 if least.value > 0 else 1.0)


def _agreement(table: Floats) -> tuple[Floats, Floats]:
    """[people, people] sums of products of answers, +1 where two agree and −1 where not, and how many; 0 on the diagonal."""
    out = table.T @ table, np.abs(table).T @ np.abs(table)
    for matrix in out:
        np.fill_diagonal(matrix, 0.0)
    return out


def _split(table: Floats) -> Side | None:
    """The two groups that agree most within and least between; None where no split has shared answers everywhere."""
    same, shared = _agreement(table)
    best: tuple[float, Side] | None = None
    for side in _candidates(same, shared):
        settled = _settled(same, shared, side)
        value = _apart(same, shared, settled)
        if value is not None and (best is None or value > best[0]):
            best = value, settled
    return None if best is None else best[1]


def _candidates(same: Floats, shared: Floats) -> Iterator[Side]:
    """Branches of the tree of average linkage over 1 − r, each against the rest, and the signs of the direction in which
    people differ most. A branch of one person is no group."""
    usual = same.sum() / max(1.0, shared.sum())
    r = (same + PRIOR * usual) / (shared + PRIOR)
    far = 1 - r
    np.fill_diagonal(far, 0.0)
    n = len(r)
    tree = hierarchy.linkage(squareform(far, checks=False), "average")
    members = {k: [k] for k in range(n)}
    for k, (a, b, *_) in enumerate(tree):
        members[n + k] = members[int(a)] + members[int(b)]
    branches = sorted((some for some in members.values() if 2 <= len(some) <= n - 2), key=lambda x: abs(2 * len(x) - n))
    for some in branches[:CUTS]:
        yield np.isin(np.arange(n), some)
    np.fill_diagonal(r, usual)
    centred = r - r.mean(0) - r.mean(1)[:, None] + r.mean()
    axis = np.linalg.eigh(centred)[1][:, -1]
    yield axis > np.median(axis)
    yield axis > 0


def _settled(same: Floats, shared: Floats, side: Side, rounds: int = 20) -> Side:
    """Everybody moved to the group they agree with more, until nobody moves; no group falls below two."""
    for _ in range(rounds):
        a = side.astype(float)
        with_a = (same @ a) / np.maximum(shared @ a, 1.0)
        with_b = (same @ (1 - a)) / np.maximum(shared @ (1 - a), 1.0)
        moved = np.where(with_a == with_b, side, with_a > with_b)
        if (moved == side).all() or not 2 <= moved.sum() <= len(moved) - 2:
            break
        side = moved
    return side


def _apart(same: Floats, shared: Floats, side: Side) -> float | None:
    a = side.astype(float)
    if not 2 <= side.sum() <= len(side) - 2:
        return None
    parts = [(x @ same @ y, x @ shared @ y) for x, y in ((a, a), (1 - a, 1 - a), (a, 1 - a))]
    if not all(n for _, n in parts):
        return None
    one, other, across = (total / n for total, n in parts)
    return float(min(one, other) - across)


def _pairs(table: Floats, side: Side) -> tuple[Floats, Floats]:
    """[questions, (within one, within the other, between)] sums of products over pairs of answers, and their numbers."""
    asked = np.abs(table)
    tops, bottoms = [], []
    for x, out in ((table, tops), (asked, bottoms)):
        a, b = x[:, side].sum(1), x[:, ~side].sum(1)
        alone = asked[:, side].sum(1), asked[:, ~side].sum(1)  # Σ x² = the number of answers
        out += [(a**2 - alone[0]) / 2, (b**2 - alone[1]) / 2, a * b]
    return np.stack(tops, 1), np.stack(bottoms, 1)


def _least(sums: Floats) -> Floats:
    r = sums[..., :3] / np.maximum(sums[..., 3:], 1.0)
    one, other, across = r[..., 0], r[..., 1], r[..., 2]
    return np.minimum(np.minimum(one, other), np.minimum(one, other) - across)


def _rate(top: Floats, bottom: Floats, prompts: Sequence[int]) -> Estimate:
    """Share of pairs that agree, no narrower than Wilson's for as many questions."""
    found = ratio(((bottom + top) / 2).tolist(), bottom.tolist(), prompts, resamples=DRAWS)
    questions = int((bottom > 0).sum())
    low, high = wilson(found.value * questions, questions)
    return Estimate(found.value, min(found.low, low), max(found.high, high), int(bottom.sum()))

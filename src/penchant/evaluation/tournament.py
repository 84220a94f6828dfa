"""Several models rated from their battles: Bradley-Terry strengths with intervals, and Elo for streams of games.
The strengths come from choix; what is here is the table of wins, the scale, and how sure one can be."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import choix
import numpy as np
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components
from scipy.special import expit

from penchant.errors import Refusal
from penchant.evaluation.comparisons import Comparison
from penchant.evaluation.logistic import Floats
from penchant.evaluation.statistics import LEVEL, Estimate, percentiles
from penchant.words import brief, plain

Ints = NDArray[np.int64]

SCALE = 400 / math.log(10)
"""Elo points of one unit of strength: 400 points are odds of 10 to 1."""


@dataclass(frozen=True)
class Ratings:
    """P(i ≻ j) = σ(θ_i − θ_j)        Bradley & Terry 1952; a tie counts half a win to each"""

    names: tuple[str, ...]
    """The strongest first."""
    strength: tuple[Estimate, ...]
    """θ, with mean 0, or 0 for the anchor; the interval from prompts drawn anew."""
    sandwich: tuple[float, ...]
    """Standard errors of θ from H⁻¹ G H⁻¹, with the gradients of a prompt's battles added up."""
    anchor: str | None
    lost: float
    """Share of draws in which some model won or lost everything, so that strengths have no maximum; above 2.5 % the
    intervals are not known."""

    def of(self, name: str) -> float:
        """θ of one model."""
        if name not in self.names:
            raise Refusal(f"{plain(name, 60)!r} is not rated; rated are {', '.join(plain(n, 40) for n in self.names)}.")
        return self.strength[self.names.index(name)].value

    def probability(self, a: str, b: str) -> float:
        """P(a ≻ b)."""
        return float(expit(self.of(a) - self.of(b)))

    @property
    def elo(self) -> tuple[Estimate, ...]:
        """1000 + 400 / ln 10 · θ."""
        to = lambda x: 1000 + SCALE * x  # noqa: E731
        return tuple(Estimate(to(e.value), to(e.low), to(e.high), e.n) for e in self.strength)


def bradley_terry(
    comparisons: Sequence[Comparison],
    weights: Sequence[float] | None = None,
    *,
    anchor: str | None = None,
    resamples: int = 1000,
    level: float = LEVEL,
) -> Ratings:
    """Maximises Σ w [p log σ(θ_a − θ_b) + (1 − p) log σ(θ_b − θ_a)]. `weights`: of each comparison, at least 0. `anchor`:
    whose θ is 0. Raises Refusal where the models fall into groups of which one never lost to the other: then no strengths
    are the most likely (Ford 1957)."""
    if not comparisons:
        raise Refusal("there is no comparison to rate anybody by.")
    places: dict[str, int] = {}
    pairs = np.array([[places.setdefault(c.a, len(places)), places.setdefault(c.b, len(places))] for c in comparisons])
    names = list(places)
    same = next((c.a for c in comparisons if c.a == c.b), None)
    if same is not None:
        raise Refusal(f"{plain(same, 60)!r} is compared with itself, which says nothing of its strength.")
    if anchor is not None and anchor not in places:
        raise Refusal(f"the anchor {plain(anchor, 60)!r} is in no comparison.")
    w = np.ones(len(pairs)) if weights is None else np.asarray(weights, dtype=np.float64)
    if w.shape != (len(pairs),) or not np.isfinite(w).all() or (w < 0).any():
        raise Refusal(f"{len(pairs)} comparisons need as many weights, finite and at least 0.")
    p = np.array([c.p for c in comparisons])
    prompts: dict[str, int] = {}
    index = np.array([prompts.setdefault(c.prompt, len(prompts)) for c in comparisons])
    k, count = len(names), len(prompts)

    tables = np.zeros((count, k, k))  # [prompt, winner, loser]
    np.add.at(tables, (index, pairs[:, 0], pairs[:, 1]), w * p)
    np.add.at(tables, (index, pairs[:, 1], pairs[:, 0]), w * (1 - p))
    wins = tables.sum(0)
    parts, group = _groups(wins)
    if parts > 1:
        one = [plain(n, 40) for n, g in zip(names, group, strict=True) if g == group[0]]
        raise Refusal(
            f"{', '.join(one[:5])}{' …' if len(one) > 5 else ''} and the others never won against each other in both "
            "directions, so no strengths are the most likely; take more comparisons between them."
        )
    zero = None if anchor is None else places[anchor]
    theta = _strengths(wins, zero)
    spread = _sandwich(pairs, p, w, index, theta, zero)
    draws = _draws(tables, zero, resamples)
    lost = 1 - len(draws) / resamples if resamples and count > 1 else 0.0
    known = len(draws) > 0 and lost <= (1 - level) / 2
    order = np.argsort(-theta, kind="stable")
    battles = np.bincount(pairs.ravel(), minlength=k)
    found = []
    for i in order:
        low, high = percentiles(float(theta[i]), draws[:, i], count, level) if known else (-math.inf, math.inf)
        found.append(Estimate(float(theta[i]), low, high, int(battles[i])))
    return Ratings(tuple(names[i] for i in order), tuple(found), tuple(float(spread[i]) for i in order), anchor, lost)


def _groups(wins: Floats) -> tuple[int, np.ndarray]:
    """Strong components of "has won against"."""
    parts, group = connected_components(wins > 0, directed=True, connection="strong")
    return int(parts), group


def _strengths(wins: Floats, zero: int | None) -> Floats:
    theta = np.asarray(choix.ilsr_pairwise_dense(wins, alpha=0.0, max_iter=10_000, tol=1e-10))
    return theta - (theta.mean() if zero is None else theta[zero])


def _draws(tables: Floats, zero: int | None, resamples: int) -> Floats:
    """θ of draws of as many prompts, [draws, models]; draws without a maximum are left out."""
    count = len(tables)
    if count < 2:
        return np.zeros((0, tables.shape[1]))
    generator = np.random.default_rng(0)
    flat = tables.reshape(count, -1)
    found = []
    for _ in range(resamples):
        times = np.bincount(generator.integers(count, size=count), minlength=count)
        wins = (times @ flat).reshape(tables.shape[1:])
        if _groups(wins)[0] == 1:
            found.append(_strengths(wins, zero))
    return np.array(found).reshape(-1, tables.shape[1])


def _sandwich(pairs: Ints, p: Floats, w: Floats, index: Ints, theta: Floats, zero: int | None) -> Floats:
    """√diag(H⁺ G H⁺): H the curvature, G the sum over prompts of gradient times gradient."""
    k = len(theta)
    x = np.zeros((len(p), k))
    x[np.arange(len(p)), pairs[:, 0]], x[np.arange(len(p)), pairs[:, 1]] = 1.0, -1.0
    mu = expit(x @ theta)
    curvature = x.T @ ((w * mu * (1 - mu))[:, None] * x)
    gradients = np.zeros((index.max() + 1, k))
    np.add.at(gradients, index, (w * (p - mu))[:, None] * x)
    inverse = np.linalg.pinv(curvature, hermitian=True)
    if zero is not None:
        inverse = inverse - inverse[zero]
    return np.sqrt(np.clip(np.einsum("ij,kj,ki->i", inverse, gradients, gradients @ inverse.T), 0, None))


def online_elo(
    comparisons: Sequence[Comparison], *, k: float = 32.0, initial: float = 1000.0, scale: float = 400.0
) -> dict[str, float]:
    """Elo ratings after these games in this order: R_a ← R_a + k (p − 1 / (1 + 10^((R_b − R_a) / scale))). They depend on
    the order of the games; where that means nothing, use `bradley_terry`."""
    for name, value in (("k", k), ("scale", scale)):
        if not (math.isfinite(value) and value > 0):
            raise Refusal(f"{name} of an Elo rating is {brief(value)}; it must be a number above 0.")
    ratings: dict[str, float] = {}
    for c in comparisons:
        a, b = ratings.setdefault(c.a, initial), ratings.setdefault(c.b, initial)
        gain = k * (c.p - float(expit((a - b) * math.log(10) / scale)))
        ratings[c.a], ratings[c.b] = a + gain, b - gain
    return ratings

"""What reward was bought for how much divergence from the reference: KL estimates, best-of-n, frontiers, areas and fits.
Points come from samples as plain numbers; drawing them is the report's business."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from penchant.errors import Refusal
from penchant.evaluation.logistic import Floats
from penchant.evaluation.statistics import Difference, Estimate, chance, mean, percentiles


def k1(logp: Sequence[float], ref: Sequence[float]) -> float:
    """Σ log π − log π_ref over the tokens of one sample of π: unbiased for KL(π‖π_ref), may be negative."""
    return math.fsum(a - b for a, b in zip(logp, ref, strict=True))


def k2(logp: Sequence[float], ref: Sequence[float]) -> float:
    """½ Σ (log π − log π_ref)²: never negative, biased."""
    return math.fsum((a - b) ** 2 for a, b in zip(logp, ref, strict=True)) / 2


def k3(logp: Sequence[float], ref: Sequence[float]) -> float:
    """Σ exp(−d) − 1 + d, d = log π − log π_ref: unbiased and never negative."""
    return math.fsum(math.expm1(b - a) + (a - b) for a, b in zip(logp, ref, strict=True))


def best_of_kl(n: int) -> float:
    """ln n − (n − 1) / n: KL of the best of n samples from the model they come from, exact where no two scores are equal
    and an upper bound else (Beirami et al. 2024)."""
    if n < 1:
        raise Refusal(f"the best of {n} is nobody; n must be at least 1.")
    return math.log(n) - (n - 1) / n


def best_of(rewards: Sequence[float], probabilities: Sequence[float], n: int) -> tuple[float, float]:
    """(mean reward, exact KL) of the best of n draws from finitely many answers; a tie is broken by a fair draw among
    the best, so that equally good answers keep their ratio."""
    r, p = np.asarray(rewards, dtype=np.float64), np.asarray(probabilities, dtype=np.float64)
    if r.shape != p.shape or not len(r) or (p < 0).any() or abs(p.sum() - 1) > 1e-9 or n < 1:
        raise Refusal(f"{len(r)} rewards and {len(p)} probabilities, which must add up to 1, and n = {n}, at least 1.")
    q = np.zeros_like(p)
    for value in np.unique(r):
        level = r == value
        below, upto = p[r < value].sum(), p[r <= value].sum()
        if p[level].sum() > 0:
            q[level] = p[level] / p[level].sum() * (upto**n - below**n)
    return float(q @ r), _kl(q, p)


def tilted(rewards: Sequence[float], probabilities: Sequence[float], beta: float) -> tuple[float, float]:
    """(mean reward, KL) of π ∝ π_ref exp(r / β), the policy of most reward at its KL: the frontier itself."""
    if not beta > 0:
        raise Refusal(f"beta is {beta:g}; it must be above 0.")
    r, p = np.asarray(rewards, dtype=np.float64), np.asarray(probabilities, dtype=np.float64)
    q = p * np.exp((r - r.max()) / beta)
    q /= q.sum()
    return float(q @ r), _kl(q, p)


def _kl(q: Floats, p: Floats) -> float:
    some = q > 0
    return float((q[some] * np.log(q[some] / p[some])).sum())


@dataclass(frozen=True)
class Point:
    """One policy: how far it went and what it gained."""

    name: str
    kl: Estimate
    """Nats a response."""
    reward: Estimate


def point(name: str, kl: Sequence[float], reward: Sequence[float], prompts: Sequence[str] | None = None) -> Point:
    """A policy's samples, one KL and one reward each, drawn by prompt."""
    return Point(name, mean(kl, prompts), mean(reward, prompts))


def frontier(points: Sequence[Point]) -> list[Point]:
    """The points that no other beats: none has more reward for no more KL, or as much for less; by KL."""
    out: list[Point] = []
    for one in sorted(points, key=lambda x: (x.kl.value, -x.reward.value)):
        if not out or one.reward.value > out[-1].reward.value:
            out.append(one)
    return out


def hypervolume(points: Sequence[tuple[float, float]], worst: tuple[float, float]) -> float:
    """The area that points (KL, reward) win from the corner `worst`: of all (k, r) with k < worst KL and r > worst reward, how
    much some point beats by no more KL and no less reward (Zitzler and Thiele 1999, in two dimensions). A point outside of the
    corner wins nothing. Reward times nats."""
    far, least = worst
    if not all(map(math.isfinite, [far, least, *(x for one in points for x in one)])):
        raise Refusal("a KL or a reward is not a finite number, so there is no area.")
    area, best = 0.0, least
    for k, r in sorted(points, key=lambda one: (one[0], -one[1])):
        if k < far and r > best:
            area += (far - k) * (r - best)
            best = r
    return area


def reward_at(points: Sequence[Point], kl: float) -> float:
    """Reward at this KL, on the line between the two points beside it. Raises Refusal outside the points: a frontier is
    not extended."""
    known = sorted((x.kl.value, x.reward.value) for x in points)
    if not known or not known[0][0] <= kl <= known[-1][0]:
        between = f"[{known[0][0]:.3g}, {known[-1][0]:.3g}]" if known else "nothing"
        raise Refusal(f"the points span a KL of {between} nats, and {kl:.3g} lies outside; compare where both have points.")
    x, y = map(np.asarray, zip(*known, strict=True))
    return float(np.interp(kl, x, y))


def matched(
    a: Sequence[tuple[Floats, Floats]], b: Sequence[tuple[Floats, Floats]], kl: float, *, resamples: int = 2000
) -> Difference:
    """Reward of a less reward of b at this KL. Each policy is (KL, reward) by prompt, [prompts] in the same order for all;
    prompts are drawn together for all policies, and draws in which the KL lies outside some points are left out; where
    those are more than 1 in 40, the interval is not known."""
    every = [np.stack([np.asarray(k), np.asarray(r)], 1) for k, r in [*a, *b]]
    sizes = {len(x) for x in every}
    if len(sizes) != 1 or sizes == {0} or not a or not b:
        raise Refusal(f"policies of {sorted(sizes)} prompts; all must answer the same prompts, in the same order.")
    n = sizes.pop()
    generator = np.random.default_rng(0)

    def gap(rows: np.ndarray) -> float:
        means = np.array([x[rows].mean(0) for x in every])
        ends = []
        for some in (means[: len(a)], means[len(a) :]):
            x, y = some[np.argsort(some[:, 0])].T
            ends.append(float(np.interp(kl, x, y, left=np.nan, right=np.nan)))
        return ends[0] - ends[1]

    value = gap(np.arange(n))
    if math.isnan(value):
        raise Refusal(f"a KL of {kl:.3g} nats lies outside the points of one of the two; compare where both have points.")
    draws = np.array([gap(generator.integers(n, size=n)) for _ in range(resamples)]) if n > 1 else np.zeros(0)
    known = draws[np.isfinite(draws)]
    if len(known) < 0.975 * resamples:
        return Difference(value, -math.inf, math.inf, n, 1.0)
    return Difference(value, *percentiles(value, known, n), n, chance(value, known, n))


@dataclass(frozen=True)
class OverOptimisation:
    """R(d) = d (a − b d) for best-of-n, d (a − b ln d) for learning, d = √KL        Gao et al. 2023, arXiv 2210.10760"""

    a: float
    b: float
    errors: tuple[float, float]
    """Standard errors of a and b from the residuals; not numbers where there are only two points."""
    kind: str

    def reward(self, kl: float) -> float:
        d = math.sqrt(kl)
        return d * (self.a - self.b * (d if self.kind == "best of n" else math.log(d))) if d else 0.0

    @property
    def peak(self) -> float | None:
        """KL at which the fitted reward is highest: d = a / 2b, or exp(a / b − 1); None where it only rises."""
        if self.b <= 0 or (self.kind == "best of n" and self.a <= 0):
            return None
        return (self.a / (2 * self.b)) ** 2 if self.kind == "best of n" else math.exp(2 * (self.a / self.b - 1))


def over_optimisation(kl: Sequence[float], gain: Sequence[float], kind: str = "best of n") -> OverOptimisation:
    """Least squares of gain (gold reward less that at KL = 0) on d and d² ("best of n") or d ln d ("learning"). Points at
    KL = 0 say nothing and are left out. The fit is poor near d = 0."""
    if kind not in ("best of n", "learning"):
        raise Refusal(f"{kind!r} is no kind of optimisation; there are 'best of n' and 'learning'.")
    d, y = np.sqrt(np.asarray(kl, dtype=np.float64)), np.asarray(gain, dtype=np.float64)
    d, y = d[d > 0], y[d > 0]
    if len(np.unique(d)) < 2:
        raise Refusal(f"{len(np.unique(d))} different KL above 0; two numbers are fitted, so at least two are needed.")
    x = np.stack([d, -(d**2) if kind == "best of n" else -d * np.log(d)], 1)
    found = np.linalg.lstsq(x, y, rcond=None)[0]
    spare = len(d) - 2
    variance = float(((y - x @ found) ** 2).sum()) / spare if spare else math.nan
    errors = np.sqrt(np.diag(np.linalg.inv(x.T @ x)) * variance)
    return OverOptimisation(float(found[0]), float(found[1]), (float(errors[0]), float(errors[1])), kind)

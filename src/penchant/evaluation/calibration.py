"""Whether a stated probability comes true: expected calibration error, Brier, log loss, and the temperature that mends it.
It takes probabilities and outcomes as plain numbers; no model is asked here."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import expit, xlog1py, xlogy

from penchant.errors import Refusal
from penchant.evaluation.logistic import Floats, fit
from penchant.evaluation.statistics import Estimate, mean, percentiles, wilson

BINS = 10


@dataclass(frozen=True)
class Bin:
    """One point of the reliability curve: low < stated probability ≤ high (the first bin holds its lower end too)."""

    low: float
    high: float
    stated: float
    """Mean stated probability."""
    right: Estimate
    """Share that came true, with Wilson's interval."""


@dataclass(frozen=True)
class Calibration:
    """How well a share of P(right) comes true, over probabilities of the likelier side, in [½, 1]."""

    ece: float
    """Σ n_b / N |mean stated − share right| over equally wide bins. No interval: it is never negative, and of a perfect
    forecaster about √(p(1 − p) · bins / N) too large by chance alone."""
    brier: Estimate
    """mean (p − c)²."""
    nll: Estimate
    """mean −c ln p − (1 − c) ln(1 − p), nats; infinite where what was called impossible came true."""
    accuracy: Estimate
    curve: tuple[Bin, ...]
    """Bins that hold anything."""


def calibration(
    stated: Sequence[float],
    right: Sequence[float],
    bins: int = BINS,
    groups: Sequence[Hashable] | None = None,
    *,
    low: float = 0.5,
) -> Calibration:
    """`stated`: P of the side that was taken, in [low, 1]; `right`: 1 where it was right, 0 where not, ½ for neither.
    `low=0` for probabilities of an event instead. Raises Refusal for numbers outside."""
    p, c = np.asarray(stated, dtype=np.float64), np.asarray(right, dtype=np.float64)
    if not len(p) or p.shape != c.shape:
        raise Refusal(f"{len(p)} probabilities and {len(c)} outcomes; there must be as many of both, and at least one.")
    if not ((p >= low) & (p <= 1)).all() or not ((c >= 0) & (c <= 1)).all():
        raise Refusal(f"probabilities must lie in [{low:g}, 1] and outcomes in [0, 1]; take max(p, 1 − p) of a pair.")
    if bins < 1:
        raise Refusal(f"{bins} bins were asked for; at least one is needed.")
    edges = np.round(np.linspace(low, 1, bins + 1), 12)
    place = np.clip(np.searchsorted(edges, p, side="left") - 1, 0, bins - 1)
    curve, error = [], 0.0
    for b in range(bins):
        inside = place == b
        n = int(inside.sum())
        if n:
            hit = float(c[inside].mean())
            said = float(p[inside].mean())
            error += n / len(p) * abs(said - hit)
            curve.append(Bin(float(edges[b]), float(edges[b + 1]), said, Estimate(hit, *wilson(hit * n, n), n)))
    loss = -xlogy(c, p) - xlog1py(1 - c, -p)
    nll = mean(loss.tolist(), groups) if np.isfinite(loss).all() else Estimate(math.inf, -math.inf, math.inf, len(p))
    return Calibration(error, mean(((p - c) ** 2).tolist(), groups), nll, mean(c.tolist(), groups), tuple(curve))


def of_margins(
    margins: Sequence[float], temperature: float = 1.0, bins: int = BINS, groups: Sequence[Hashable] | None = None
) -> Calibration:
    """Calibration of P(chosen ≻ rejected) = σ(margin / temperature), where the chosen is right always: the likelier side
    has p = max(σ, 1 − σ) and is right where the margin is above 0, half where it is 0."""
    if not temperature > 0:
        raise Refusal(f"the temperature is {temperature:g}; it must be above 0.")
    d = np.asarray(margins, dtype=np.float64)
    if not np.isfinite(d).all():
        raise Refusal("a margin is not a finite number.")
    return calibration(expit(np.abs(d) / temperature).tolist(), ((np.sign(d) + 1) / 2).tolist(), bins, groups)


def temperature(margins: Sequence[float], groups: Sequence[Hashable] | None = None, *, resamples: int = 1000) -> Estimate:
    """T that minimises mean softplus(−margin / T) on held-out pairs (Guo et al. 2017, section 4.2), by Newton's method in
    1 / T, in which the loss is convex. Infinite where margins are right no more than chance would have it: then no
    confidence is justified. Raises Refusal where no margin is below 0: then no confidence is too great."""
    d = np.asarray(margins, dtype=np.float64)
    if not len(d) or not np.isfinite(d).all():
        raise Refusal(f"{len(d)} margins; there must be at least one, and all must be finite.")
    if not (d < 0).any():
        raise Refusal(
            f"all {len(d)} pairs are in order, so no temperature is the best: more, and harder, pairs are needed."
        )
    names: dict[Hashable, int] = {}
    index = np.array([names.setdefault(g, len(names)) for g in (range(len(d)) if groups is None else groups)])
    count = len(names)
    generator = np.random.default_rng(0)
    times = np.stack([np.bincount(generator.integers(count, size=count), minlength=count) for _ in range(resamples)])
    weights = np.concatenate([np.ones((1, len(d))), times[:, index].astype(np.float64)])
    slope: Floats = fit(d[:, None], np.ones(len(d)), weights).coefficients[:, 0]
    # Without a maximum a draw has all pairs in order (1/T = ∞) or all against it (1/T = −∞).
    slope = np.where(np.isnan(slope), np.where(weights @ d > 0, np.inf, -np.inf), slope)
    if not slope[0] > 0:
        return Estimate(math.inf, -math.inf, math.inf, len(d))
    finite = np.clip(slope[1:], -1e12, 1e12)
    low, high = percentiles(float(slope[0]), finite, count)
    return Estimate(1 / float(slope[0]), 1 / high if high > 0 else 0.0, 1 / low if low > 0 else math.inf, len(d))

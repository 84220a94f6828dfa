"""How many labels are wrong, and which: a curve through how often labels agree with a predictor that never saw them. It sees
margins alone, and it cannot tell a wrong label from a pair on which people differ; it says what follows from which assumption."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from scipy.special import expit, logit

from penchant.evaluation.statistics import LEVEL, Estimate, share

Floats = NDArray[np.float64]

SLOPES = np.concatenate([[0.0], np.geomspace(0.03, 60, 36)])
"""a: the log-odds that a label is right at a margin of typical size, were there no wrong labels."""
SHAPES = np.array([0.75, 1.0, 1.5, 2.0])
"""b: how log-odds grow with the size of a margin, |m|ᵇ. 1 is Bradley-Terry; the others stand for what is not known of it."""
RATES = np.linspace(0.0, 1.0, 201)
"""ε, the share of wrong labels, or 1 − η of an annotator: above 1/2 where they say the contrary of the others."""
BINS = 100
PARTS = (0.05, 0.1, 0.2, 0.35, 0.6, 1.0)
"""The surest parts of the pairs that bound the share of wrong labels."""
WORTH = 0.01
"""Wrong labels are said to be found only where there are surely more than this: one in a hundred changes nothing, and a
curve that is a little off would find as many."""
DOUBT = 0.01
"""A single label is doubted at no smaller rate than this: at 0 no label could be wrong."""


@dataclass(frozen=True)
class Curve:
    """Log-likelihoods of agreement and disagreement on a grid, P(agree) = (1−ε) p + ε (1−p), p = σ(a |m|ᵇ): the marginal of
    LCPO (Cao et al. 2025, arXiv 2509.24159, eq. 3) with a free scale and shape of the margin. LCPO's EM climbs this
    likelihood; on a grid its maximum and its whole profile are read off, whatever the start."""

    edges: Floats
    """[bins − 1] between the bins of |m|, in units of the margins' root mean square."""
    scale: float
    table: Floats
    """[bins, 2, curves, rates] log P(disagree), log P(agree)."""
    slopes: Floats
    """[curves] a …"""
    shapes: Floats
    """… and b of each curve."""

    @classmethod
    def over(cls, margins: Floats) -> Curve:
        """The grid for these margins, of which at least one is not 0."""
        scale = float(np.sqrt(np.mean(margins**2))) or 1.0
        size = np.abs(margins) / scale
        edges = np.unique(np.quantile(size, np.linspace(0, 1, BINS + 1)[1:-1]))
        which = np.searchsorted(edges, size, side="right")
        total = np.bincount(which, minlength=len(edges) + 1)
        middle = np.bincount(which, weights=size, minlength=len(edges) + 1) / np.maximum(total, 1)
        slopes, shapes = np.meshgrid(SLOPES, SHAPES, indexing="ij")
        slopes, shapes = slopes.ravel(), shapes.ravel()
        p = expit(slopes * middle[:, None] ** shapes)
        rate = np.clip(RATES, 1e-6, 1 - 1e-6)
        agree = p[..., None] * (1 - rate) + (1 - p[..., None]) * rate
        return cls(edges, scale, np.log(np.stack([1 - agree, agree], axis=1)), slopes, shapes)

    def counts(self, margins: Floats) -> Floats:
        """[bins, 2] how many margins of each size are against (0) and for (1) the label; a margin of 0 is half of each."""
        which = np.searchsorted(self.edges, np.abs(margins) / self.scale, side="right")
        bins = len(self.edges) + 1
        against, none = np.bincount(which[margins < 0], minlength=bins), np.bincount(which[margins == 0], minlength=bins)
        return np.stack([against + none / 2, np.bincount(which[margins > 0], minlength=bins) + none / 2], axis=1)

    def likelihood(self, margins: Floats) -> Floats:
        """[curves, rates] the log-likelihood of these margins' signs."""
        counts = self.counts(margins)
        return np.tensordot(counts, self.table, axes=([0, 1], [0, 1]))

    def log_odds(self, margins: Floats, curve: int) -> Floats:
        """g: the log-odds that each label is right before it is known who gave it."""
        size = np.abs(margins) / self.scale
        return np.sign(margins) * self.slopes[curve] * size ** self.shapes[curve]


def profile(likelihood: Floats, weight: float, rates: Floats, level: float = LEVEL) -> tuple[float, float, float]:
    """(best, low, high) from a log-likelihood over rates at its best curve each: the rates that a likelihood-ratio test at
    `level` does not reject. `weight` ≤ 1 is how many independent rows one row counts for."""
    best = int(likelihood.argmax())
    allowed = likelihood[best] - stats.chi2.ppf(level, 1) / 2 / weight
    inside = np.flatnonzero(likelihood >= allowed)
    low, high = inside[0], inside[-1]
    left = rates[low] if low == 0 else np.interp(allowed, likelihood[low - 1 : low + 1], rates[low - 1 : low + 1])
    right = rates[high]
    if high + 1 < len(rates):
        right = np.interp(-allowed, -likelihood[high : high + 2], rates[high : high + 2])
    return float(rates[best]), float(left), float(right)


@dataclass(frozen=True)
class Noise:
    """The share of wrong labels, so far as it can be known."""

    accuracy: Estimate
    """Of the predictor on pairs it never saw, as they are labelled."""
    rate: Estimate
    """The share of labels that are wrong, if the surest pairs have a right side and mistakes fall on sure and unsure pairs
    alike."""
    at_most: float
    """Above this the share does not lie, at 95 %, whatever the curve, so long as mistakes fall on all pairs alike."""
    counted: Estimate | None
    """Confident learning's count of it (Northcutt et al. 2021, arXiv 1911.00068), a second opinion; none where no label is
    confidently contradicted or confirmed."""
    learnable: bool
    """Whether the predictor is surely better than a guess. If not, nothing is known."""

    @property
    def found(self) -> bool:
        """Whether it is sure that some labels are wrong, not only how many at most."""
        return self.learnable and self.rate.low > WORTH

    def to_json(self) -> dict[str, Any]:
        return {
            "learnable": self.learnable,
            "found": self.found,
            "predictor_accuracy": self.accuracy.to_json(),
            "rate": self.rate.to_json() if self.learnable else None,
            "at_most": self.at_most if self.learnable else None,
            "confident_learning": self.counted.to_json() if self.counted else None,
        }


def dependence(values: Floats, groups: Sequence[Any]) -> float:
    """How many rows weigh as one independent row: Σ_groups (Σ v)² / Σ v², at least 1; the variance of a clustered sum
    over that of an independent one, for values of mean 0."""
    _, which = np.unique(np.asarray(groups), return_inverse=True)
    square = float((values**2).sum())
    return max(1.0, float((np.bincount(which, weights=values) ** 2).sum()) / square) if square > 0 else 1.0


def slope_of(margins: Floats, curve: Curve, best: int, rate: float) -> Floats:
    """d log-likelihood / dε of each row, centred: what the clustering of rows is judged by."""
    p = expit(curve.log_odds(margins, best))
    values = (1 - 2 * p) / np.maximum((1 - rate) * p + rate * (1 - p), 1e-6)
    return values - values.mean()


def upper(margins: Floats, weight: float) -> float:
    """A bound on ε that asks nothing of the curve. In any part of the pairs that is chosen by |m| alone, a predictor that
    errs in a share e disagrees with labels in ε + (1−2ε) e ≥ ε of them (for e, ε ≤ 1/2): so ε lies under every part's upper
    limit (Clopper and Pearson 1934), with the level shared among the parts (Bonferroni)."""
    order = np.argsort(-np.abs(margins), kind="stable")
    wrong = np.cumsum(np.where(margins < 0, 1.0, np.where(margins == 0, 0.5, 0.0))[order])
    level = 1 - (1 - LEVEL) / len(PARTS)
    limits = []
    for part in PARTS:
        n = max(1, round(part * len(margins)))
        k, effective = wrong[n - 1], n * weight
        k = k * weight
        limits.append(1.0 if k >= effective else float(stats.beta.ppf(level, k + 1, effective - k)))
    return min(0.5, *limits)


def confident_count(log_odds: Floats, groups: Sequence[Any]) -> Estimate | None:
    """Confident learning on pairs: a label counts as confirmed where the calibrated probability of the labelled side is at
    least its mean over all rows, and as contradicted where that of the other side is. Both sides of a pair being the same
    class seen from two ends, the joint has one free entry: the share contradicted."""
    p = expit(log_odds)
    threshold = p.mean()
    against, confirmed = 1 - p >= threshold, p >= threshold
    both = (against | confirmed) & (threshold > 0.5)
    if not both.any():
        return None
    return share(against[both].astype(float).tolist(), [g for g, kept in zip(groups, both.tolist(), strict=True) if kept])


@dataclass(frozen=True)
class Fitted:
    """The noise, and the curve it was read from."""

    noise: Noise
    curve: Curve
    best: int
    """The number of the likeliest curve."""

    def log_odds(self, margins: Floats) -> Floats:
        """g of every label: the log-odds that it is right, before it is known who gave it."""
        return self.curve.log_odds(margins, self.best)

    def doubts(self, margins: Floats, wrong: float | Floats) -> Floats:
        """P(label wrong) = 1 − w, w = σ(g + logit η) (LCPO, eq. 4), for the rate of wrong labels, or that of each
        label's annotator."""
        rate = np.clip(wrong, DOUBT, 1 - DOUBT)
        return expit(logit(rate) - self.log_odds(margins))


def fit(margins: Floats, groups: Sequence[Any]) -> Fitted:
    """The share of wrong labels from margins of a predictor on pairs it did not learn from, > 0 where it agrees with the
    label; `groups` are the prompts, whose pairs are not independent."""
    accuracy = share(np.where(margins > 0, 1.0, np.where(margins < 0, 0.0, 0.5)).tolist(), list(groups))
    curve = Curve.over(margins)
    under = RATES <= 0.5
    likelihood = curve.likelihood(margins)[:, under]
    best, at = np.unravel_index(int(likelihood.argmax()), likelihood.shape)
    rate = float(RATES[under][at])
    weight = 1 / dependence(slope_of(margins, curve, int(best), rate), groups)
    value, low, high = profile(likelihood.max(0), weight, RATES[under])
    noise = Noise(
        accuracy=accuracy,
        rate=Estimate(value, low, high, len(margins)),
        at_most=upper(margins, weight),
        counted=confident_count(curve.log_odds(margins, int(best)), groups),
        learnable=accuracy.low > 0.5,
    )
    return Fitted(noise, curve, int(best))

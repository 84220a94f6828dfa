"""Logistic regression of shares by maximum likelihood, unpenalised, many weightings of the same rows at once.
It fits and says whether there was a maximum; what the columns mean is known where it is called."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, log_expit

Floats = NDArray[np.float64]

STEPS = 60
_AT_ONCE = 4_000_000  # numbers held in memory together


@dataclass(frozen=True)
class Fit:
    """Coefficients [d], or [draws, d] for a table of weights; not a number where the likelihood has no maximum: where some
    combination of columns separates 1 from 0, or columns depend on each other."""

    coefficients: Floats
    found: NDArray[np.bool_]
    """Whether there was a maximum: one for each weighting."""


def fit(columns: Floats, p: Floats, weights: Floats | None = None) -> Fit:
    """Maximises Σ w (p log σ(xβ) + (1 − p) log σ(−xβ)) by Newton's method with halved steps.

    columns: x, [n, d], or [draws, n, d] where they differ by weighting. p: shares in [0, 1], [n]. weights: [n], or
    [draws, n]; ones where None."""
    weights = np.ones(len(p)) if weights is None else np.asarray(weights, dtype=np.float64)
    if weights.ndim == 1:
        one = _newton(columns[None] if columns.ndim == 2 else columns, p, weights[None])
        return Fit(one.coefficients[0], one.found[0])
    size = max(1, _AT_ONCE // (columns.shape[-2] * columns.shape[-1]))
    parts = [
        _newton(columns[None] if columns.ndim == 2 else columns[start : start + size], p, weights[start : start + size])
        for start in range(0, len(weights), size)
    ]
    return Fit(np.concatenate([x.coefficients for x in parts]), np.concatenate([x.found for x in parts]))


def _newton(x: Floats, p: Floats, w: Floats) -> Fit:
    draws, d = len(w), x.shape[-1]
    scale = np.sqrt((x**2).mean(1, keepdims=True))  # so that what is a small curvature does not depend on units
    scale = np.where(scale > 0, scale, 1.0)
    x = np.broadcast_to(x / scale, (draws, *x.shape[-2:]))
    beta = np.zeros((draws, d))
    moving = np.ones(draws, dtype=bool)
    found = np.zeros(draws, dtype=bool)
    loss = _loss(x, p, w, beta)
    for _ in range(STEPS):
        rows = np.flatnonzero(moving)
        if not len(rows):
            break
        xs, ws, bs = x[rows], w[rows], beta[rows]
        mu = expit(_product(xs, bs))
        gradient = np.einsum("rn,rnd->rd", ws * (p - mu), xs)
        curvature = np.einsum("rn,rnd,rne->rde", ws * mu * (1 - mu), xs, xs)
        # Without a maximum some curvature is 0 (dependent columns) or falls to it as β runs away (separation).
        sound = np.linalg.eigvalsh(curvature)[:, 0] > 1e-10 * ws.sum(1)
        moving[rows[~sound]] = False
        rows, xs, ws, bs = rows[sound], xs[sound], ws[sound], bs[sound]
        if not len(rows):
            break
        step = np.linalg.solve(curvature[sound], gradient[sound][..., None])[..., 0]
        size = np.ones(len(rows))
        for _ in range(30):
            new = bs + size[:, None] * step
            worse = _loss(xs, p, ws, new) > loss[rows] + 1e-12 * np.abs(loss[rows])
            if not worse.any():
                break
            size[worse] /= 2
        beta[rows] = bs + size[:, None] * step
        loss[rows] = _loss(xs, p, ws, beta[rows])
        still = np.abs(step).max(1) < 1e-9 * (1 + np.abs(beta[rows]).max(1))
        found[rows[still]] = True
        moving[rows[still]] = False
    beta[~found] = np.nan
    return Fit(beta / scale[:, 0], found)


def _product(x: Floats, beta: Floats) -> Floats:
    return np.einsum("rnd,rd->rn", x, beta)


def _loss(x: Floats, p: Floats, w: Floats, beta: Floats) -> Floats:
    z = _product(x, beta)
    return np.einsum("rn,rn->r", w, -p * log_expit(z) - (1 - p) * log_expit(-z))

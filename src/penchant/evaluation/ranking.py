"""Does the policy itself give the chosen more probability than the rejected, could it have learned to, and which pairs could
not be turned? It is not the implicit accuracy of `pairs.accuracy`, which asks what training moved and not where it stands."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penchant.errors import Refusal
from penchant.evaluation.evidence import PairEvidence, RunEvidence
from penchant.evaluation.listwise import all_pairs
from penchant.evaluation.statistics import RESAMPLES, Difference, Estimate, difference, mean, share

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

BETAS = (0.01, 0.1, 1.0, 5.0, 10.0)
"""The grid over which the idealised accuracy is taken, as in the authors' code."""
AGREED = 0.75
"""α, the share of raters that prefer the chosen, where the data does not say; the authors' code assumes the same."""
LEAST = 1e-3
"""α is held in [ε, 1 − ε]: at 1 the ideal policy would rank any pair right, whatever its reference."""


def above(w: Floats, l: Floats, n_w: Floats, n_l: Floats, *, per_token: bool = False) -> Bools:
    """R of each pair, 1[log π(y_w) ≥ log π(y_l)], by sums or by means per token (R~). A tie is right. arXiv 2405.19534,
    definition 2.2."""
    return (w / np.maximum(n_w, 1) >= l / np.maximum(n_l, 1)) if per_token else w >= l


def difficulty(rp_w: Sequence[float], rp_l: Sequence[float]) -> Floats:
    """c = log π_ref(y_l) − log π_ref(y_w), in nats, of each pair: 0 and less where the reference ranks it right. Theorem 4.1."""
    return np.asarray(rp_l, dtype=np.float64) - np.asarray(rp_w, dtype=np.float64)


def dpo_threshold(c: Any, beta: float) -> Floats:
    """−log σ(βc): a pair of difficulty c is ranked right if and only if its DPO loss is at most this. Theorem 4.1."""
    return np.logaddexp(0.0, -beta * np.asarray(c, dtype=np.float64))


def ipo_threshold(c: Any, tau: float) -> Floats:
    """(1/(2τ) − c)², with log-ratios as sums: an IPO loss (h − 1/(2τ))² of at most this puts h ≥ c, and the pair right. NaN
    where c > 1/(2τ): there even a loss of 0 leaves it wrong. It is enough, not needed: h beyond 2/(2τ) − c is right too.
    Proposition A.7, whose equation is for one of the two branches."""
    left = 1 / (2 * tau) - np.asarray(c, dtype=np.float64)
    return np.where(left >= 0, left**2, np.nan)


def ideal(c: Any, alpha: Any, beta: float) -> Bools:
    """Whether the ideal policy of this β ranks a pair right: log π_ref(y_w)/π_ref(y_l) + (1/β) log(α/(1 − α)) > 0, strictly.
    Corollary 3.3; `c` may be a difference of means per token, for R~*. The authors' code calls ratios within 5 % of 1 ties
    and divides the two sums instead of subtracting them; here the paper is followed."""
    alpha = np.clip(np.asarray(alpha, dtype=np.float64), LEAST, 1 - LEAST)
    return -np.asarray(c, dtype=np.float64) + np.log(alpha / (1 - alpha)) / beta > 0


@dataclass(frozen=True)
class Ideal:
    """Accuracy that an ideally trained policy would have, over a grid of β."""

    by_beta: dict[float, float]
    low: float
    median: float
    high: float


@dataclass(frozen=True)
class Quadrant:
    """The pairs that the reference ranked so, and the policy now ranks so."""

    reference_right: bool
    right: bool
    n: int
    share: Estimate
    """Of all pairs."""
    loss: Estimate | None
    """Mean DPO loss; None where no pair is in here, as for the others."""
    margin: Estimate | None
    """Mean of β times the log-ratio of chosen less that of rejected."""
    difficulty: Estimate | None
    """Mean c in nats."""

    @property
    def name(self) -> str:
        before, now = ("right" if right else "wrong" for right in (self.reference_right, self.right))
        return f"reference {before}, policy {now}"


@dataclass(frozen=True)
class RankingReport:
    """What one set of pairs says of a policy and its reference. Intervals resample prompts where `groups` were given."""

    beta: float
    accuracy: Estimate
    """R: share of pairs with log π(y_w) ≥ log π(y_l), by sums."""
    accuracy_per_token: Estimate
    """R~: the same by means per token."""
    reference: Estimate
    reference_per_token: Estimate
    """The two of the reference."""
    implicit: Estimate
    """RA: share of pairs with log π/π_ref (y_w) > log π/π_ref (y_l), strictly. It is what most tools call accuracy, and it
    is not a ranking accuracy: at the reference it is 0, and ties count as wrong."""
    ideal: Ideal
    """R*."""
    ideal_per_token: Ideal
    """R~*."""
    gap: Difference
    """R* (median over β) − R, over the same pairs."""
    flippable: Estimate | None
    """Share of the pairs the reference ranks wrong that the ideal policy of this β ranks right; None where there are none."""
    flipped: Estimate | None
    """Share of them that the policy ranks right."""
    difficulty: list[float]
    """c of each pair."""
    loss: list[float]
    """−log σ(β (log-ratio of chosen − of rejected)) of each pair."""
    margin: list[float]
    dpo_threshold: list[float]
    """The loss below which each pair is ranked right."""
    ipo_threshold: list[float | None]
    """The same for IPO with τ = β; None where no IPO loss is small enough."""
    quadrants: list[Quadrant]
    """Reference right and policy right, right and wrong, wrong and right, wrong and wrong."""


def ranking_report(
    lp_w: Sequence[float],
    lp_l: Sequence[float],
    rp_w: Sequence[float],
    rp_l: Sequence[float],
    n_w: Sequence[float],
    n_l: Sequence[float],
    beta: float,
    alpha: Sequence[float] | float | None = None,
    *,
    groups: Sequence[Hashable] | None = None,
    betas: Sequence[float] = BETAS,
    resamples: int = RESAMPLES,
) -> RankingReport:
    """Preference Learning Algorithms Do Not Learn Preference Rankings        Chen et al. 2024, arXiv 2405.19534

    lp, rp: log π and log π_ref of whole responses, sums over their tokens in nats (prompt left out); n: their tokens. alpha:
    the share of raters that prefer the chosen, of each pair or of all (0.75 where nobody says). groups: which prompt each
    pair answers. Raises Refusal for columns of unequal length, no pairs, numbers that are not finite, and α outside [0, 1]."""
    w, l, rw, rl, nw, nl = _columns(lp_w=lp_w, lp_l=lp_l, rp_w=rp_w, rp_l=rp_l, n_w=n_w, n_l=n_l)
    if not (beta > 0 and all(b > 0 for b in betas) and len(betas)):
        raise Refusal(f"beta={beta} and betas={list(betas)}: each must be above 0, and at least one stand in the grid.")
    a = np.broadcast_to(np.asarray(AGREED if alpha is None else alpha, dtype=np.float64), w.shape)
    if not ((a >= 0) & (a <= 1)).all():
        raise Refusal("alpha: every share of raters must lie between 0 and 1.")
    sure = lambda hits: share(hits.astype(float).tolist(), groups)  # noqa: E731
    now, then = above(w, l, nw, nl), above(rw, rl, nw, nl)
    c, raw = difficulty(rw.tolist(), rl.tolist()), (w - rw) - (l - rl)
    ideals, middle = _ideal(c, a, betas)
    shorter, _ = _ideal(rl / np.maximum(nl, 1) - rw / np.maximum(nw, 1), a, betas)
    loss, margin = np.logaddexp(0.0, -beta * raw), beta * raw

    def of(values: Any, where: Bools) -> Estimate | None:
        some = None if groups is None else [g for g, here in zip(groups, where, strict=True) if here]
        return mean(values[where].tolist(), some, resamples=resamples) if where.any() else None

    def part(of_wrong: Bools) -> Estimate | None:
        some = None if groups is None else [g for g, right in zip(groups, then, strict=True) if not right]
        return share(of_wrong[~then].astype(float).tolist(), some) if not then.all() else None

    quadrants = []
    for reference_right in (True, False):
        for right in (True, False):
            here = (then == reference_right) & (now == right)
            numbers = (of(x, here) for x in (loss, margin, c))
            quadrants.append(Quadrant(reference_right, right, int(here.sum()), sure(here), *numbers))
    return RankingReport(
        beta=float(beta),
        accuracy=sure(now),
        accuracy_per_token=sure(above(w, l, nw, nl, per_token=True)),
        reference=sure(then),
        reference_per_token=sure(above(rw, rl, nw, nl, per_token=True)),
        implicit=sure(raw > 0),
        ideal=ideals,
        ideal_per_token=shorter,
        gap=difference(now.astype(float).tolist(), middle.tolist(), groups, resamples=resamples),
        flippable=part(ideal(c, a, beta)),
        flipped=part(now),
        difficulty=c.tolist(),
        loss=loss.tolist(),
        margin=margin.tolist(),
        dpo_threshold=dpo_threshold(c, beta).tolist(),
        ipo_threshold=[None if np.isnan(x) else float(x) for x in ipo_threshold(c, beta)],
        quadrants=quadrants,
    )


def _ideal(c: Floats, alpha: Floats, betas: Sequence[float]) -> tuple[Ideal, Floats]:
    """The idealised accuracy over the grid, and the hits of the β at its median (the mean of two where the grid is even)."""
    hits = {float(b): ideal(c, alpha, b).astype(float) for b in betas}
    ordered = sorted(hits.values(), key=lambda x: float(x.mean()))
    values = [float(x.mean()) for x in ordered]
    n = len(ordered)
    middle = (ordered[(n - 1) // 2] + ordered[n // 2]) / 2
    return Ideal({b: float(x.mean()) for b, x in hits.items()}, values[0], float(middle.mean()), values[-1]), middle


def _columns(**columns: Sequence[float]) -> list[Floats]:
    found = {name: np.asarray(values, dtype=np.float64) for name, values in columns.items()}
    shapes = {x.shape for x in found.values()}
    if len(shapes) != 1 or len(next(iter(shapes))) != 1 or shapes == {(0,)}:
        said = ", ".join(f"{name} has {x.size}" for name, x in found.items())
        raise Refusal(f"{said}: a ranking report takes one number of each for every pair, and at least one pair.")
    for name, x in found.items():
        if not np.isfinite(x).all():
            i = int(np.flatnonzero(~np.isfinite(x))[0])
            raise Refusal(f"{name}[{i}] = {x[i]}: log-probs and token counts must be finite numbers; leave that pair out.")
        if name.startswith("n_") and (x < 0).any():
            raise Refusal(f"{name} holds {x.min():g}: a number of tokens is 0 or more.")
    return list(found.values())


# Evidence ------------------------------------------------------------------------------------------


def ranking_hits(evidence: PairEvidence, *, per_token: bool = False) -> list[float]:
    """R of each pair, or R~: 1 where the policy ranks it right."""
    columns = (evidence.logp_chosen, evidence.logp_rejected, evidence.length_chosen, evidence.length_rejected)
    w, l, n_w, n_l = (np.asarray(x, dtype=np.float64) for x in columns)
    return above(w, l, n_w, n_l, per_token=per_token).astype(float).tolist()


def ranking_accuracy(evidence: PairEvidence, *, per_token: bool = False) -> Estimate:
    """R, or R~, of held-out pairs."""
    return share(ranking_hits(evidence, per_token=per_token), evidence.groups)


def scale(evidence: PairEvidence) -> float | None:
    """β where every implicit reward is β (log π − log π_ref), as it is of DPO and its kin; None where rewards are made of
    anything else, and where the policy has not left its reference."""
    if evidence.ref_chosen is None or evidence.ref_rejected is None:
        return None
    logp = np.array(evidence.logp_chosen + evidence.logp_rejected)
    ratio = logp - np.array(evidence.ref_chosen + evidence.ref_rejected)
    reward = np.array(evidence.reward_chosen + evidence.reward_rejected)
    if not len(ratio) or float(np.abs(ratio).max()) < 1e-3:
        return None
    found = float(ratio @ reward / (ratio @ ratio))
    noise = 1e-5 * np.abs(logp) + 1e-3 * np.abs(ratio) + 1e-4  # sums of float32
    return found if found > 0 and bool((np.abs(reward - found * ratio) <= found * noise + 1e-6).all()) else None


ASSUMED = 0.1
"""β where the objective's rewards have none, as the papers' runs have it."""


def ranking_of(evidence: RunEvidence, *, resamples: int = RESAMPLES) -> RankingReport | None:
    """The report of a run's held-out pairs after training, against its start; None where there are none. Of lists it is every
    pair of a list with different grades, its list being the group that intervals draw. β is that of the run's own rewards, where
    they are DPO's up to a factor, else 0.1."""
    after, before = evidence.pairs_after, evidence.pairs_before
    if (whole := all_pairs(evidence.lists_after)) is not None and whole.numbers:
        after, before = whole, all_pairs(evidence.lists_before)
    if after is None or not after.numbers or not evidence.speaks:
        return None
    refs = (after.ref_chosen, after.ref_rejected)
    if before is not None and None in refs:
        refs = (before.logp_chosen, before.logp_rejected)
    if refs[0] is None or refs[1] is None:
        return None
    return ranking_report(
        after.logp_chosen,
        after.logp_rejected,
        *(refs[0], refs[1]),
        after.length_chosen,
        after.length_rejected,
        scale(after) or ASSUMED,
        groups=after.groups,
        resamples=resamples,
    )

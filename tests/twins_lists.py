"""The losses on lists a second time, as tests/twins.py does those on pairs: decimal numbers, probabilities, plain loops. No
code is shared with the library, and no torch is used."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

import twins
from twins import D, Response, Twin


def strengths(ys: Sequence[Response], beta: Decimal) -> list[Decimal]:
    return [y.odds_against_ref**beta for y in ys]


def preferred(ys: Sequence[Response]) -> list[tuple[int, int]]:
    """All (i, j) of which i was graded above j."""
    return [(i, j) for i, a in enumerate(ys) for j, b in enumerate(ys) if a.gain > b.gain]


def pairwise_logistic(*ys: Response, beta: Decimal, reduction: str) -> Decimal:
    s = strengths(ys, beta)
    return -sum((twins.prefers(s[i], s[j]).ln() for i, j in preferred(ys)), D(0))


def pairwise_hinge(*ys: Response, beta: Decimal, reduction: str) -> Decimal:
    return sum((twins.hinge(ys[i], ys[j], beta) for i, j in preferred(ys)), D(0))


def lipo(*ys: Response, beta: Decimal, reduction: str) -> Decimal:
    """Each pair weighed by what the DCG of the present ranking, Σ (2^ψ − 1)/ln(1 + place), changes when the two swap."""
    s = strengths(ys, beta)
    place = {i: k + 1 for k, i in enumerate(sorted(range(len(ys)), key=lambda i: -s[i]))}
    dcg = lambda at: sum((D(2) ** y.gain - 1) / D(1 + at[i]).ln() for i, y in enumerate(ys))  # noqa: E731
    swap = lambda i, j: abs(dcg(place) - dcg({**place, i: place[j], j: place[i]}))  # noqa: E731
    return -sum((swap(i, j) * twins.prefers(s[i], s[j]).ln() for i, j in preferred(ys)), D(0))


def listmle(*ys: Response, beta: Decimal) -> Decimal:
    """The chance that each is chosen before all that are worse."""
    s = strengths(ys, beta)
    worse = [[s[j] for j in range(len(ys)) if ys[j].gain < y.gain] for y in ys]
    return -twins.product(x / (x + sum(rest)) for x, rest in zip(s, worse, strict=True)).ln()


def listnet(*ys: Response, beta: Decimal, target: str) -> Decimal:
    s, psi = strengths(ys, beta), [y.gain for y in ys]
    q = {"psi": lambda: psi, "psi_norm": lambda: [g / sum(psi) for g in psi]}.get(
        target, lambda: [g.exp() / sum(h.exp() for h in psi) for g in psi]
    )()
    return -sum((a * (b / sum(s)).ln() for a, b in zip(q, s, strict=True)), D(0))


def pointwise_mse(*ys: Response, beta: Decimal, reduction: str) -> Decimal:
    return sum(((y.gain - s.ln()) ** 2 for y, s in zip(ys, strengths(ys, beta), strict=True)), D(0))


def pointwise_sigmoid(*ys: Response, beta: Decimal, reduction: str) -> Decimal:
    good = [twins.prefers(s, D(1)) for s in strengths(ys, beta)]
    return -sum((y.gain * p.ln() + (1 - y.gain) * (1 - p).ln() for y, p in zip(ys, good, strict=True)), D(0))


def pro(*ys: Response, sft_weight: Decimal, sft_power: Decimal) -> Decimal:
    """Contrasts of the per-step probabilities, each to the power of a gap; and the best one's likelihood."""
    top, lowest = max(y.gain for y in ys), min(y.gain for y in ys)
    loss = D(0)
    for y in ys:
        own = twins.per_step(y) ** (y.gain - lowest)
        loss -= (own / (own + sum(twins.per_step(z) ** (y.gain - z.gain) for z in ys if z.gain < y.gain))).ln()
    best = [y.likelihood.ln() for y in ys if y.gain == top]
    return loss - sft_weight * D(len(ys) - 1) ** sft_power * sum(best) / len(best)


ALL: dict[tuple[str, str], Twin] = {
    (name, "lists"): twins.each(f)
    for name, f in {
        "PairwiseLogistic": pairwise_logistic,
        "PairwiseHinge": pairwise_hinge,
        "LiPO": lipo,
        "ListMLE": listmle,
        "ListNet": listnet,
        "PointwiseMSE": pointwise_mse,
        "PointwiseSigmoid": pointwise_sigmoid,
        "PRO": pro,
    }.items()
}
"""The second derivation by method and kind of data."""

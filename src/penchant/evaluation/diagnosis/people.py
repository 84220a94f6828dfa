"""Who labelled: how often each annotator is right, and whether they want the same. With answers of several to the same
question the people vouch for each other; without, a predictor that learned from all of them stands in for the rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

from penchant.evaluation.diagnosis.material import Material
from penchant.evaluation.diagnosis.noise import RATES, Fitted, dependence, profile, slope_of
from penchant.evaluation.statistics import Estimate, ratio, resampled, wilson

Floats = NDArray[np.float64]

FEWEST = 20
"""Labels an annotator must have given before anything is said of them alone."""
DRAWS = 300
RESAMPLES = 2000
PERMUTATIONS = 499
SHARED = 50
"""Questions with answers of several people from which reliabilities are read off their agreement."""


@dataclass(frozen=True)
class Annotator:
    """One who labelled."""

    name: str
    labels: int
    reliability: Estimate
    """η: the probability that a label of theirs is right."""

    @property
    def contrary(self) -> bool:
        """Surely says the contrary of the others."""
        return self.reliability.high < 0.5

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "labels": self.labels, "reliability": self.reliability.to_json()}


def by_margins(material: Material, margins: Floats, fitted: Fitted) -> list[Annotator]:
    """η of every annotator from how often their labels agree with the predictor, over all curves (exact profile on the
    grid: given the curve, annotators are independent)."""
    who = np.array([one.annotator or "" for one in material.comparisons])
    groups = np.array(material.groups)
    names = [name for name in material.annotators if (who == name).sum() >= FEWEST]
    if not names or not fitted.noise.learnable:
        return []
    tables = np.stack([fitted.curve.likelihood(margins[who == name]) for name in names])  # [people, curves, rates]
    rest = who == ""
    others = tables.max(2)  # each at their own best, for every curve
    total = others.sum(0) + (fitted.curve.likelihood(margins[rest])[:, RATES <= 0.5].max(1) if rest.any() else 0.0)
    best = int(total.argmax())
    out = []
    for name, table, own in zip(names, tables, others, strict=True):
        mine = who == name
        rate = float(RATES[table[best].argmax()])
        weight = 1 / dependence(slope_of(margins[mine], fitted.curve, best, rate), groups[mine].tolist())
        value, low, high = profile((table + (total - own)[:, None]).max(0), weight, RATES)
        out.append(Annotator(name, int(mine.sum()), Estimate(1 - value, 1 - high, 1 - low, int(mine.sum()))))
    return sorted(out, key=lambda one: one.reliability.value)


@dataclass(frozen=True)
class Votes:
    """Answers of several people to the same questions."""

    names: list[str]
    table: Floats
    """[questions, people] +1 for one response, −1 for the other, 0 where not asked, or where one said both."""
    asked: list[int]
    """The first row of every question …"""
    keys: list[int]
    """… and its prompt's hash."""


@dataclass(frozen=True)
class Shared:
    """How far people agree on questions that several answered."""

    pairs: int
    """Pairs of answers by two people to one question."""
    agree: Estimate
    """The share of them that agree."""
    alpha: Estimate
    """Krippendorff's α, nominal, with every question both ways round, since which response is the first means nothing: so
    chance is a half."""

    def to_json(self) -> dict[str, Any]:
        return {"pairs": self.pairs, "agree": self.agree.to_json(), "krippendorff_alpha": self.alpha.to_json()}


def agreement(given: Votes) -> Shared | None:
    """None where nobody answered what another did. Prompts are drawn for the intervals."""
    said = np.abs(given.table).sum(1)
    kept = said > 1
    if not kept.any():
        return None
    said, net = said[kept], given.table[kept].sum(1)
    pairs = said * (said - 1) / 2
    against = (pairs - (net**2 - said) / 2) / 2
    keys = [key for key, there in zip(given.keys, kept.tolist(), strict=True) if there]

    def alpha(sums: Floats) -> Floats:
        apart, n = sums[..., 0], sums[..., 1]  # n answers, 2 n when each question stands both ways round
        return 1 - apart / n * (2 * n - 1) / n

    agree = ratio((pairs - against).tolist(), pairs.tolist(), keys, resamples=RESAMPLES)
    columns = [(2 * against / (said - 1)).tolist(), said.tolist()]
    return Shared(int(pairs.sum()), agree, resampled(columns, alpha, keys, resamples=RESAMPLES))


def votes(material: Material) -> Votes:
    """The questions that at least two named people answered."""
    names = {name: k for k, name in enumerate(material.annotators)}
    asked: dict[tuple[int, str, str], dict[int, set[int]]] = {}
    rows: dict[tuple[int, str, str], int] = {}
    for one in material.comparisons:
        if one.annotator is None:
            continue
        a, b = sorted((one.chosen, one.rejected))
        asked.setdefault((one.key, a, b), {}).setdefault(names[one.annotator], set()).add(1 if one.chosen == a else -1)
        rows.setdefault((one.key, a, b), one.number)
    several = [(question, said) for question, said in asked.items() if len(said) > 1]
    table = np.zeros((len(several), len(names)))
    for q, (_, said) in enumerate(several):
        for k, sides in said.items():
            table[q, k] = sum(sides)
    return Votes(list(names), table, [rows[question] for question, _ in several], [key for (key, *_), _ in several])


def dawid_skene(given: Votes, seed: int) -> list[Annotator]:
    """η of every annotator with at least `FEWEST` shared questions, from agreement alone: Dawid and Skene 1979 with one
    coin for each person, since which response is called the first means nothing. Needs three people; intervals by drawing
    questions anew, no narrower than Wilson's for that many certain answers."""
    n, people = given.table.shape
    if n < SHARED or people < 3:
        return []
    draw = np.random.default_rng(seed)
    weights = np.column_stack([np.ones(n), draw.multinomial(n, np.full(n, 1 / n), DRAWS).T.astype(float)])
    eta = coins(given.table, weights)
    out = []
    for k, name in enumerate(given.names):
        labels = int((given.table[:, k] != 0).sum())
        if labels < FEWEST:
            continue
        value = float(eta[k, 0])
        low, high = np.quantile(eta[k, 1:], [0.025, 0.975])
        least, most = wilson(value * labels, labels)
        out.append(Annotator(name, labels, Estimate(value, min(float(low), least), max(float(high), most), labels)))
    return sorted(out, key=lambda one: one.reliability.value)


def coins(table: Floats, weights: Floats, rounds: int = 200) -> Floats:
    """[people, draws] η by expectation and maximisation, from 0.8 for all: from there the side of the many is the right
    one. `weights`: [questions, draws] how often each question counts."""
    people = table.shape[1]
    eta = np.full((people, weights.shape[1]), 0.8)
    given = np.maximum(np.abs(table).T @ weights, 1e-9)
    for _ in range(rounds):
        right = expit(table @ logit(eta))  # P(the first response is the better)
        expected = np.maximum(table, 0).T @ (weights * right) + np.maximum(-table, 0).T @ (weights * (1 - right))
        moved = np.clip(expected / given, 0.005, 0.995)
        done = float(np.abs(moved - eta).max()) < 1e-4
        eta = moved
        if done:
            break
    return eta


@dataclass(frozen=True)
class Tastes:
    """Whether annotators want different things."""

    p: float
    """That people drawn at random from all labels would differ as much, by permutation."""
    groups: tuple[tuple[str, ...], tuple[str, ...]]
    """The two groups that differ most."""
    apart: tuple[tuple[str, float, float], ...]
    """What sets them apart: a measure, and in how many of each group's pairs it is the chosen that has more of it."""

    def to_json(self) -> dict[str, Any]:
        return {"p": self.p, "groups": [list(group) for group in self.groups], "apart": [list(one) for one in self.apart]}


def tastes(material: Material, gaps: Floats, names: Sequence[str], seed: int) -> Tastes | None:
    """Do the measures of chosen − rejected have other means from person to person? The statistic is the weighted sum of
    squares between people; whole prompts of one person are dealt out anew. None where fewer than two people have labels
    enough. People who were asked about different prompts may differ for that alone."""
    who = np.array([one.annotator or "" for one in material.comparisons])
    people = [name for name in sorted(set(who.tolist())) if name and (who == name).sum() >= FEWEST]
    if len(people) < 2:
        return None
    kept = np.isin(who, people)
    signs = np.sign(gaps[kept])
    spread = np.sqrt((signs**2).mean(0))
    signs = signs / np.where(spread > 0, spread, 1.0)
    person = np.searchsorted(people, who[kept])
    _, block = np.unique(
        np.stack([person, np.unique(np.array(material.groups)[kept], return_inverse=True)[1]]), axis=1, return_inverse=True
    )
    block = block.ravel()
    sums = np.stack([np.bincount(block, weights=column) for column in signs.T], axis=1).astype(np.float64)
    size, owner = np.bincount(block).astype(float), np.zeros(int(block.max()) + 1, dtype=np.int64)
    owner[block] = person
    seen, means = _between(sums, size, owner, len(people))
    draw = np.random.default_rng(seed)
    above = sum(_between(sums, size, draw.permutation(owner), len(people))[0] >= seen for _ in range(PERMUTATIONS))
    first = _two(means)
    sides = tuple(
        tuple(name for name, side in zip(people, first.tolist(), strict=True) if side == s) for s in (True, False)
    )
    return Tastes((above + 1) / (PERMUTATIONS + 1), (sides[0], sides[1]), _apart(gaps[kept], who[kept], sides))


def _between(sums: Floats, size: Floats, owner: NDArray[np.int64], people: int) -> tuple[float, Floats]:
    """(Σ n_k ‖mean of k − mean of all‖², the deviations)"""
    n = np.maximum(np.bincount(owner, weights=size, minlength=people), 1.0)
    means = np.stack([np.bincount(owner, weights=column, minlength=people) for column in sums.T], axis=1) / n[:, None]
    off = means - sums.sum(0) / size.sum()
    return float((n[:, None] * off**2).sum()), off


def _two(means: Floats) -> NDArray[np.bool_]:
    """The side of each person along the direction in which they differ most."""
    axis = np.linalg.svd(means - means.mean(0), full_matrices=False)[2][0]
    place = (means - means.mean(0)) @ axis
    order = np.sort(place)
    cut = int(np.argmax(np.diff(order)))  # the widest gap
    return place > (order[cut] + order[cut + 1]) / 2


def _apart(gaps: Floats, who: NDArray[Any], sides: Sequence[Sequence[str]]) -> tuple[tuple[str, float, float], ...]:
    from penchant.evaluation.diagnosis.features import MEASURES

    out = []
    for name, gap in zip(MEASURES, gaps.T, strict=True):
        shares = []
        for side in sides:
            told = gap[np.isin(who, list(side)) & (gap != 0)]
            shares.append(float((told > 0).mean()) if len(told) >= FEWEST else 0.5)
        out.append((name, shares[0], shares[1]))
    return tuple(sorted(out, key=lambda one: -abs(one[1] - one[2]))[:3])

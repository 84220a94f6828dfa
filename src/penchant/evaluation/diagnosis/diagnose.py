"""The whole diagnosis: every instrument of this folder asked in turn, and their answers in plain words with the numbers behind
them. It changes nothing, and shows texts of the data only where it is asked to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from penchant.errors import Refusal
from penchant.evaluation.diagnosis import crossfit, people, sentences
from penchant.evaluation.diagnosis.advice import Advice, Grounds, advise
from penchant.evaluation.diagnosis.alike import Leak, alike, edits
from penchant.evaluation.diagnosis.features import differences, hashed, measures
from penchant.evaluation.diagnosis.groups import Groups, groups
from penchant.evaluation.diagnosis.material import MOST, Comparison, Material, gather
from penchant.evaluation.diagnosis.noise import Fitted, Noise, fit
from penchant.evaluation.diagnosis.people import Annotator, Tastes
from penchant.evaluation.diagnosis.position import Position, position
from penchant.evaluation.diagnosis.shortcuts import Shortcut, shortcuts
from penchant.evaluation.diagnosis.structure import Circles, Contradictions, circles, contradictions
from penchant.evaluation.statistics import Estimate, share
from penchant.feedback.reading import Source
from penchant.feedback.records import Kind

Floats = NDArray[np.float64]

FEWEST = 60
"""Comparisons below which nothing is estimated from texts."""
FEW_WORDS = 0.2
"""Two sides that differ in at most this share of their words are near-duplicates: a loss may lower both (DPOP, Pal et al.
2024, arXiv 2402.13228)."""

LOUD = 3.0
"""What a judge's margins count in the penalty, beside 1 for a measure of style: with the factor of measures, as much as all words
of a text together."""
SCORED = 200
"""Comparisons a reference model is asked about; of more, so many are drawn."""

Ask = Callable[[Sequence[Comparison]], Sequence[float | None]]
"""A number for each of the given comparisons, None where there is none: of a reference model c = log π_ref(rejected) −
log π_ref(chosen), in nats (Chen et al. 2024, arXiv 2405.19534, theorem 4.1); of a judge r(chosen) − r(rejected), in its units."""


@dataclass(frozen=True)
class Suspect:
    """A row whose label the others contradict."""

    row: int
    doubt: float
    """P(label wrong) by the curve, at the estimated rate."""
    annotator: str | None
    comparison: Comparison = field(repr=False)


@dataclass(frozen=True)
class Reference:
    """What a reference model prefers before it has learned anything, of the pairs it could read."""

    rejected: Estimate
    """Share in which it prefers the rejected."""
    shorter: Estimate | None
    """Share in which it prefers the side of fewer characters; None where no pair has one."""
    unread: int
    """Pairs that did not fit into the model."""


@dataclass(frozen=True)
class Opinion:
    """A judge beside the labels, as one more thing that the predictor may go by."""

    judge: str
    accuracy: Estimate
    """Share of labels it agrees with by itself; a tie ½."""
    failed: int
    """Comparisons it could not judge; they are left to the rest of the predictor."""

    def to_json(self) -> dict[str, Any]:
        return {"judge": self.judge, "agrees": self.accuracy.to_json(), "failed": self.failed}


@dataclass(frozen=True)
class Diagnosis:
    """What was found. Texts are in `suspects` alone."""

    name: str
    kind: Kind
    rows: int
    of: int
    comparisons: int
    seed: int
    noise: Noise | None
    """None where there were too few comparisons."""
    style: Estimate | None
    """Accuracy on unseen pairs of a predictor that sees only length and style."""
    opinion: Opinion | None
    """None where no judge was asked."""
    suspects: tuple[Suspect, ...]
    """All labels more probably wrong than right at the likeliest rates, the most doubtful first."""
    people: tuple[Annotator, ...]
    shared: people.Shared | None
    """None where nobody answered what another did."""
    by_agreement: bool
    """Whether reliabilities are read off agreement between people, or off the predictor."""
    groups: Groups | None
    """None where too few people answered the same questions."""
    tastes: Tastes | None
    contradictions: Contradictions
    circles: Circles
    shortcuts: tuple[Shortcut, ...]
    position: Position | None
    """None where it is not recorded which of two stood first."""
    leaks: tuple[Leak, ...] | None
    """Held-out prompts among the training prompts; None where no held-out file was given."""
    held_out: int
    """Distinct held-out prompts looked at."""
    twins: tuple[Leak, ...]
    difficulty: tuple[float, ...]
    """Of each comparison: c in nats with a model, without one −g, the log-odds that the predictor gives against the label."""
    difficulty_of: Literal["reference", "predictor", ""]
    reference: Reference | None
    """None without a model."""
    edits: tuple[float, ...]
    advice: tuple[Advice, ...]

    @property
    def close(self) -> float:
        """The share of comparisons whose sides differ in few words."""
        return float(np.mean(np.array(self.edits) <= FEW_WORDS)) if self.edits else 0.0

    @property
    def sides(self) -> Groups | None:
        """The two groups of annotators, where they are surely there."""
        return self.groups if self.groups is not None and self.groups.found else None

    @property
    def points(self) -> list[sentences.Point]:
        return sentences.points(self)

    def lines(self) -> list[str]:
        return sentences.lines(self)

    def to_json(self) -> dict[str, Any]:
        return sentences.to_json(self)


def diagnose(
    source: Source,
    unseen: Source | None = None,
    *,
    seed: int = 0,
    most: int = MOST,
    difficulty: Ask | None = None,
    judge: tuple[str, Ask] | None = None,
) -> Diagnosis:
    """Looks for what is wrong with preferences beyond single rows. `unseen`: the held-out source whose prompts should not be
    among these. `difficulty`: a reference model's log-ratios; without it a predictor fitted here stands in. `judge`: its name, and
    its margins, by which the predictor may go besides words and style; a judge that learned from these very labels repeats
    their mistakes. The same seed gives the same diagnosis.

    Raises Refusal where a sampled number is not finite.
    """
    material = gather(source, seed, most)
    whole = list(material.whole_rows)
    leaks, held_out = None, 0
    if unseen is not None:
        other = gather(unseen, seed, most)
        leaks, held_out = tuple(alike(other.whole_rows, whole)), len({text for _, text in other.whole_rows})
    some = material.comparisons
    opinion, judged = _judged(some, judge)
    texts = _Texts.of(material, judged)
    fitted, margins, style = _fitted(material, texts, seed)
    shared = people.votes(material)
    reliable = tuple(people.dawid_skene(shared, seed))
    by_agreement = bool(reliable)
    if fitted is not None and not reliable:
        reliable = tuple(people.by_margins(material, margins, fitted))
        if any(one.reliability.value < 0.75 for one in reliable):
            # labels count by how far their annotator is believed: 2η − 1 is what is left of a label's expectation
            fitted, margins, reliable = _again(material, texts, reliable, seed)
    hard, reference = _difficulty(some, difficulty, fitted, margins, seed)
    found = tuple(shortcuts(texts.gaps, material.groups, texts.first)) if some else ()
    far = tuple(edits(one.chosen, one.rejected) for one in some)
    twins = tuple(alike(whole))
    noise = fitted.noise if fitted is not None else None
    close = float(np.mean(np.array(far) <= FEW_WORDS)) if far else 0.0
    two = groups(shared, seed)
    place, leaked = position(material), len(leaks or ())
    grounds = Grounds(source.kind, material.unsure, noise, reliable, found, close, leaked, two, place, len(twins))
    return Diagnosis(
        name=source.name,
        kind=source.kind,
        rows=material.rows,
        of=material.of,
        comparisons=len(some),
        seed=seed,
        noise=noise,
        style=style,
        opinion=opinion,
        # with two sides, reliabilities say who is of the larger one, and nothing of single labels
        suspects=_suspects(some, margins, fitted, () if two is not None and two.found else reliable),
        people=reliable,
        shared=people.agreement(shared),
        by_agreement=by_agreement,
        groups=two,
        tastes=people.tastes(material, texts.gaps, material.annotators, seed) if some else None,
        contradictions=contradictions(material),
        circles=circles(material),
        shortcuts=found,
        position=place,
        leaks=leaks,
        held_out=held_out,
        twins=twins,
        difficulty=tuple(hard),
        difficulty_of="reference" if reference else "predictor" if hard else "",
        reference=reference,
        edits=far,
        advice=tuple(advise(grounds)),
    )


@dataclass(frozen=True)
class _Texts:
    """The measures of both sides, and how far they differ."""

    gaps: Floats
    """[comparisons, measures] chosen − rejected"""
    dense: Floats
    beside: Floats
    """`dense` with a judge's margins as one column more, where there is a judge."""
    words: Any
    first: Floats | None

    @classmethod
    def of(cls, material: Material, judged: Floats | None) -> _Texts:
        some = material.comparisons
        prompts = [one.prompt for one in some]
        chosen = measures([one.chosen for one in some], prompts)
        rejected = measures([one.rejected for one in some], prompts)
        words = hashed([one.chosen for one in some], [one.rejected for one in some]) if len(some) >= FEWEST else None
        first = None
        if any(one.places for one in some):
            first = np.array([one.places[1] - one.places[0] if one.places else 0 for one in some], dtype=float)
        dense = differences(chosen, rejected) if some else chosen
        beside = dense if judged is None else np.column_stack([dense, LOUD * judged])
        return cls(chosen - rejected, dense, beside, words, first)


def _fitted(material: Material, texts: _Texts, seed: int) -> tuple[Fitted | None, Floats, Estimate | None]:
    """The noise, the margins it was read from, and the accuracy of style alone."""
    if texts.words is None:
        return None, np.zeros(0), None
    groups = material.groups
    alone = crossfit.margins(crossfit.design(texts.dense), groups, seed)
    style = share(np.where(alone > 0, 1.0, np.where(alone < 0, 0.0, 0.5)).tolist(), groups)
    margins = crossfit.margins(crossfit.design(texts.beside, texts.words), groups, seed)
    return fit(margins, groups), margins, style


def _again(
    material: Material, texts: _Texts, reliable: Sequence[Annotator], seed: int
) -> tuple[Fitted, Floats, tuple[Annotator, ...]]:
    """The same once more, now that it is known whom to believe."""
    trust = {one.name: 2 * one.reliability.value - 1 for one in reliable}
    usual = float(np.mean(list(trust.values())))
    weights = np.array([trust.get(one.annotator or "", max(usual, 0.0)) for one in material.comparisons])
    margins = crossfit.margins(crossfit.design(texts.beside, texts.words), material.groups, seed, weights)
    fitted = fit(margins, material.groups)
    return fitted, margins, tuple(people.by_margins(material, margins, fitted)) or tuple(reliable)


def _judged(some: Sequence[Comparison], judge: tuple[str, Ask] | None) -> tuple[Opinion | None, Floats | None]:
    """What a judge says of the labels, and its margins of typical size 1, none beyond 3, 0 where it failed."""
    if judge is None or not some:
        return None, None
    name, ask = judge
    margins = np.array([np.nan if x is None else x for x in ask(some)], dtype=float)
    known = np.isfinite(margins)
    if not known.any():
        raise Refusal(f"the judge {name} could judge none of {len(some):,} comparisons, so it says nothing of the labels.")
    hits = (np.sign(margins[known]) + 1) / 2
    groups = [one.key for one, there in zip(some, known.tolist(), strict=True) if there]
    scale = float(np.sqrt(np.mean(margins[known] ** 2))) or 1.0
    opinion = Opinion(name, share(hits.tolist(), groups), int((~known).sum()))
    return opinion, np.clip(np.where(known, margins, 0.0) / scale, -3.0, 3.0)


def _difficulty(
    some: Sequence[Comparison], ask: Ask | None, fitted: Fitted | None, margins: Floats, seed: int
) -> tuple[list[float], Reference | None]:
    if ask is None or not some:
        return ([] if fitted is None else (-fitted.log_odds(margins)).tolist()), None
    drawn = [some[i] for i in np.sort(np.random.default_rng(seed).permutation(len(some))[:SCORED]).tolist()]
    read = [(one, x) for one, x in zip(drawn, ask(drawn), strict=True) if x is not None]
    values = [x for _, x in read]
    if wrong := [x for x in values if not np.isfinite(x)]:
        raise Refusal(f"the model's log-ratio of a pair is {wrong[0]}; nothing can be said of difficulty by this model.")
    if not read:
        return [], None
    against = share([(np.sign(x) + 1) / 2 for x in values], [one.key for one, _ in read])
    gaps = [(one, x, len(one.chosen) - len(one.rejected)) for one, x in read if len(one.chosen) != len(one.rejected)]
    shorter = [(np.sign(x) * np.sign(gap) + 1) / 2 for _, x, gap in gaps]  # x > 0: it prefers the rejected
    by_length = share(shorter, [one.key for one, *_ in gaps]) if gaps else None
    return values, Reference(against, by_length, len(drawn) - len(read))


def _suspects(
    some: Sequence[Comparison], margins: Floats, fitted: Fitted | None, reliable: Sequence[Annotator]
) -> tuple[Suspect, ...]:
    """Labels more probably wrong than right at the likeliest rates, the most doubtful first; none where nothing is learned."""
    if fitted is None or not fitted.noise.learnable:
        return ()
    own = {one.name: 1 - one.reliability.value for one in reliable}
    wrong = np.array([own.get(one.annotator or "", fitted.noise.rate.value) for one in some])
    doubts = fitted.doubts(margins, wrong)
    order = np.argsort(-doubts, kind="stable")
    worst = [i for i in order.tolist() if doubts[i] > 0.5]
    return tuple(Suspect(some[i].number, float(doubts[i]), some[i].annotator, some[i]) for i in worst)

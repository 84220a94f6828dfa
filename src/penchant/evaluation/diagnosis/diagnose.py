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

SCORED = 200
"""Comparisons a reference model is asked about; of more, so many are drawn."""

Difficulty = Callable[[Sequence[Comparison]], Sequence[float]]
"""c = log π_ref(rejected) − log π_ref(chosen), in nats (Chen et al. 2024, arXiv 2405.19534, theorem 4.1), of those of the
given comparisons that the model can read."""


@dataclass(frozen=True)
class Suspect:
    """A row whose label the others contradict."""

    row: int
    doubt: float
    """P(label wrong) by the curve, at the estimated rate."""
    annotator: str | None
    comparison: Comparison = field(repr=False)


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
    suspects: tuple[Suspect, ...]
    """All labels more probably wrong than right at the likeliest rates, the most doubtful first."""
    people: tuple[Annotator, ...]
    shared: tuple[int, float] | None
    """(pairs of answers by two people to one question, the share that agree); None where there are none."""
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
    difficulty: Difficulty | None = None,
) -> Diagnosis:
    """Looks for what is wrong with preferences beyond single rows. `unseen`: the held-out source whose prompts should not be
    among these. `difficulty`: a reference model's log-ratios; without it a predictor fitted here stands in. The same seed
    gives the same diagnosis.

    Raises Refusal where a sampled number is not finite.
    """
    material = gather(source, seed, most)
    whole = list(material.whole_rows)
    leaks, held_out = None, 0
    if unseen is not None:
        other = gather(unseen, seed, most)
        leaks, held_out = tuple(alike(other.whole_rows, whole)), len({text for _, text in other.whole_rows})
    some = material.comparisons
    texts = _Texts.of(material)
    fitted, margins, style = _fitted(material, texts, seed)
    shared = people.votes(material)
    reliable = tuple(people.dawid_skene(shared, seed))
    by_agreement = bool(reliable)
    if fitted is not None and not reliable:
        reliable = tuple(people.by_margins(material, margins, fitted))
        if any(one.reliability.value < 0.75 for one in reliable):
            # labels count by how far their annotator is believed: 2η − 1 is what is left of a label's expectation
            fitted, margins, reliable = _again(material, texts, reliable, seed)
    hard = _difficulty(some, difficulty, fitted, margins, seed)
    found = tuple(shortcuts(texts.gaps, material.groups, texts.first)) if some else ()
    far = tuple(edits(one.chosen, one.rejected) for one in some)
    twins = tuple(alike(whole))
    noise = fitted.noise if fitted is not None else None
    close = float(np.mean(np.array(far) <= FEW_WORDS)) if far else 0.0
    two = groups(shared, seed)
    grounds = Grounds(source.kind, material.unsure, noise, reliable, found, close, len(leaks or ()), two, len(twins))
    agreement, answers = shared.agreement
    return Diagnosis(
        name=source.name,
        kind=source.kind,
        rows=material.rows,
        of=material.of,
        comparisons=len(some),
        seed=seed,
        noise=noise,
        style=style,
        # with two sides, reliabilities say who is of the larger one, and nothing of single labels
        suspects=_suspects(some, margins, fitted, () if two is not None and two.found else reliable),
        people=reliable,
        shared=(answers, agreement) if answers else None,
        by_agreement=by_agreement,
        groups=two,
        tastes=people.tastes(material, texts.gaps, material.annotators, seed) if some else None,
        contradictions=contradictions(material),
        circles=circles(material),
        shortcuts=found,
        position=position(material),
        leaks=leaks,
        held_out=held_out,
        twins=twins,
        difficulty=tuple(hard),
        difficulty_of="reference" if difficulty else "predictor" if hard else "",
        edits=far,
        advice=tuple(advise(grounds)),
    )


@dataclass(frozen=True)
class _Texts:
    """The measures of both sides, and how far they differ."""

    gaps: Floats
    """[comparisons, measures] chosen − rejected"""
    dense: Floats
    words: Any
    first: Floats | None

    @classmethod
    def of(cls, material: Material) -> _Texts:
        some = material.comparisons
        prompts = [one.prompt for one in some]
        chosen = measures([one.chosen for one in some], prompts)
        rejected = measures([one.rejected for one in some], prompts)
        words = hashed([one.chosen for one in some], [one.rejected for one in some]) if len(some) >= FEWEST else None
        first = None
        if any(one.places for one in some):
            first = np.array([one.places[1] - one.places[0] if one.places else 0 for one in some], dtype=float)
        return cls(chosen - rejected, differences(chosen, rejected) if some else chosen, words, first)


def _fitted(material: Material, texts: _Texts, seed: int) -> tuple[Fitted | None, Floats, Estimate | None]:
    """The noise, the margins it was read from, and the accuracy of style alone."""
    if texts.words is None:
        return None, np.zeros(0), None
    groups = material.groups
    alone = crossfit.margins(crossfit.design(texts.dense), groups, seed)
    style = share(np.where(alone > 0, 1.0, np.where(alone < 0, 0.0, 0.5)).tolist(), groups)
    margins = crossfit.margins(crossfit.design(texts.dense, texts.words), groups, seed)
    return fit(margins, groups), margins, style


def _again(
    material: Material, texts: _Texts, reliable: Sequence[Annotator], seed: int
) -> tuple[Fitted, Floats, tuple[Annotator, ...]]:
    """The same once more, now that it is known whom to believe."""
    trust = {one.name: 2 * one.reliability.value - 1 for one in reliable}
    usual = float(np.mean(list(trust.values())))
    weights = np.array([trust.get(one.annotator or "", max(usual, 0.0)) for one in material.comparisons])
    margins = crossfit.margins(crossfit.design(texts.dense, texts.words), material.groups, seed, weights)
    fitted = fit(margins, material.groups)
    return fitted, margins, tuple(people.by_margins(material, margins, fitted)) or tuple(reliable)


def _difficulty(
    some: Sequence[Comparison], ask: Difficulty | None, fitted: Fitted | None, margins: Floats, seed: int
) -> list[float]:
    if ask is not None and some:
        drawn = np.sort(np.random.default_rng(seed).permutation(len(some))[:SCORED]).tolist()
        values = list(ask([some[i] for i in drawn]))
        if wrong := [x for x in values if not np.isfinite(x)]:
            raise Refusal(
                f"the model's log-ratio of a pair is {wrong[0]}; nothing can be said of difficulty by this model."
            )
        return values
    return [] if fitted is None else (-fitted.log_odds(margins)).tolist()


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

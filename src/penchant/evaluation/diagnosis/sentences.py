"""What a diagnosis says in words: each finding a sentence a person can act on, with its numbers behind it, for a terminal, for
JSON and for the page alike. It estimates nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from penchant.evaluation.diagnosis.shortcuts import FIRST
from penchant.evaluation.statistics import Estimate, short
from penchant.words import figure, plain

if TYPE_CHECKING:
    from penchant.evaluation.diagnosis.diagnose import Diagnosis

Word = Literal["wrong", "look", "fine", "unknown"]
"""wrong: surely a fault. look: worth a look. fine: asked, and not found. unknown: the data cannot say."""
SHOWN = 10
"""Rows, people or predictors named in a terminal."""
SERIOUS = 0.03
"""Surely more wrong labels than this are a fault of the data."""
OTHERWISE = "A pair on which people truly differ looks the same as a wrong label."


@dataclass(frozen=True)
class Point:
    """One finding."""

    about: str
    word: Word
    said: str
    behind: str = ""
    rows: tuple[int, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def points(found: Diagnosis) -> list[Point]:
    """All findings, in a fixed order."""
    return [
        *_labels(found),
        *_opinion(found),
        *_people(found),
        *_questions(found),
        *_leaks(found),
        *_shortcuts(found),
        *_position(found),
        *_difficulty(found),
        *_edits(found),
    ]


def lines(found: Diagnosis) -> list[str]:
    """The diagnosis for a terminal, the worst first."""
    order: dict[Word, int] = {"wrong": 0, "look": 1, "unknown": 2, "fine": 3}
    head = f"{plain(found.name)}, deeper: {found.comparisons:,} comparisons from {found.rows:,} rows"
    if found.rows < found.of:
        head += f" drawn from {found.of:,} (seed {found.seed})"
    out = [head]
    for point in sorted(found.points, key=lambda one: order[one.word]):
        out.append(f"  {point.word:7}  {plain(point.said)}")
        if point.behind:
            out.append(f"           {plain(point.behind)}")
    if found.advice:
        out.append("  advice")
        for advice in found.advice:
            out.append(f"    {plain(advice.do)}" + (f'  --objective "{advice.objective}"' if advice.objective else ""))
            out.append(f"      {plain(advice.because)}")
    return out


def to_json(found: Diagnosis) -> dict[str, Any]:
    """Strict JSON, without any text of the data."""
    hard = np.array(found.difficulty)
    return {
        "name": found.name,
        "kind": found.kind,
        "rows": found.rows,
        "of": found.of,
        "comparisons": found.comparisons,
        "seed": found.seed,
        "findings": [point.to_json() for point in found.points],
        "noise": found.noise.to_json() if found.noise else None,
        "style_accuracy": found.style.to_json() if found.style else None,
        "judge": found.opinion.to_json() if found.opinion else None,
        "suspects": [{"row": one.row, "doubt": one.doubt, "annotator": one.annotator} for one in found.suspects],
        "annotators": [one.to_json() for one in found.people],
        "agreement": found.shared.to_json() if found.shared else None,
        "reliabilities_from": ("agreement" if found.by_agreement else "predictor") if found.people else None,
        "groups": found.groups.to_json() if found.groups else None,
        "tastes": found.tastes.to_json() if found.tastes else None,
        "contradictions": asdict(found.contradictions),
        "circles": asdict(found.circles),
        "shortcuts": [one.to_json() for one in found.shortcuts],
        "position": found.position.to_json() if found.position else None,
        "leaks": None if found.leaks is None else [asdict(one) for one in found.leaks],
        "near_prompts": [asdict(one) for one in found.twins],
        "difficulty": {
            "of": found.difficulty_of,
            "prefers_rejected": found.reference.rejected.to_json() if found.reference else None,
            "prefers_shorter": found.reference.shorter.to_json() if found.reference and found.reference.shorter else None,
            "quantiles": {str(q): float(np.quantile(hard, q / 100)) for q in (5, 25, 50, 75, 95)},
        } if len(hard) else None,
        "few_words_apart": found.close,
        "advice": [one.to_json() for one in found.advice],
    }  # fmt: skip


def _rows(numbers: tuple[int, ...]) -> str:
    more = ", …" if len(numbers) > SHOWN else ""
    return f"rows {', '.join(map(str, numbers[:SHOWN]))}{more}" if numbers else ""


def _labels(found: Diagnosis) -> Iterator[Point]:
    noise = found.noise
    if noise is None:
        said = f"{found.comparisons:,} comparisons are too few to learn from; nothing is known of wrong labels."
        if not found.comparisons:
            said = "Nothing here is preferred to anything else; there are no labels to doubt."
        yield Point("labels", "unknown", said)
        return
    right = noise.accuracy
    of = "words and style" if found.opinion is None else "words, style and the judge"
    behind = f"A predictor of {of} agrees with {right.percent()} of labels it has not seen (n = {right.n:,})"
    counted = f"; confident learning, which counts hard pairs too, says {noise.counted.percent()}" if noise.counted else ""
    if not noise.learnable:
        said = "How many labels are wrong cannot be known from these texts: nothing in them foretells the label."
        yield Point("labels", "unknown", said, f"{behind}, which is no better than a guess.")
        return
    rows = tuple(one.row for one in found.suspects)
    doubtful = (
        f"The likeliest to be wrong: {_rows(rows)}." if rows else "No single label is more probably wrong than right."
    )
    bound = f"at most {figure(100 * noise.at_most, '.0f')} %"
    if not noise.found and found.sides is None and any(one.contrary for one in found.people):
        wrong = _by_people(found)
        said = f"By the reliabilities of annotators {wrong.percent()} of labels are wrong."
        yield Point("labels", "wrong", said, f"{behind}. {doubtful}", rows)
        return
    if not noise.found:
        said = f"No wrong labels are found for sure; {bound} are wrong, if mistakes fall on all pairs alike. {OTHERWISE}"
        yield Point("labels", "fine" if noise.at_most <= 0.05 else "unknown", said, f"{behind}. {doubtful}", rows)
        return
    said = f"About {noise.rate.percent()} of labels look wrong, {bound}: if the surest pairs have a right side and mistakes fall "
    said += "on all pairs alike."
    many = f"{len(rows):,} labels are more probably wrong than right."
    behind = f"{behind}{counted}. {OTHERWISE} {many} {doubtful}"
    yield Point("labels", "wrong" if noise.rate.low >= SERIOUS else "look", said, behind, rows)


def _by_people(found: Diagnosis) -> Estimate:
    """The mean of 1 − η over the labels of annotators with an estimate; the ends are those of all intervals together, so no
    narrower than they need be."""
    n = sum(one.labels for one in found.people)
    mean = lambda ends: sum(one.labels * (1 - end) for one, end in zip(found.people, ends, strict=True)) / n  # noqa: E731
    eta = [one.reliability for one in found.people]
    return Estimate(mean([x.value for x in eta]), mean([x.high for x in eta]), mean([x.low for x in eta]), n)


def _opinion(found: Diagnosis) -> Iterator[Point]:
    if found.opinion is None:
        return
    one = found.opinion
    behind = "A judge that learned from these very labels repeats their mistakes: give it data it has not seen."
    if one.failed:
        behind += f" It could not judge {one.failed:,} comparisons."
    word = "fine" if one.accuracy.low > 0.5 else "look"
    yield Point("judge", word, f"{one.judge} agrees with {one.accuracy.percent()} of {one.accuracy.n:,} labels.", behind)


def _people(found: Diagnosis) -> Iterator[Point]:
    if found.shared is not None and found.shared.pairs >= 20:
        one = found.shared
        said = f"People who answered the same question agree in {one.agree.percent()} of {one.pairs:,} pairs of answers."
        behind = f"Beyond chance, which is a half since sides mean nothing: Krippendorff's α {one.alpha.number()}."
        yield Point("people", "look" if one.agree.value < 0.75 else "fine", said, behind)
    if found.people:
        how = "from their agreement with each other" if found.by_agreement else "from how well their labels can be foretold"
        if found.sides is not None:
            how += ", as if every question had one right answer"
        contrary = [one for one in found.people if one.contrary and found.sides is None]
        listed = "; ".join(f"{one.name} {one.reliability.percent()}" for one in found.people[:SHOWN])
        if contrary:
            said = (
                f"{', '.join(one.name for one in contrary[:SHOWN])}: labels against the others, surely more often than not."
            )
            yield Point("people", "wrong", said, f"Labels right, {how}: {listed}.")
        else:
            from penchant.evaluation.diagnosis.advice import unequal

            apart = unequal(found.people)
            said = (
                "Annotators differ in how often they are of the same mind as most."
                if found.sides is not None
                else "Annotators differ in how often they are right."
                if apart
                else "No annotator is surely less reliable than the others."
            )
            yield Point("people", "look" if apart else "fine", said, f"Labels right, {how}: {listed}.")
    yield from _groups(found)
    if found.tastes is not None:
        p = found.tastes.p
        sides = " and ".join(f"{{{', '.join(group[:SHOWN])}}}" for group in found.tastes.groups)
        apart = "; ".join(f"“{name}” is chosen by {a:.0%} and {b:.0%}" for name, a, b in found.tastes.apart)
        if p < 0.01:
            said = f"Annotators want different things, {sides} the most; or they were asked about different prompts."
            yield Point("tastes", "look", said, f"{apart}; p = {short(p)} by permutation.")
        else:
            yield Point(
                "tastes", "fine", "Annotators do not surely want different things.", f"p = {short(p)} by permutation."
            )


def _groups(found: Diagnosis) -> Iterator[Point]:
    two = found.groups
    if two is None:
        return
    one, other = (estimate.percent() for estimate in two.within)
    agree = f"inside the one {one} of pairs of answers, inside the other {other}, across {two.between.percent()}"
    if two.found:
        sides = " and ".join(f"{{{', '.join(group[:SHOWN])}{', …' if len(group) > SHOWN else ''}}}" for group in two.sides)
        said = f"Two groups of annotators disagree with each other: {sides}."
        behind = (
            f"On the half of the questions that the groups were not found on, people agree: {agree}; p = {short(two.p)}."
        )
        yield Point("groups", "look", said, behind)
    else:
        said = "Annotators do not surely fall into two groups that disagree with each other."
        yield Point("groups", "fine", said, f"At the most they agree {agree}; p = {short(two.p)}.")


def _questions(found: Diagnosis) -> Iterator[Point]:
    twice, round_ = found.contradictions, found.circles
    if twice.both_ways:
        said = f"{twice.both_ways:,} of {twice.asked_again:,} questions that were asked again are answered both ways"
        said += f", {twice.by_one_person:,} of them by one and the same person." if twice.by_one_person else "."
        yield Point("contradictions", "look", said, _rows(twice.rows), twice.rows)
    else:
        said = f"None of {twice.asked_again:,} questions that were asked again is answered both ways."
        yield Point("contradictions", "fine", said if twice.asked_again else "No question was asked twice.")
    if round_.prompts:
        said = f"Preferences go round (a over b over c over a) under {round_.prompts:,} of {round_.could:,} prompts that could."
        yield Point("circles", "look", said, _rows(round_.rows), round_.rows)
    elif round_.could:
        yield Point("circles", "fine", f"Preferences go round under none of {round_.could:,} prompts where they could.")


def _leaks(found: Diagnosis) -> Iterator[Point]:
    if found.leaks is not None:
        n, same = len(found.leaks), sum(one.similarity == 1 for one in found.leaks)
        rows = tuple(one.row for one in found.leaks)
        if n:
            said = f"{n:,} of {found.held_out:,} held-out prompts stand among the training prompts, {same:,} word by word."
            yield Point("leaks", "wrong", said, f"Held-out {_rows(rows)}.", rows)
        else:
            yield Point("leaks", "fine", f"None of {found.held_out:,} held-out prompts stands among the training prompts.")
    if found.twins:
        rows = tuple(one.row for one in found.twins)
        said = f"Prompts nearly the same as an earlier one: {len(rows):,}. A split by prompt would not keep them together."
        yield Point("near prompts", "look", said, _rows(rows), rows)
    else:
        yield Point("near prompts", "fine", "No two different prompts are nearly the same.")


def _shortcuts(found: Diagnosis) -> Iterator[Point]:
    rules = [one for one in found.shortcuts if one.name != FIRST]  # places have a finding of their own
    strong, surely = [one for one in rules if one.strong], [one for one in rules if one.surely]
    told = "; ".join(
        f"“{one.name}” {one.accuracy.percent()} of the {one.decides:.0%} it tells apart" for one in (strong or surely)[:5]
    )
    if strong:
        best = strong[0]
        way = "" if best.accuracy.value > 0.5 else ", turned round,"
        said = (
            f"A shortcut: “{best.name}” alone{way} is right in {best.overall:.0%} of pairs. A model may learn that instead."
        )
        yield Point("shortcuts", "look", said, f"{told}.{_style(found)}")
    elif surely:
        said = "No trivial rule decides the pairs; some lean one way."
        yield Point("shortcuts", "fine", said, f"{told}.{_style(found)}")
    elif rules:
        said = f"None of {len(rules)} trivial rules (longer, more lists, more polite, …) is surely better than a guess."
        yield Point("shortcuts", "fine", said, _style(found).strip())


def _position(found: Diagnosis) -> Iterator[Point]:
    where = found.position
    if where is None:
        if found.comparisons:
            said = "Which answer was shown first is not recorded, so a liking for a place cannot be seen."
            yield Point("position", "unknown", said, "The column shown_first, chosen or rejected, would say it.")
        return
    first, n = where.all.first, f"{where.all.first.n:,}"
    stands = "shown first" if where.of == "shown" else "that stands earlier in its list"
    people = [one for one in where.people if one.surely]
    behind = "; ".join(f"{one.name} {one.first.percent()}" for one in people[:SHOWN])
    behind = f"Surely not ½, by person: {behind}." if behind else ""
    if where.all.surely or people:
        said = (
            f"The answer {stands} is preferred in {first.percent()} of {n} pairs, where a liking for no place gives 50 %."
        )
        yield Point("position", "look", said, behind)
    else:
        yield Point(
            "position", "fine", f"The answer {stands} is preferred in {first.percent()} of {n} pairs: no sure liking."
        )


def _style(found: Diagnosis) -> str:
    if found.style is None or found.noise is None or not found.noise.learnable:
        return ""
    return (
        f" Length and style together: {found.style.percent()} of unseen pairs; with words {found.noise.accuracy.percent()}."
    )


def _difficulty(found: Diagnosis) -> Iterator[Point]:
    if not found.difficulty:
        return
    hard = np.array(found.difficulty)
    low, middle, high = (short(float(q)) for q in np.quantile(hard, (0.1, 0.5, 0.9)))
    if found.reference is not None:
        one, by = found.reference.rejected, found.reference.shorter
        said = f"The reference prefers the rejected in {one.percent()} of {one.n:,} pairs; a margin under β c leaves it so."
        behind = f"c: {low} / {middle} / {high} nats at 10 / 50 / 90 %."
        if by is not None:
            behind += f" It prefers the shorter side in {by.percent()}: sums over tokens grow with length."
        if found.reference.unread:
            behind += f" {found.reference.unread:,} more pairs did not fit into the model."
        yield Point("difficulty", "look" if one.low > 0.5 else "fine", said, behind)
    elif found.noise is not None and found.noise.learnable:
        unsure = float((np.abs(hard) < np.log(2)).mean())
        said = f"{unsure:.0%} of pairs are hard for the predictor: less than two to one for either side."
        yield Point("difficulty", "fine", said)


def _edits(found: Diagnosis) -> Iterator[Point]:
    if not found.edits:
        return
    from penchant.evaluation.diagnosis.advice import CLOSE

    said = f"In {found.close:.0%} of pairs the two sides differ in at most a fifth of their words"
    if found.close >= CLOSE:
        yield Point("near pairs", "look", f"{said}; there a loss may lower the chosen too.")
    else:
        yield Point("near pairs", "fine", f"{said}.")

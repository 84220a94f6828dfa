"""What a comparison says in words: which is better, how sure that is, and at what price. Page and terminal print these
sentences; the numbers in them are those of the tables."""

from __future__ import annotations

from collections import Counter

from penchant.evaluation.compared import Arm, Compared, Gap
from penchant.evaluation.comparison import ALPHA
from penchant.evaluation.measures import MEASURES, Measure
from penchant.evaluation.statistics import Estimate, short
from penchant.words import figure


def said(measure: Measure, x: float) -> str:
    """A value of a measure."""
    return f"{figure(100 * x, '.1f')} %" if measure.unit == "%" else f"{short(x)} {measure.unit}".strip()


def between(measure: Measure, e: Estimate, signed: bool = False) -> str:
    """An estimate with its interval; differences of shares are points."""
    if measure.unit != "%":
        return e.number(signed)
    return e.percent(signed).replace(" %", " points", 1) if signed else e.percent()


def sure(p: float) -> str:
    return f"p = {p:.2g}" if p >= 0.001 else "p < 0.001"


def headline(found: Compared) -> str:
    """A few words: who is best, or that nobody is."""
    return "No winner" if found.winner is None else f"{found.called(found.winner)} is best"


def answer(found: Compared) -> list[str]:
    """The answer, a sentence for each of: which, how sure, what is sure besides, at what price."""
    measure = found.primary
    if measure is None:
        return [
            "Nothing was measured by which these runs could be compared: no judge, and no implicit reward on held-out pairs."
        ]
    gaps = found.gaps(measure)
    order = sorted(found.judged, key=lambda name: -found.judged[name].value)
    lines = [_which(found, measure, gaps, order), *_begun(found, measure)]
    lines += [*_besides(found, measure, gaps, order), *_start(found, measure, order)]
    return [*lines, *_price(found, order), *_harm(found, order)]


def _which(found: Compared, measure: Measure, gaps: list[Gap], order: list[str]) -> str:
    if len(order) < 2:
        return "There is only one objective, and nothing to hold it against."
    first, value = found.called(order[0]), said(measure, found.judged[order[0]].value)
    mine = [gap for gap in gaps if gap.a == order[0]]
    lead = ""
    if found.incomplete:
        missing = ", ".join(found.incomplete)
        lead = f"{missing} did not finish or was not measured, and what it would have shown is not known. Of the others, "
    if found.winner is not None:
        nearest, weakest = min(mine, key=lambda gap: gap.contrast.value), max(mine, key=lambda gap: gap.contrast.p)
        whom = "the other" if len(order) == 2 else f"each of the other {len(order) - 1}"
        return (
            f"{first} is best: {measure.name} {value}, surely above {whom}. The nearest is {found.called(nearest.b)}, by "
            f"{_between(measure, nearest)}; the least sure of these differences has {sure(weakest.contrast.p)}."
        )
    rivals = [gap for gap in mine if gap.contrast.p >= ALPHA]
    if not rivals:
        return f"{lead}{first} has the highest {measure.name}, {value}, surely above the rest."
    nearest = min(rivals, key=lambda gap: gap.contrast.value)
    lone = len(found.judged[order[0]].seeds) < 2
    why = "one seed cannot tell what another would have shown" if lone else sure(nearest.contrast.p)
    names = [found.called(gap.b) for gap in rivals]
    if equal := [gap for gap in rivals if abs(gap.contrast.value) < 1e-9]:
        rest = [gap for gap in rivals if gap not in equal]
        shared = ", ".join([first, *(found.called(gap.b) for gap in equal[:-1])])
        tied = f"{shared} and {found.called(equal[-1].b)} have the same {measure.name}, {value}, the highest"
        if not rest:
            return f"{lead}{tied}."
        why = why if lone else f"each p ≥ {min(gap.contrast.p for gap in rest):.2g}"
        return f"{lead}{tied}, and {first} is not surely above {_either([found.called(gap.b) for gap in rest])} ({why})."
    by = f"by {_between(measure, nearest)}"
    whom = f"{_either(names)}; the nearest is {names[rivals.index(nearest)]}, {by} ({why})"
    if len(rivals) == 1:
        whom = f"{names[0]} ({by}; {why})"
    return f"{lead}{first} has the highest {measure.name}, {value}, but is not surely above {whom}."


def _either(names: list[str]) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]}" if names[1:] else names[0]


def _begun(found: Compared, measure: Measure) -> list[str]:
    """Why accuracies are not held against each other, where that is so."""
    if measure.key != "change" or found.by is not None:
        return []
    plain = next(m for m in MEASURES if m.key == "accuracy")
    told = [r.prompts.value for arm in found.arms if (r := found.begun(arm, plain)) is not None]
    return [
        f"Before training their accuracies were {figure(100 * min(told), '.0f')} to {figure(100 * max(told), '.0f')} %: an "
        "objective without a reference begins with how the start model ranks, one with it at 50 %. So what is compared is which "
        "pairs training moved the right way."
    ]


def _between(measure: Measure, gap: Gap) -> str:
    prompts = between(measure, gap.contrast.prompts, signed=True)
    seeds = between(measure, gap.contrast.seeds, signed=True)
    return f"{prompts} over prompts, {seeds[seeds.index('[') :]} over seeds"


def _besides(found: Compared, measure: Measure, gaps: list[Gap], order: list[str]) -> list[str]:
    """The differences that hold when all of them are asked at once."""
    held = [gap for gap in gaps if gap.sure and not (found.winner == gap.a and len(order) == 2)]
    if not held:
        alone = len(gaps) == 1 or found.winner is not None
        return [] if alone else ["Asked all at once, no two of them are told apart (Holm)."]
    pairs = "; ".join(
        f"{found.called(gap.a)} above {found.called(gap.b)} ({between(measure, gap.contrast.prompts, signed=True)})"
        for gap in held[:6]
    )
    more = f"; and {len(held) - 6} more" if len(held) > 6 else ""
    return [f"Sure when all differences are asked at once (Holm): {pairs}{more}."]


def _start(found: Compared, measure: Measure, order: list[str]) -> list[str]:
    """Whether training was of any use."""
    known = found.above_start
    if not known:
        return []
    above = [c for c in order if c in known and known[c][1] < ALPHA and known[c][0].value > 0]
    below = [c for c in order if c in known and known[c][1] < ALPHA and known[c][0].value < 0]
    what = "what it began with" if measure.key != "wins" else "a tie with the start"
    if not above and not below:
        return [f"None is surely above or below {what} (Holm)."]
    lines = [f"Surely above {what} (Holm): {', '.join(map(found.called, above))}."] if above else []
    return lines + ([f"Surely below {what} (Holm): {', '.join(map(found.called, below))}."] if below else [])


def _price(found: Compared, order: list[str]) -> list[str]:
    """What the first cost, beside the range of the others."""
    if not order:
        return []
    arm, others = found.best[order[0]], [found.best[name] for name in order[1:]]
    parts = [part for key in ("kl", "length", "chosen") if (part := _paid(found, arm, others, key))]
    beside = f" ({_range([f'{o.cpu:,.0f}' for o in others], [o.cpu for o in others])})" if others else ""
    parts.append(f"{arm.cpu:,.0f} CPU-seconds a run{beside} for {arm.steps:,} steps over {arm.tokens:,.0f} tokens")
    return [f"The price of {found.titled(arm)}: {'; '.join(parts)}."]


def _paid(found: Compared, arm: Arm, others: list[Arm], key: str) -> str:
    measure = next((m for m in found.measures if m.key == key), None)
    mine = None if measure is None else arm.readings(measure)
    if measure is None or mine is None:
        return ""
    theirs = [r.value for other in others if (r := other.readings(measure)) is not None]
    beside = _range([said(measure, x) for x in theirs], theirs) if theirs else ""
    start = found.start(measure)
    began = f"the start {said(measure, start.prompts.value)}" if start is not None else ""
    inside = "; ".join(filter(None, (began, beside)))
    return f"{measure.name} {said(measure, mine.value)}" + (f" ({inside})" if inside else "")


def _range(written: list[str], values: list[float]) -> str:
    """What the others paid, from the least to the most, with the unit once."""
    if len(values) == 1:
        return f"the other {written[0]}"
    least, most = (written[values.index(pick)] for pick in (min(values), max(values)))
    same_unit = " " in least and least.split(" ")[1:] == most.split(" ")[1:]
    return f"the others {least.split(' ')[0] if same_unit else least} to {most}"


def _harm(found: Compared, order: list[str]) -> list[str]:
    """Verdicts that a reader of the first line must not miss."""
    if not order:
        return []
    bad: Counter[str] = Counter()
    for word, n in found.best[order[0]].verdicts.items():
        if word in ("collapsed", "unstable", "chosen falling", "length drift", "nothing learned", "memorised"):
            bad[word] = n
    cells = len(found.best[order[0]].cells)
    return [
        f"Of the {cells} runs of {found.called(order[0])} {n} {'has' if n == 1 else 'have'}, judged alone, the verdict “{word}”."
        for word, n in bad.items()
    ]


def equal_compute(found: Compared) -> str:
    """What all runs had alike, and where they had not."""
    steps, tokens = {arm.steps for arm in found.arms}, [arm.tokens for arm in found.arms]
    alike = f"{steps.pop():,} optimiser steps" if len(steps) == 1 else "optimiser steps that differ (see the table)"
    read = (
        f"{tokens[0]:,.0f} tokens"
        if max(tokens) <= 1.001 * min(tokens)
        else f"{min(tokens):,.0f} to {max(tokens):,.0f} tokens, as the objectives read the rows in different shapes"
    )
    return f"Every run takes the same rows in the same number of epochs: {alike} a run, {read}."


SHARED = (
    "The held-out prompts are the same for all runs; a seed decides the order of rows, new adapters' first values and the "
    "samples. Log-probs of the start are computed once and read from the cache, and what the start answers is sampled once a seed."
)
UNITS = (
    "Implicit rewards and losses are not compared: each objective has its own units. Accuracies, wins, KL, length and log π "
    "have the same for all."
)

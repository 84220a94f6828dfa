"""What runs with different objectives can be compared by, read from their evidence: a value for each held-out pair or prompt.
Implicit rewards and losses are not among them: each objective has its own units."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Literal

from penchant.evaluation import pairs, samples
from penchant.evaluation.evidence import PairEvidence, RunEvidence, SampleEvidence

Values = Sequence[float]
"""One for each unit; NaN where it was not measured."""


@dataclass(frozen=True)
class Measure:
    """One column of the comparison."""

    key: str
    name: str
    unit: Literal["", "%", "nats", "tokens"]
    better: Literal[-1, 0, 1]
    """Which direction is good; 0: neither, it is a price or a fact."""
    of: Callable[[RunEvidence], Values | None]
    """After training."""
    start: Callable[[RunEvidence], Values | None]
    """The same of the start model; None where it says nothing."""
    note: str


def units(evidence: RunEvidence, measure: Measure) -> tuple[Hashable, ...]:
    """What the measure's values are of: for pairs the prompt of each, for prompts each itself."""
    if measure.key in _ON_PAIRS and evidence.pairs_after is not None:
        found = evidence.pairs_after
        return tuple(found.groups if found.groups is not None else range(len(found.numbers)))
    return tuple(range(len(evidence.samples_after.prompts))) if evidence.samples_after is not None else ()


def identity(evidence: RunEvidence) -> tuple[Hashable, ...]:
    """What a run was measured on; two that differ in it were not measured alike."""
    pair, said = evidence.pairs_after, evidence.samples_after
    return (None if pair is None else tuple(pair.numbers), None if said is None else tuple(said.prompts))


def _on_pairs(of: Callable[[PairEvidence], Values | None], before: bool = False) -> Callable[[RunEvidence], Values | None]:
    def read(evidence: RunEvidence) -> Values | None:
        found = evidence.pairs_before if before else evidence.pairs_after
        return None if found is None else of(found)

    return read


def _on_samples(
    of: Callable[[SampleEvidence], Values | None], before: bool = False
) -> Callable[[RunEvidence], Values | None]:
    def read(evidence: RunEvidence) -> Values | None:
        found = evidence.samples_before if before else evidence.samples_after
        return None if found is None else of(found)

    return read


def _accuracy(found: PairEvidence) -> Values:
    return pairs.hits(pairs.margins(found))


def _changed(evidence: RunEvidence) -> Values | None:
    before, after = evidence.pairs_before, evidence.pairs_after
    return None if before is None or after is None else pairs.hits(pairs.gains(before, after))


def _unchanged(evidence: RunEvidence) -> Values | None:
    return (
        None if _changed(evidence) is None or evidence.pairs_before is None else [0.5] * len(evidence.pairs_before.numbers)
    )


def _ranked(found: PairEvidence) -> Values | None:
    """Definition 2.2 of arXiv 2405.19534: a tie counts as right."""
    if not found.speaks:  # a reward model has no log-probs
        return None
    return [float(w >= l) for w, l in zip(found.logp_chosen, found.logp_rejected, strict=True)]


def _moved(evidence: RunEvidence) -> Values | None:
    """By pair, so that the mean over pairs is Σ change of log π / Σ tokens, as a run's own report has it."""
    before, after = evidence.pairs_before, evidence.pairs_after
    if before is None or after is None or not after.speaks:
        return None
    tokens = pairs.tokens(after.length_chosen)
    each = math.fsum(tokens) / len(tokens)
    return [(b - a) / each for a, b in zip(before.logp_chosen, after.logp_chosen, strict=True)]


def _scores(found: SampleEvidence) -> Values | None:
    return None if found.scores is None else [math.nan if s is None else s for s in samples.score_by_prompt(found)]


def _against_start(evidence: RunEvidence) -> Values | None:
    """By prompt: over every sample after and every sample before, how often the judge scores the former higher; a tie is
    half. A comparer was asked itself, against the start's greedy answer."""
    before, after = evidence.samples_before, evidence.samples_after
    if before is None or after is None or before.scores is None or after.scores is None:
        return None
    if after.against_start:
        return _scores(after)
    out = []
    for old, new in zip(before.scores, after.scores, strict=True):
        gaps = [b - a for a in old for b in new if a is not None and b is not None]
        out.append(math.fsum(pairs.hits(gaps)) / len(gaps) if gaps else math.nan)
    return out


def _against_chosen(found: SampleEvidence) -> Values | None:
    if found.against_chosen is None:
        return None
    known = [[x for x in row if x is not None] for row in found.against_chosen]
    return [math.fsum(row) / len(row) if row else math.nan for row in known]


def _kl(found: SampleEvidence) -> Values | None:
    return None if found.kl is None else samples.per_prompt(found.kl)


def _lengths(found: SampleEvidence) -> Values | None:
    """None of responses that are one step each, as pictures are."""
    return samples.per_prompt_lengths(found) if found.shown is None or max(map(max, found.lengths), default=1) > 1 else None


def _cut(found: SampleEvidence) -> Values:
    return [1 - ended for ended in samples.stopped_by_prompt(found)]


def _nothing(evidence: RunEvidence) -> None:
    return None


MEASURES = (
    Measure(
        "score",
        "judge's score",
        "",
        1,
        _on_samples(_scores),
        _on_samples(_scores, before=True),
        "The judge's mean score of sampled answers, every prompt weighing the same.",
    ),
    Measure(
        "wins",
        "wins against the start",
        "%",
        1,
        _against_start,
        _nothing,
        "How often the judge finds a sampled answer better than one of the start model; 50 % is no change.",
    ),
    Measure(
        "wins-chosen",
        "wins against the chosen",
        "%",
        1,
        _on_samples(_against_chosen),
        _on_samples(_against_chosen, before=True),
        "How often the judge finds a sampled answer better than the one the data prefers. Samples may be cut, those are not.",
    ),
    Measure(
        "accuracy",
        "accuracy on unseen pairs",
        "%",
        1,
        _on_pairs(_accuracy),
        _on_pairs(_accuracy, before=True),
        "Share of held-out pairs whose chosen response has the greater implicit reward, each objective by its own; a tie is half.",
    ),
    Measure(
        "change",
        "accuracy of the change",
        "%",
        1,
        _changed,
        _unchanged,
        "Share of held-out pairs on which training raised the implicit reward of the chosen more than that of the rejected, each "
        "objective by its own; a tie is half, so every start has 50 %. With a reference this is the accuracy.",
    ),
    Measure(
        "ranking",
        "plain ranking",
        "%",
        1,
        _on_pairs(_ranked),
        _on_pairs(_ranked, before=True),
        "Share of held-out pairs whose chosen response is the more probable, log π(chosen) ≥ log π(rejected), whatever the start "
        "said. Length decides much of it.",
    ),
    Measure(
        "kl",
        "KL from the start",
        "nats",
        0,
        _on_samples(_kl),
        _nothing,
        "How far the model went: nats a sampled answer, all tokens together (k3, never negative).",
    ),
    Measure(
        "length",
        "length",
        "tokens",
        0,
        _on_samples(_lengths),
        _on_samples(_lengths, before=True),
        "Tokens of a sampled answer; one that was cut counts as far as it came.",
    ),
    Measure(
        "cut",
        "cut at the limit",
        "%",
        0,
        _on_samples(_cut),
        _on_samples(_cut, before=True),
        "Share of sampled answers that had not ended. Where it is large, lengths say little.",
    ),
    Measure(
        "chosen",
        "log π of the chosen moved",
        "nats",
        0,
        _moved,
        _nothing,
        "Change of log π of the held-out chosen responses, in nats a token. A margin can grow while it falls.",
    ),
)
_ON_PAIRS = {"accuracy", "change", "ranking", "chosen"}


def primary(evidences: Sequence[RunEvidence], by: str | None) -> Measure | None:
    """What the winner is named by: the measure asked for; else the judge's score; else, where nobody judges, the accuracy, or
    that of the change where the objectives began with different ones. None where no run has it. Settled by what there
    is and where they begin, not by what comes of it."""
    wanted = [by] if by is not None else ["score", "accuracy" if begin_alike(evidences) else "change"]
    there = (m for key in wanted for m in MEASURES if m.key == key and any(m.of(e) is not None for e in evidences))
    return next(there, None)


def begin_alike(evidences: Sequence[RunEvidence]) -> bool:
    """Whether the implicit rewards of all objectives rank the same held-out pairs rightly before training. With a reference
    they are all tied there; without one they already rank, each in its way, and an accuracy is mostly the start's."""
    begun = [e.pairs_before for e in evidences if e.pairs_before is not None]
    # a reward model begins with a head that knows nothing, drawn anew for every seed
    return len({tuple(_accuracy(one)) for one in begun if one.speaks}) <= 1

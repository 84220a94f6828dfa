"""The before/after table. The terminal and the report both print these rows, so they show the same numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from penchant.errors import Refusal
from penchant.evaluation import lists, pairs, samples
from penchant.evaluation.comparisons import Comparison, after_against_before, win_rate
from penchant.evaluation.evidence import ListEvidence, PairEvidence, RunEvidence, SampleEvidence
from penchant.evaluation.length_control import length_controlled
from penchant.evaluation.ranking import ranking_hits
from penchant.evaluation.statistics import RESAMPLES, Estimate, difference, mean, ratio, share, short
from penchant.evaluation.style_control import marked, style_controlled

STEPS = {"text": "token", "pictures": "picture", "policies": "action"}
"""What a step of a response is called, by what the model makes."""
Word = Literal["better", "worse", "neutral"]


@dataclass(frozen=True)
class Row:
    """One measure before and after training, on the same unseen prompts or pairs."""

    name: str
    unit: Literal["", "%", "nats", "tokens"]
    before: Estimate | None
    after: Estimate
    change: Estimate | None
    """After − before, with the interval of the paired difference."""
    word: Word
    """better or worse only where the measure has a good direction and the change is surely not 0."""
    note: str
    """What it means, in one line."""

    @property
    def cells(self) -> tuple[str, str, str]:
        """Before, after, change, as text."""
        said = lambda e: self._plain(e.value)  # noqa: E731
        return (
            "–" if self.before is None else said(self.before),
            said(self.after),
            "–" if self.change is None else self._with_interval(self.change),
        )

    def _plain(self, x: float) -> str:
        return f"{100 * x:.1f} %" if self.unit == "%" else f"{short(x)} {self.unit}".strip()

    def _with_interval(self, e: Estimate) -> str:
        return e.percent(signed=True).replace(" %", " points", 1) if self.unit == "%" else e.number(signed=True)


def before_after(evidence: RunEvidence, *, resamples: int = RESAMPLES) -> list[Row]:
    """The rows that this run's evidence allows, the judge's score first."""
    rows: list[Row] = []
    if evidence.samples_before is not None and evidence.samples_after is not None:
        rows += _scores(evidence.samples_before, evidence.samples_after, resamples)
        rows += _guard(evidence.samples_before, evidence.samples_after, resamples)
        rows += _wins(evidence.samples_before, evidence.samples_after, resamples)
    if evidence.pairs_before is not None and evidence.pairs_after is not None:
        rows += _pairs(evidence.pairs_before, evidence.pairs_after, resamples, STEPS.get(evidence.makes, "step"))
    if evidence.lists_before is not None and evidence.lists_after is not None:
        rows += _lists(evidence.lists_before, evidence.lists_after, resamples)
    if evidence.samples_before is not None and evidence.samples_after is not None and evidence.speaks:
        rows += _texts(evidence.samples_before, evidence.samples_after, resamples)
    if evidence.samples_before is not None and evidence.samples_after is not None and evidence.makes == "policies":
        rows += _episodes(evidence.samples_before, evidence.samples_after, resamples)
    return rows


def _word(change: Estimate | None, good: int, bad: int = 0) -> Word:
    """`good` is the direction that is better (+1, −1, or 0 for none), `bad` the one that is worse, else its opposite."""
    if change is None or change.low <= 0 <= change.high:
        return "neutral"
    direction = 1 if change.low > 0 else -1
    if good and direction == good:
        return "better"
    return "worse" if direction == (bad or -good) else "neutral"


def _scores(before: SampleEvidence, after: SampleEvidence, resamples: int) -> list[Row]:
    new = samples.score(after, resamples=resamples)
    if new is None:
        return []
    change = samples.score_change(before, after, resamples=resamples)
    judge = f" ({after.judge})" if after.judge else ""
    note = "The judge's mean score, every prompt weighing the same."
    return [
        Row(f"judge's score{judge}", "", samples.score(before, resamples=resamples), new, change, _word(change, 1), note)
    ]


def _guard(before: SampleEvidence, after: SampleEvidence, resamples: int) -> list[Row]:
    found = samples.guard_change(before, after, resamples=resamples)
    if found is None:
        return []
    old, new, change = found
    note = "Of an independent judge, by which nothing was chosen or trained."
    return [Row(f"guard's score ({after.guarded_by})", "", old, new, change, _word(change, 1), note)]


def _wins(before: SampleEvidence, after: SampleEvidence, resamples: int) -> list[Row]:
    """The win rate over the model before, as it is and with lengths held equal; 50 % is no change by construction."""
    compared = after_against_before(before, after)
    if not compared:
        return []
    note = "Answers the judge scores higher than the one given before to the same prompt; equal scores count half."
    equal: Estimate | None = None
    beside = "As if answers were equally long: σ(ψ) of logit P(win) = θ tanh(Δ characters / sd) + ψ, by maximum likelihood."
    if any(c.text_a or c.text_b for c in compared):
        try:
            found = length_controlled(compared, resamples=min(resamples, 2000))
            equal, beside = found.value, f"{beside} {found.warning}".strip()
            if found.lost > 0.025:
                beside += (
                    f" In {found.lost:.0%} of draws lengths tell all wins from all losses, so its spread is not known."
                )
        except Refusal as no:
            note += f" With lengths held equal it is not known: {no}"
    even = Estimate(0.5, 0.5, 0.5, len(compared))
    styled, form = _styled(compared, resamples)
    if styled is None:
        note += form
    rows = []
    for name, rate, said in (
        ("win rate over before", win_rate(compared, resamples=resamples).mean, note),
        ("win rate with lengths held equal", equal, beside),
        ("win rate with style held equal", styled, form),
    ):
        if rate is not None:
            change = Estimate(rate.value - 0.5, rate.low - 0.5, rate.high - 0.5, rate.n)
            rows.append(Row(name, "%", even, rate, change, _word(change, 1), said))
    return rows


def _styled(compared: Sequence[Comparison], resamples: int) -> tuple[Estimate | None, str]:
    """The win rate with length and markdown held equal, where any answer has markdown; without, lengths say it all."""
    if not any(marked(c.text_a) or marked(c.text_b) for c in compared):
        return None, ""
    note = (
        "As if answers were alike in length, headers, lists and bold: σ(θ) of a Bradley-Terry fit with their differences."
    )
    try:
        found = style_controlled(compared, "before", resamples=min(resamples, 1000))
    except Refusal as no:
        return None, f" With style held equal it is not known: {no}"
    if found.lost > 0.025:
        note += f" In {found.lost:.0%} of draws style tells all wins from all losses, so its spread is not known."
    return found.scores[0].no_difference, note


def _pairs(before: PairEvidence, after: PairEvidence, resamples: int, step: str = "token") -> list[Row]:
    old, new, groups = pairs.margins(before), pairs.margins(after), after.groups
    change = difference(pairs.hits(old), pairs.hits(new), groups, resamples=resamples)
    grown = difference(old, new, groups, resamples=resamples)
    was, now = (pairs.margin(e, resamples=resamples) for e in (before, after))
    named, reward = ("implicit accuracy", "implicit reward") if after.speaks else ("accuracy", "score")
    what = f"Share of pairs whose chosen response has the greater {reward}"
    right = f"{what}: what training moved. Ties count half." if after.speaks else f"{what}. Ties count half."
    gap = f"{reward.capitalize()} of the chosen less that of the rejected, in the objective's own units."
    rows = [
        Row(
            f"{named} on unseen pairs",
            *("%", pairs.accuracy(before), pairs.accuracy(after)),
            *(change, _word(change, 1), right),
        ),
        Row("margin on unseen pairs", "", was, now, grown, _word(grown, 1), gap),
    ]
    if not after.speaks:
        return rows
    plain = "Share of pairs whose chosen response is the more probable one: where the model stands. Losses seldom turn it."
    fall = "A small fall of both is usual for losses on pairs; a large fall of the chosen is not."
    ranked = [ranking_hits(e) for e in (before, after)]
    turned = difference(ranked[0], ranked[1], groups, resamples=resamples)
    rows.append(
        Row(
            "ranking accuracy on unseen pairs",
            *("%", share(ranked[0], groups), share(ranked[1], groups)),
            *(turned, _word(turned, 1), plain),
        )
    )
    moved = pairs.displacement(before, after, resamples=resamples)
    for side, change, logp_before, logp_after, length in (
        ("chosen", moved.chosen, before.logp_chosen, after.logp_chosen, after.length_chosen),
        ("rejected", moved.rejected, before.logp_rejected, after.logp_rejected, after.length_rejected),
    ):
        by = pairs.tokens(length)
        was, now = (ratio(logp, by, groups, resamples=resamples) for logp in (logp_before, logp_after))
        rows.append(Row(f"log π per {step}, {side}", "nats", was, now, change, "neutral", fall))
    return rows


def _lists(before: ListEvidence, after: ListEvidence, resamples: int) -> list[Row]:
    first = (
        "Share of lists whose highest implicit reward goes to a response of the best grade; chance where rewards are equal."
    )
    order = "Share of a list's unequally graded pairs whose better response has the greater reward; a guess gets 50 %."
    rank = "Discounted gain of the ranking by implicit reward over that of the ranking by grade; 1 is perfect."
    measures: list[tuple[str, Literal["", "%"], lists.Measure, str]] = [
        ("best first on unseen lists", "%", lists.best_first, first),
        ("pairs in order on unseen lists", "%", lists.in_order, order),
        ("NDCG on unseen lists", "", lists.ndcg, rank),
    ]
    rows = []
    for name, unit, measure, note in measures if after.numbers else []:
        old, new = lists.over(before, measure), lists.over(after, measure)
        change = difference(old, new, resamples=resamples)
        was, now = (mean(x, resamples=resamples) for x in (old, new))
        rows.append(Row(name, unit, was, now, change, _word(change, 1), note))
    return rows


def _texts(before: SampleEvidence, after: SampleEvidence, resamples: int) -> list[Row]:
    def row(
        name: str,
        unit: Literal["", "%", "nats", "tokens"],
        of: Callable[[SampleEvidence], list[float]],
        good: int,
        note: str,
    ) -> Row:
        change = difference(of(before), of(after), resamples=resamples)
        old, new = (mean(of(e), resamples=resamples) for e in (before, after))
        return Row(name, unit, old, new, change, _word(change, good), note)

    rows = []
    found = samples.diversity(before, after)
    if found is not None:
        old, new, log_change = found
        at = lambda v: Estimate(v, -math.inf, math.inf, log_change.n)  # noqa: E731
        ends = [old * math.expm1(x) for x in (log_change.low, log_change.high)]
        change = Estimate(new - old, ends[0], ends[1], log_change.n)
        note = (
            "Different word pairs over all word pairs, both sides cut to equal length: low where all answers sound alike."
        )
        rows.append(Row("distinct-2 at equal length", "", at(old), at(new), change, _word(change, 0, -1), note))
    rows.append(row("repetition", "%", samples.repetitions, -1, "Three-word runs an answer has said before."))
    entropy = samples.entropy_change(before, after, resamples=resamples)
    old, new = (samples.entropy(e, resamples=resamples) for e in (before, after))
    note = "−log π per token of the model's own answers: how much choice is left."
    rows.append(Row("entropy per token", "nats", old, new, entropy, "neutral", note))
    if before.kl is not None and after.kl is not None:
        of = lambda e: samples.per_prompt(e.kl or [])  # noqa: E731
        rows.append(
            row("KL to the reference, per response", "nats", of, 0, "How far the model went (k3 on its own samples).")
        )
    rows.append(row("length", "tokens", samples.per_prompt_lengths, 0, "Tokens of an answer."))
    rows.append(row("ended by itself", "%", samples.stopped_by_prompt, 0, "Answers that stopped before the limit."))
    return rows


def _episodes(before: SampleEvidence, after: SampleEvidence, resamples: int) -> list[Row]:
    rows = []
    entropy = samples.entropy_change(before, after, resamples=resamples)
    old, new = (samples.entropy(e, resamples=resamples) for e in (before, after))
    note = "−log π per action of the policy's own episodes; of densities, so it may be below 0."
    rows.append(Row("entropy per action", "nats", old, new, entropy, "neutral", note))
    measures: list[tuple[str, Literal["nats", ""], Callable[[SampleEvidence], list[float]], str]] = [
        ("actions of an episode", "", samples.per_prompt_lengths, "As far as it went.")
    ]
    if before.kl is not None and after.kl is not None:
        far = "How far the policy went (k3 on its own episodes)."
        measures.append(("KL to the reference, per episode", "nats", lambda e: samples.per_prompt(e.kl or []), far))
    for name, unit, of, note in measures:
        change = difference(of(before), of(after), resamples=resamples)
        old, new = (mean(of(e), resamples=resamples) for e in (before, after))
        rows.append(Row(name, unit, old, new, change, "neutral", note))
    return rows

"""The page's part on a reward model: its accuracy with ties told apart, whether its odds come true, and how much it goes by length.
It draws what evaluation/ found and judges nothing."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from penchant.evaluation.calibration import Calibration, of_margins, temperature
from penchant.evaluation.evidence import PairEvidence, RunEvidence
from penchant.evaluation.pairs import margins
from penchant.evaluation.rewards import LengthBias, RewardAccuracy, length_bias, length_matched, reward_accuracy
from penchant.evaluation.statistics import Estimate
from penchant.report.charts import BLUE, ORANGE, QUIET, Chart, draw
from penchant.report.facts import number
from penchant.report.sections import Section, Table

DRAWN = 400
"""Responses of each side in the scatter; of more, so many are drawn at equal steps."""
ALIKE = 0.1
"""Share by which the lengths of a pair may differ to count as equal."""


def reward_section(evidence: RunEvidence) -> Section | None:
    """What the held-out pairs say of the scores; None for a run that trained a model of text, or held no pairs out."""
    pairs = evidence.pairs_after
    if evidence.makes != "scores" or pairs is None or not pairs.numbers:
        return None
    rewards = (pairs.reward_chosen, pairs.reward_rejected)
    lengths = (pairs.length_chosen, pairs.length_rejected)
    bias = length_bias(*rewards, *lengths, pairs.groups)
    odds = of_margins(margins(pairs), groups=pairs.groups)
    lead = (
        "A score means something only beside another one for the same prompt: the chosen is preferred with probability σ of "
        "their difference. Where people prefer longer answers, a model that has learned length alone looks good."
    )
    counted = accuracies(
        reward_accuracy(*rewards, pairs.groups), length_matched(*rewards, *lengths, pairs.groups, within=ALIKE)
    )
    shown = (reliability(odds), against_length(pairs, bias))
    return Section("reward", "As a reward model", lead, said(pairs, odds, bias), (counted,), shown)


def in_words(evidence: RunEvidence) -> list[str]:
    """The same for a terminal, a paragraph each, without charts; nothing of a model of text."""
    pairs = evidence.pairs_after
    if evidence.makes != "scores" or pairs is None or not pairs.numbers:
        return []
    rewards, lengths = (pairs.reward_chosen, pairs.reward_rejected), (pairs.length_chosen, pairs.length_rejected)
    ties = reward_accuracy(*rewards, pairs.groups).ties
    odds = of_margins(margins(pairs), groups=pairs.groups)
    told = said(pairs, odds, length_bias(*rewards, *lengths, pairs.groups))
    return [f"As a reward model: {ties.percent()} of pairs have equal scores. {told[0]}", *told[1:]]


def accuracies(every: RewardAccuracy, near: RewardAccuracy | None) -> Table:
    """The ways to count."""
    rows = [
        ("Strict", number(every.strict.n), every.strict.percent()),
        ("Ties as half", number(every.half.n), every.half.percent()),
        ("Ties", number(every.ties.n), every.ties.percent()),
    ]
    notes = ["A tie counts as wrong.", "What a guess would get of a tie.", "Pairs of equal scores."]
    if near is not None:
        rows.append(("Of about equal length", number(near.half.n), near.half.percent()))
        notes.append(f"Pairs whose lengths differ by at most {100 * ALIKE:.0f} %; ties as half.")
    return Table(("Accuracy", "Pairs", "Share"), tuple(rows), notes=tuple(notes))


def said(pairs: PairEvidence, odds: Calibration, bias: LengthBias) -> tuple[str, ...]:
    """The numbers in sentences."""
    sentences = [
        f"Stated and true shares are {100 * odds.ece:.1f} points apart on average (ECE); Brier score {odds.brier}. {_fitted(pairs)}"
    ]
    if bias.prefers_longer is None or bias.longer_wins is None:
        sentences.append("No pair has responses of unequal length.")
    else:
        sentences.append(
            f"Of {number(bias.n)} pairs of unequal length the model prefers the longer response in "
            f"{bias.prefers_longer.percent()}, people did in {bias.longer_wins.percent()}: the accuracy of “longer wins”. "
            f"Score and length correlate with {_r(bias.correlation)} over all responses, with {_r(bias.within)} within pairs."
        )
    return tuple(sentences)


def _fitted(pairs: PairEvidence) -> str:
    """The temperature that would make the odds come true, where these pairs can say."""
    found = margins(pairs)
    if not any(m < 0 for m in found):
        return "All pairs are in order, so no confidence is too great for them."
    fit = temperature(found, pairs.groups)
    if not np.isfinite(fit.value):
        return "No confidence is justified: the scores order these pairs no better than chance."
    return f"Scores divided by {fit} would state what comes true."


def _r(x: Estimate | None) -> str:
    return "no number (one of the two is constant)" if x is None else str(x)


def reliability(odds: Calibration) -> Chart:
    """Stated against true shares, with intervals."""
    stated = np.array([one.stated for one in odds.curve])
    right = np.array([one.right.value for one in odds.curve])
    spread = np.abs(np.array([[one.right.low, one.right.high] for one in odds.curve]).T - right)

    def paint(axes: Axes) -> None:
        axes.plot([0.5, 1], [0.5, 1], color=QUIET, linewidth=0.9, linestyle=(0, (1, 2)), label="stated = true")
        axes.errorbar(
            *(stated, right), yerr=spread, fmt="o", color=BLUE, markersize=4.5, elinewidth=1.2, label="share right, 95 %"
        )
        axes.set_xlim(0.48, 1.02)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(PercentFormatter(1.0, decimals=0))

    pairs = sum(one.right.n for one in odds.curve)
    caption = (
        f"{number(pairs)} pairs in {len(odds.curve)} bins; ECE {100 * odds.ece:.1f} points. Below the line is too sure."
    )
    return draw("Do the odds come true?", caption, "stated probability of the side it prefers", "share right", paint)


def against_length(pairs: PairEvidence, bias: LengthBias) -> Chart:
    """Every response's score against its length."""
    sides = (
        ("chosen", pairs.length_chosen, pairs.reward_chosen, BLUE),
        ("rejected", pairs.length_rejected, pairs.reward_rejected, ORANGE),
    )
    picked = np.linspace(0, len(pairs.numbers) - 1, min(len(pairs.numbers), DRAWN)).round().astype(int)

    def paint(axes: Axes) -> None:
        for name, length, reward, colour in sides:
            at = np.array(length)[picked], np.array(reward)[picked]
            axes.scatter(*at, s=9, color=colour, alpha=0.6, linewidths=0, label=name)

    drawn = "" if len(picked) == len(pairs.numbers) else f" {len(picked):,} pairs are drawn."
    caption = f"r = {_r(bias.correlation)} over {number(2 * len(pairs.numbers))} responses.{drawn}"
    return draw("Score against length", caption, "tokens of the response", "score", paint)

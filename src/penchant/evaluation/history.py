"""What the lines of metrics.jsonl say of a run: was it alive, and was it steady. It sees losses and gradient norms only;
whether anything good was learned is not to be read from them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from scipy import stats

from penchant.evaluation.evidence import RunEvidence
from penchant.evaluation.rules import Finding, Rules, numbers
from penchant.evaluation.statistics import short
from penchant.words import figure

Line = Mapping[str, Any]


def lines(evidence: RunEvidence, kind: str) -> list[Line]:
    """The lines of one kind, in the order of their steps."""
    return sorted((line for line in evidence.history if line.get("kind") == kind), key=lambda line: line.get("step", 0))


def series(lines: Sequence[Line], name: str) -> list[float]:
    """The values of one column where it exists; null and text become NaN."""
    return [float(v) if isinstance(v := line[name], int | float) else math.nan for line in lines if name in line]


def smooth(values: Sequence[float], decay: float = 0.9) -> list[float]:
    """Exponential moving average, without the pull towards 0 at its beginning."""
    out: list[float] = []
    total = weight = 0.0
    for value in values:
        total, weight = decay * total + (1 - decay) * value, decay * weight + (1 - decay)
        out.append(total / weight)
    return out


def on_policy(evidence: RunEvidence) -> bool:
    """Whether the run made its own data as it went."""
    return any(line.get("kind") == "round" for line in evidence.history)


def dead(evidence: RunEvidence, rules: Rules) -> str | None:
    """Why the steps of this run cannot have changed anything, or None."""
    steps = lines(evidence, "step")
    if not steps:
        return "no optimiser step was taken" if evidence.stopped_by is None else None
    gradients = series(steps, "grad_norm")
    if gradients and max(gradients) <= rules.gradient:
        return f"no gradient norm in {len(gradients)} steps exceeded {max(gradients):.1e}, so no parameter moved"
    rates = series(steps, "lr")
    if rates and max(rates) == 0:
        return f"the learning rate was 0 in all {len(rates)} steps"
    losses = series(steps, "loss")
    if len(losses) >= 5 and max(losses) - min(losses) <= rules.flat * max(abs(losses[0]), 1e-12):
        return f"the loss stood at {figure(losses[0], '.4f')} for all {len(losses)} steps"
    return None


def unstable(evidence: RunEvidence, rules: Rules) -> Finding:
    """Non-finite numbers, spikes of the gradient, a loss that ends above where it began, turns back up, or swings."""
    steps = lines(evidence, "step")
    losses, gradients = series(steps, "loss"), series(steps, "grad_norm")
    signs = [
        *_broken(losses, gradients),
        *_spikes(gradients, rules),
        *_trend(losses, rules, made_on_the_way=on_policy(evidence)),
        *_swings(losses, rules),
    ]
    found = numbers(steps=len(steps), loss_first=_or_none(losses[:1]), loss_last=_or_none(losses[-1:]))
    if signs:
        return Finding("unstable", True, f"Training was unstable: {'; '.join(signs)}.", found)
    if not steps:
        return Finding("unstable", False, "No step was recorded, so nothing can be said of stability.", found)
    return Finding(
        "unstable",
        False,
        f"Training was steady over {len(steps)} steps: no spikes, no loss that turned back up.",
        found,
    )


def _or_none(values: Sequence[float]) -> float | None:
    return values[0] if values and math.isfinite(values[0]) else None


def _broken(losses: Sequence[float], gradients: Sequence[float]) -> list[str]:
    count = sum(not math.isfinite(v) for v in (*losses, *gradients))
    return [f"{count} losses or gradient norms are not finite numbers"] if count else []


def _spikes(gradients: Sequence[float], rules: Rules) -> list[str]:
    finite = [g for g in gradients if math.isfinite(g)]
    if len(finite) < rules.least_steps:
        return []
    usual = max(median(finite), median(finite[: len(finite) // 4]))
    spikes = [g for g in finite if g > rules.spike * usual]
    if len(spikes) < max(3, rules.spikes * len(finite)):
        return []
    return [
        f"the gradient norm spiked in {len(spikes)} of {len(finite)} steps "
        f"(up to {short(max(spikes))}; {short(usual)} was usual)"
    ]


def _trend(losses: Sequence[float], rules: Rules, *, made_on_the_way: bool) -> list[str]:
    """Where data is made on the way the loss is not one curve: each round's pairs are new, and harder to tell apart as
    the samples grow alike; its trend says nothing then."""
    if made_on_the_way or len(losses) < rules.least_steps or not all(map(math.isfinite, losses)):
        return []
    quarter = len(losses) // 4
    first, last = losses[:quarter], losses[-quarter:]
    began, ended = _mean(first), _mean(last)
    if ended - began > rules.rising * abs(began):
        p = float(stats.mannwhitneyu(last, first, alternative="greater").pvalue)
        if p < rules.sure:
            return [f"the loss ended above where it began ({short(began)} → {short(ended)}, first and last quarter)"]
    lowest = min(smooth(losses))
    end = _mean(last[-max(3, quarter // 3) :])
    rank: Any = stats.kendalltau(range(quarter), last)
    sure = rank.statistic > 0 and rank.pvalue < rules.sure
    if sure and end - lowest > rules.rebound * max(began - lowest, 0.0) and end > lowest:
        return [f"the loss turned back up in the last quarter (from {short(lowest)} to {short(end)})"]
    return []


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _swings(losses: Sequence[float], rules: Rules) -> list[str]:
    if len(losses) < rules.least_steps or not all(map(math.isfinite, losses)):
        return []
    began = _mean(losses[:3])
    half = losses[len(losses) // 2 :]
    swings = [v for v in half if began > 0 and v > rules.swing * began]
    if len(swings) <= rules.swings * len(half):
        return []
    return [f"{len(swings)} of the last {len(half)} losses were over {rules.swing:g} times the first ({short(began)})"]

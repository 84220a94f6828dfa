"""When likelihood has been optimised too far: the alarm on what a run followed of held-out pairs, and where it had better have
stopped. It reads the lines of a run and is information, never a failure: a falling likelihood alone raises no alarm."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from penchant.evaluation.evidence import RunEvidence
from penchant.evaluation.history import Line, lines, series, smooth
from penchant.evaluation.rules import Finding

WORD = "likelihood over-optimised"
INDICATORS = ("mass", "entropy")
"""What turns first, in the paper: the probability of the most probable tokens together, and the entropy among them."""


@dataclass(frozen=True)
class Watch:
    """An alarm where an indicator, smoothed, has dropped by more than `tolerance` from its value at the best evaluation so far,
    in `patience` evaluations one after the other.

    The indicators are those of Shi et al. 2024, arXiv 2410.11677, who suggest to stop where they turn; this rule is ours. The
    best evaluation is the one of highest `metric`, the earliest of equals: while the metric still rises there is no alarm."""

    tolerance: float = 0.05
    patience: int = 3
    decay: float = 0.9
    """Of the moving average, so that one evaluation of a few pairs decides nothing."""
    metric: str = "accuracy"
    """Implicit accuracy on held-out pairs: a margin keeps growing long after nothing is learned any more."""


@dataclass(frozen=True)
class Alarm:
    """What one indicator did."""

    name: str
    """Its column: mass/10/chosen."""
    raised: int | None
    """The step of the evaluation at which the alarm went off; None for none."""
    best: int
    """The step of the best evaluation before that, or of all."""
    drop: float
    """Relative drop from there, at the alarm or at the end; below 0 where it rose."""


def watch(evaluations: Sequence[Line], name: str, rule: Watch | None = None) -> Alarm | None:
    """The alarm on one column of the "eval" lines, in their order; None where they do not all have it and the metric."""
    rule = rule or Watch()
    values, metric = series(evaluations, name), series(evaluations, rule.metric)
    if not values or len(values) != len(evaluations) or len(metric) != len(evaluations):
        return None
    if not all(map(math.isfinite, (*values, *metric))):
        return None
    smoothed = smooth(values, rule.decay)
    best = run = 0
    drop = 0.0
    for i, value in enumerate(smoothed):
        best = i if metric[i] > metric[best] else best
        drop = 1 - value / smoothed[best] if smoothed[best] > 0 else 0.0
        run = run + 1 if drop > rule.tolerance else 0
        if run >= rule.patience:
            return Alarm(name, evaluations[i]["step"], evaluations[best]["step"], drop)
    return Alarm(name, None, evaluations[best]["step"], drop)


def alarms(evidence: RunEvidence, rule: Watch | None = None) -> list[Alarm]:
    """The alarm of every indicator this run followed."""
    evaluations = lines(evidence, "eval")
    names = dict.fromkeys(key for line in evaluations for key in line if key.split("/")[0] in INDICATORS)
    return [found for name in names if (found := watch(evaluations, name, rule)) is not None]


def over_optimised(evidence: RunEvidence, rule: Watch | None = None) -> Finding | None:
    """Whether an alarm went off, and from which step on less would have been more; None where nothing was followed."""
    rule = rule or Watch()
    found = alarms(evidence, rule)
    if not found:
        return None
    looks = len(lines(evidence, "eval"))
    went = sorted((one for one in found if one.raised is not None), key=lambda one: one.raised or 0)
    numbers = {"evaluations": looks, **{f"drop of {one.name}": one.drop for one in found}}
    if not went:
        if looks <= rule.patience:
            said = f"Too few evaluations ({looks}) to tell; the alarm needs more than {rule.patience}."
        else:
            said = f"Neither mass nor entropy of the most probable tokens fell by {rule.tolerance:.0%} from the best of {looks} "
            said = said.replace("%", " %") + "evaluations: no sign that likelihood was optimised too far."
        return Finding(WORD, False, said, numbers)
    first = went[0]
    fallen = joined(list({one.name: told(one.name) for one in went}.values()))
    said = (
        f"It may be: by step {first.raised} {fallen} had fallen by more than {100 * rule.tolerance:.0f} % since step {first.best}, "
        f"the best evaluation before, and unseen pairs were no better for it. Stopping at step {first.best} would have lost "
        f"nothing that held-out accuracy shows{kept(evidence, first.best)}. Look at the samples before you do."
    )
    return Finding(WORD, True, said, {"stop_at": first.best, "alarm_at": first.raised, **numbers})


def told(name: str) -> str:
    """A column in words."""
    what, k, side = name.split("/")[0], name.split("/")[1], name.rpartition("/")[2]
    measure = "the probability" if what == "mass" else "the entropy"
    return f"{measure} of the {k} most probable tokens on {side} responses"


def joined(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def kept(evidence: RunEvidence, step: int) -> str:
    """Which checkpoint is nearest to a step, as far as the settings say what was kept."""
    every, keep = evidence.settings.get("save_every"), evidence.settings.get("keep")
    last = max((line["step"] for line in lines(evidence, "step")), default=0)
    if not isinstance(every, int) or not isinstance(keep, int) or not every or not last:
        return ""
    nearest = nearest_kept(step, last, every, keep)
    if nearest is None:
        return f"; its checkpoint is gone (of {last // every} the newest {keep} were kept: --keep says how many)"
    return f"; the checkpoint of step {nearest} is kept"


def nearest_kept(step: int, last: int, every: int, keep: int) -> int | None:
    """The newest checkpoint at or before `step` of a run of `last` steps that saved every `every` and keeps the newest `keep`."""
    saved = sorted({*range(every, last + 1, every), last})[-keep:]
    return max((at for at in saved if at <= step), default=None)

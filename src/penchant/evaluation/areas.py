"""How much of the plane of reward and KL each objective of a comparison wins, over all its grid points at once. It tests nothing:
who is best is decided elsewhere, at one point each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from penchant.evaluation.compared import Compared
from penchant.evaluation.comparison import student
from penchant.evaluation.frontier import hypervolume
from penchant.evaluation.measures import Measure
from penchant.evaluation.statistics import Estimate

BEYOND = 1.1
"""How far the corner lies beyond the largest KL, so that the run that went furthest wins something too."""


@dataclass(frozen=True)
class Areas:
    """Areas against one corner for all, the largest first."""

    by: dict[str, Estimate]
    """By contender the mean over its seeds, with Student's interval; reward times nats. n counts seeds."""
    least: float
    """The corner's reward: the start's, or for shares a half where each objective has a start of its own."""
    far: float
    """The corner's KL: a tenth beyond the largest of any run."""
    measure: Measure

    def to_json(self) -> dict[str, Any]:
        return {"least": self.least, "far": self.far, "areas": {name: one.to_json() for name, one in self.by.items()}}


def areas(found: Compared) -> Areas | None:
    """None where KL, or where a comparison begins, was not measured. The corner depends on who is compared: areas of two
    comparisons cannot be held against each other."""
    reward = found.primary
    kl = next((measure for measure in found.measures if measure.key == "kl"), None)
    if reward is None or kl is None or reward is kl:
        return None
    start = found.start(reward)
    least = start.prompts.value if start is not None else 0.5 if reward.unit == "%" else None
    if least is None:
        return None
    points: dict[str, dict[int, list[tuple[float, float]]]] = {}
    for arm in found.arms:
        across, up = arm.readings(kl), arm.readings(reward)
        if across is None or up is None:
            continue
        each = [one.measured.values.mean(1).tolist() for one in (across, up)]
        for seed, x, y in zip(across.seeds, *each, strict=True):
            points.setdefault(arm.contender, {}).setdefault(seed, []).append((x, y))
    if not points:
        return None
    far = BEYOND * max(x for seeds in points.values() for some in seeds.values() for x, _ in some)
    by = {name: student([hypervolume(some, (far, least)) for some in seeds.values()]) for name, seeds in points.items()}
    by = {name: Estimate(one.value, max(0.0, one.low), one.high, one.n) for name, one in by.items()}
    return Areas(dict(sorted(by.items(), key=lambda pair: -pair[1].value)), least, far, reward)

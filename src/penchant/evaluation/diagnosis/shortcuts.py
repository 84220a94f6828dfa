"""Trivial predictors: how often the longer, the more polite, the first … is the chosen one. A shortcut is what a model can
learn instead of what was meant; whether it was meant, the numbers do not say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penchant.evaluation.diagnosis.features import MEASURES
from penchant.evaluation.significance import holm
from penchant.evaluation.statistics import Estimate, share, sign_test

Floats = NDArray[np.float64]

FIRST = "stands first"
"""The predictor that reads no text."""
STRONG = 0.65
"""Right so often among all pairs, a tie counting half, a trivial predictor is called a shortcut."""


@dataclass(frozen=True)
class Shortcut:
    """One trivial predictor: "prefer the one with more of it"."""

    name: str
    accuracy: Estimate
    """Among the pairs it tells apart."""
    decides: float
    """The share of pairs it tells apart."""
    p: float
    """Of no connection, by an exact sign test over prompts, corrected for the number of predictors (Holm 1979)."""

    @property
    def overall(self) -> float:
        """The share of all pairs it gets right, for or against, guessing where it cannot tell."""
        return 0.5 + self.decides * abs(self.accuracy.value - 0.5)

    @property
    def surely(self) -> bool:
        return self.p < 0.05

    @property
    def strong(self) -> bool:
        return self.surely and self.overall >= STRONG

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "accuracy": self.accuracy.to_json(), "decides": self.decides, "p_holm": self.p}


def shortcuts(gaps: Floats, groups: Sequence[Any], first: Floats | None = None) -> list[Shortcut]:
    """All trivial predictors, the best first. `gaps`: [pairs, measures], chosen − rejected; `first`: how much earlier the
    chosen stood, 0 where nobody knows."""
    names, columns = list(MEASURES), list(gaps.T)
    if first is not None:
        names, columns = [*names, FIRST], [*columns, first]
    _, which = np.unique(np.asarray(groups), return_inverse=True)
    found: list[tuple[str, Estimate, float, float]] = []
    for name, gap in zip(names, columns, strict=True):
        told = np.flatnonzero(gap)
        if not len(told):
            continue
        accuracy = share((gap[told] > 0).astype(float).tolist(), which[told].tolist())
        net = np.bincount(which[told], weights=np.sign(gap[told]))  # one voice per prompt
        found.append((name, accuracy, len(told) / len(gap), sign_test(net.tolist())))
    adjusted = holm([p for *_, p in found])
    out = [Shortcut(name, accuracy, told, p) for (name, accuracy, told, _), p in zip(found, adjusted, strict=True)]
    return sorted(out, key=lambda one: -one.overall)

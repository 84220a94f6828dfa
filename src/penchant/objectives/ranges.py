"""The numbers that a field of an objective allows, as types to write beside it. Nothing is checked here: base.py refuses a
value outside its range when the objective is made."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated


@dataclass(frozen=True)
class Range:
    """The numbers a field allows, written as an interval."""

    low: float = -math.inf
    high: float = math.inf
    open_low: bool = False
    open_high: bool = False

    def __contains__(self, x: float | int) -> bool:
        if isinstance(x, int) and abs(x) > 2**1000:  # no float can hold it
            return False
        above = x > self.low if self.open_low else x >= self.low
        below = x < self.high if self.open_high else x <= self.high
        return math.isfinite(x) and above and below

    def __str__(self) -> str:
        left = "(" if self.open_low or math.isinf(self.low) else "["
        right = ")" if self.open_high or math.isinf(self.high) else "]"
        return f"{left}{self.low:g}, {self.high:g}{right}"


Positive = Annotated[float | int, Range(0.0, open_low=True)]
NonNegative = Annotated[float | int, Range(0.0)]
Real = Annotated[float | int, Range()]
Flip = Annotated[float | int, Range(0.0, 0.5, open_high=True)]
"""A share of wrong labels, in [0, 0.5): at 0.5 a label says nothing."""
Fraction = Annotated[float | int, Range(0.0, 1.0, open_low=True)]
Share = Annotated[float | int, Range(0.0, 1.0)]

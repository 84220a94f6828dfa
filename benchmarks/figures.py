"""What a benchmark says: figures with their targets, and times taken in turns. It knows no model and no other library."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Figure:
    """One number, and what was hoped of it."""

    name: str
    value: float
    """The median over rounds; of a comparison the median of the rounds' own ratios."""
    unit: str = "×"
    at_least: float | None = None
    at_most: float | None = None
    stretch: float | None = None
    ours: float | None = None
    peer: float | None = None
    """The two sides of a comparison, medians, in `sides`."""
    sides: str = "CPU s"
    low: float | None = None
    high: float | None = None
    """The smallest and the largest round."""
    rounds: int = 1
    note: str = ""

    @property
    def reached(self) -> str:
        """How it stands to its target, in a word or two."""
        if self.at_least is None and self.at_most is None:
            return "no target"
        beyond = self.value >= self.at_least if self.at_least is not None else self.value <= (self.at_most or 0.0)
        if not beyond:
            wanted = self.at_least if self.at_least is not None else self.at_most
            return f"missed by {abs(self.value / (wanted or 1.0) - 1):.0%}"
        if self.stretch is None:
            return "reached"
        further = self.value >= self.stretch if self.at_least is not None else self.value <= self.stretch
        return "reached, stretch too" if further else "reached"

    def to_json(self) -> dict[str, Any]:
        return {k: _short(v) for k, v in asdict(self).items() if v is not None and v != ""}

    @classmethod
    def of(cls, made: Mapping[str, Any]) -> Figure:
        return cls(**made)


def _short(x: Any) -> Any:
    """Four digits: no time is known better."""
    return float(f"{x:.4g}") if isinstance(x, float) else x


Seconds = dict[str, list[float]]
"""CPU seconds of each contestant, round after round."""


def in_turns(
    contestants: Mapping[str, Callable[[], object]], rounds: int, warm: Sequence[str] | None = None, say: bool = True
) -> Seconds:
    """Every contestant once a round, in order, in this process, on its one thread: what slows the machine for a while
    slows all. A first round of those in `warm` (None: all) is not counted. Garbage is collected outside the times."""
    seconds: Seconds = {name: [] for name in contestants}
    for k in range(rounds + 1):
        for name, act in contestants.items():
            if k == 0 and warm is not None and name not in warm:
                continue
            gc.collect()
            started = time.process_time()
            act()
            took = time.process_time() - started
            if say:
                print(f"  {'warm-up' if k == 0 else f'round {k}'}, {name}: {took:.3g} CPU s", flush=True)
            if k:
                seconds[name].append(took)
    return seconds


def ratio(seconds: Seconds, peer: str, ours: str, name: str, **targets: Any) -> Figure:
    """How many times as long the peer takes, round by round."""
    each = [a / b for a, b in zip(seconds[peer], seconds[ours], strict=True)]
    middle = statistics.median
    return Figure(
        name,
        middle(each),
        ours=middle(seconds[ours]),
        peer=middle(seconds[peer]),
        low=min(each),
        high=max(each),
        rounds=len(each),
        **targets,
    )


# --- the table

COLUMNS = ("figure", "target", "stretch", "ours", "peer", "result", "range", "")


def table(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """All figures as a Markdown table."""
    lines = [" | ".join(["", *COLUMNS, ""]).strip(), "|" + " --- |" * len(COLUMNS)]
    for row in rows.values():
        for made in row["figures"]:
            lines.append("| " + " | ".join(_cells(Figure.of(made))) + " |")
    return "\n".join(lines)


def _cells(f: Figure) -> list[str]:
    wanted, sign = (f.at_least, "≥") if f.at_least is not None else (f.at_most, "≤")
    side = lambda x: "" if x is None else f"{shown(x)} {f.sides}"  # noqa: E731
    return [
        f.name,
        "" if wanted is None else f"{sign} {with_unit(wanted, f.unit)}",
        "" if f.stretch is None else with_unit(f.stretch, f.unit),
        side(f.ours),
        side(f.peer),
        f"**{with_unit(f.value, f.unit)}**",
        "" if f.low is None or f.high is None else f"{shown(f.low, f.unit)} to {shown(f.high, f.unit)}",
        f.reached,
    ]


def with_unit(x: float, unit: str) -> str:
    return f"{shown(x, unit)} {unit}".strip() if unit != "×" else f"{shown(x)}×"


def shown(x: float, unit: str = "") -> str:
    """Three digits; small numbers as powers of ten."""
    if unit == "%":
        return f"{x:.0f}"
    if x and abs(x) < 1e-2:
        return f"{x:.1e}"
    return f"{x:.3g}" if abs(x) < 1000 else f"{x:,.0f}"

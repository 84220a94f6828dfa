"""How those who answered stand to each other: rated where there are three or more, and with length and markdown held equal. The
fits are in evaluation/tournament.py and evaluation/style_control.py; what cannot be fitted is said."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from penchant.errors import Refusal
from penchant.evaluation.comparisons import Comparison
from penchant.evaluation.style_control import StyleControl, style_controlled
from penchant.evaluation.tournament import Ratings, bradley_terry

Fit = TypeVar("Fit")

NAMELESS = re.compile(r"chosen|rejected|answer \d+")
"""What answers are called that came without a name of who gave them."""


def named(comparisons: Sequence[Comparison]) -> list[str]:
    """Who answered, in the order of their coming; nobody where answers have no names of their own."""
    names = list(dict.fromkeys(name for c in comparisons for name in (c.a, c.b)))
    return [] if any(NAMELESS.fullmatch(name) for name in names) else names


@dataclass(frozen=True)
class Standing:
    """The fits that could be made."""

    ratings: Ratings | None
    """Of three or more."""
    style: StyleControl | None
    """Against the one named last."""
    unknown: tuple[str, ...]
    """What could not be fitted, and why."""

    def lines(self) -> list[str]:
        said = []
        if self.ratings is not None:
            said.append("rated (Bradley-Terry on Elo's scale, 1,000 is the mean):")
            for name, one in zip(self.ratings.names, self.ratings.elo, strict=True):
                said.append(f"  {name}: {one.number()}, n = {one.n:,}")
        if self.style is not None:
            said.append(f"preferred to {self.style.baseline} if length, headers, lists and bold were alike:")
            for one in self.style.scores:
                said.append(f"  {one.name}: {one.no_difference.percent()}, as it is {one.raw.percent()}, n = {one.raw.n:,}")
            effects = "; ".join(f"{name} {one.number(signed=True)}" for name, one in self.style.effects.items())
            said.append(f"  log-odds of one standard deviation more: {effects or 'no style differs'}")
        return said + list(self.unknown)

    def to_json(self) -> dict[str, Any]:
        rated = None
        if self.ratings is not None:
            both = zip(self.ratings.names, self.ratings.elo, self.ratings.strength, strict=True)
            rated = [{"name": n, "elo": elo.to_json(), "strength": theta.to_json()} for n, elo, theta in both]
        style = None
        if self.style is not None:
            scores = [
                {"name": one.name, "raw": one.raw.to_json(), "no_difference": one.no_difference.to_json()}
                for one in self.style.scores
            ]
            effects = {name: one.to_json() for name, one in self.style.effects.items()}
            style = {"baseline": self.style.baseline, "scores": scores, "effects": effects}
        return {"arena_score": rated, "style_held_equal": style, "unknown": list(self.unknown)}


def standing(comparisons: Sequence[Comparison]) -> Standing | None:
    """None for answers without names, or of one alone."""
    names = named(comparisons)
    if len(names) < 2:
        return None
    unknown: list[str] = []

    def fitted(what: str, fit: Callable[[], Fit]) -> Fit | None:
        try:
            return fit()
        except Refusal as no:
            unknown.append(f"{what} not known: {no}")
            return None

    ratings = fitted("ratings are", lambda: bradley_terry(comparisons)) if len(names) > 2 else None
    style = fitted("preferences with style held equal are", lambda: style_controlled(comparisons, names[-1]))
    return Standing(ratings, style, tuple(unknown))

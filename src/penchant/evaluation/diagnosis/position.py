"""Whether the one shown first wins more often: over all comparisons, and for each person who labelled. It needs a record of who
stood first; where the data has none, nothing can be said, and that is said."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from penchant.evaluation.diagnosis.material import Comparison, Material
from penchant.evaluation.diagnosis.people import FEWEST
from penchant.evaluation.significance import holm
from penchant.evaluation.statistics import Estimate, share, sign_test


@dataclass(frozen=True)
class Place:
    """How often the first one wins, for all or for one person; ½ without a liking for a place."""

    name: str | None
    """The annotator; None for all comparisons together."""
    first: Estimate
    p: float
    """Of no liking for a place, by an exact sign test over prompts, corrected for the number of tests (Holm 1979)."""

    @property
    def surely(self) -> bool:
        return self.p < 0.05

    def to_json(self) -> dict[str, Any]:
        return {"annotator": self.name, "first": self.first.to_json(), "p_holm": self.p}


@dataclass(frozen=True)
class Position:
    """The liking for a place, so far as places are recorded."""

    of: Literal["shown", "list"]
    """shown: the column shown_first says who stood first. list: the order of the responses in their list."""
    all: Place
    people: tuple[Place, ...]
    """Those with labels enough, the furthest from ½ first."""

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "all": self.all.to_json(), "people": [one.to_json() for one in self.people]}


def position(material: Material) -> Position | None:
    """None where no comparison says where its two sides stood."""
    known = [one for one in material.comparisons if one.places is not None]
    if not known:
        return None
    by: dict[str | None, list[Comparison]] = {None: known}
    for one in known:
        if one.annotator is not None:
            by.setdefault(one.annotator, []).append(one)
    found = [(name, *_first(some)) for name, some in by.items() if name is None or len(some) >= FEWEST]
    adjusted = holm([p for *_, p in found])
    places = [Place(name, estimate, p) for (name, estimate, _), p in zip(found, adjusted, strict=True)]
    people = sorted(places[1:], key=lambda one: -abs(one.first.value - 0.5))
    return Position("list" if material.in_lists else "shown", places[0], tuple(people))


def _first(some: list[Comparison]) -> tuple[Estimate, float]:
    """(share in which the first one won, p): every prompt has one voice in the test."""
    won = np.array([float(one.places[0] < one.places[1]) for one in some if one.places is not None])
    keys, which = np.unique([one.key for one in some], return_inverse=True)
    net = np.bincount(which, weights=2 * won - 1, minlength=len(keys))
    return share(won.tolist(), which.tolist()), sign_test(net.tolist())

"""What an objective remembers, as numbers by name: for the metrics of a step, and as a whole at the end of a run.
What of its state a person should see, the objective says; how it is shown is the report's business."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

FEW = 6
"""Up to so many categories, each has a metric of its own; of more there are the lowest, the median and the highest."""


def followed(shown: Mapping[str, Tensor], levels: Mapping[str, Sequence[str]]) -> dict[str, float]:
    """The metrics of a step: "state/<name>" for a number, "state/<name>/<category>" for one per category. levels: the
    categories' names by column."""
    out: dict[str, float] = {}
    for name, x in shown.items():
        title, names = _column(name, levels)
        values = x.flatten().tolist()
        if not names:
            out |= {f"state/{title}": value for value in values[:1] if len(values) == 1}
        elif len(values) <= FEW:
            out |= {f"state/{title}/{one}": value for one, value in zip(names, values, strict=True)}
        else:
            ranked = sorted(values)
            picked = {"lowest": ranked[0], "median": ranked[len(ranked) // 2], "highest": ranked[-1]}
            out |= {f"state/{title}/{which}": value for which, value in picked.items()}
    return out


def whole(shown: Mapping[str, Tensor], levels: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Everything shown of the state: numbers by name, and "name/column" as a number for each category by its name; None
    where it is not finite."""
    out: dict[str, Any] = {}
    for name, x in shown.items():
        names = _column(name, levels)[1]
        values = [value if math.isfinite(value) else None for value in x.flatten().tolist()]
        if names:
            out[name] = dict(zip(names, values, strict=True))
        elif len(values) == 1:
            out[name] = values[0]
    return out


def _column(name: str, levels: Mapping[str, Sequence[str]]) -> tuple[str, Sequence[str]]:
    """ "reliability/annotator" as "reliability" and the annotators' names; another name as it is, without names."""
    title, _, column = name.rpartition("/")
    return (title, levels[column]) if title and column in levels else (name, ())

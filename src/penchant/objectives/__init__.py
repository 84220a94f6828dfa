"""What to optimise: one small file per method. Every objective in this folder is found by itself; nothing is registered."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from typing import Any

from penchant.errors import nearest
from penchant.objectives.base import Needs, Objective, Paired, Sum
from penchant.objectives.listwise import Listwise
from penchant.objectives.scored import Batch, Labelled, Lists, Pairs, Rollouts, Scored
from penchant.objectives.wrapper import Wrapper

__all__ = [
    "Batch",
    "Labelled",
    "Lists",
    "Listwise",
    "Needs",
    "Objective",
    "Paired",
    "Pairs",
    "Rollouts",
    "Scored",
    "Sum",
    "Wrapper",
    "catalogue",
    "describe",
    "known",
    "read",
]  # fmt: skip


@cache
def catalogue() -> dict[str, type[Objective]]:
    """Every method in this folder by name: the dataclasses defined in its files."""
    found: dict[str, type[Objective]] = {}
    for module in pkgutil.iter_modules(__path__):
        if module.name in ("base", "composed", "listwise", "regressed", "scored", "reader", "describe", "wrapper"):
            continue
        namespace = vars(importlib.import_module(f"{__name__}.{module.name}"))
        for name, thing in namespace.items():
            ours = (
                isinstance(thing, type) and issubclass(thing, Objective) and thing.__module__ == f"{__name__}.{module.name}"
            )
            if ours and not name.startswith("_"):
                found[name] = thing
    return dict(sorted(found.items(), key=lambda item: item[0].casefold()))


def known(name: str) -> list[str]:
    """The methods that go by this name in the field, their own or another, in any case: none, one or several (four papers
    call four things RPO)."""
    said = name.casefold()
    own = [method for method in catalogue() if method.casefold() == said]
    return own or [
        method for method, cls in catalogue().items() if said in {x.casefold() for x in vars(cls).get("known_as", ())}
    ]


from penchant.objectives.describe import describe  # noqa: E402
from penchant.objectives.reader import read  # noqa: E402


def __getattr__(name: str) -> Any:
    if name.startswith("_"):
        raise AttributeError(name)
    if name in catalogue():
        return catalogue()[name]
    raise AttributeError(f"penchant.objectives has no {name!r}; {nearest(name, catalogue())}")

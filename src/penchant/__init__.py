"""penchant aligns models with what people prefer. These names are its public face, kept stable; each is loaded when it is
first used, so that `import penchant` costs nothing."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from penchant.errors import Refusal, StoppedRun
    from penchant.objectives import Objective, Pairs, Scored
    from penchant.objectives.cdpo import CDPO
    from penchant.objectives.cpo import CPO
    from penchant.objectives.dpo import DPO
    from penchant.objectives.ipo import IPO
    from penchant.objectives.kto import KTO
    from penchant.objectives.nll import NLL
    from penchant.objectives.orpo import ORPO
    from penchant.objectives.reader import read as read_objective
    from penchant.objectives.simpo import SimPO
    from penchant.rewards.function import FunctionJudge
    from penchant.rewards.rules import LengthRepetition
    from penchant.rewards.vader import Vader
    from penchant.run import Run, align, compare

from penchant.version import __version__ as __version__

__all__ = [
    "CDPO",
    "CPO",
    "DPO",
    "IPO",
    "KTO",
    "NLL",
    "ORPO",
    "FunctionJudge",
    "LengthRepetition",
    "Objective",
    "Pairs",
    "Refusal",
    "Run",
    "Scored",
    "SimPO",
    "StoppedRun",
    "Vader",
    "align",
    "compare",
    "read_objective",
]

_HOMES = {
    "penchant.run": ("align", "compare", "Run"),
    "penchant.objectives": ("Objective", "Pairs", "Scored", "CDPO", "CPO", "DPO", "IPO", "KTO", "NLL", "ORPO", "SimPO"),
    "penchant.rewards.function": ("FunctionJudge",),
    "penchant.rewards.rules": ("LengthRepetition",),
    "penchant.rewards.vader": ("Vader",),
    "penchant.errors": ("Refusal", "StoppedRun"),
}
"""Where each name lives. A new method is reached by `penchant.objectives.Foo` and by its name in a recipe without a line
here."""


def __getattr__(name: str) -> Any:
    if name == "read_objective":
        return importlib.import_module("penchant.objectives.reader").read
    for home, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(home), name)
    raise AttributeError(f"module 'penchant' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]

"""What people said: records, reading, checking, pairing. It knows rows and files, no tokenizer and no model."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from penchant.feedback.checking import CheckReport, check
    from penchant.feedback.goals import Goals, relabel
    from penchant.feedback.pairing import convert, pair
    from penchant.feedback.problems import DataRefusal
    from penchant.feedback.reading import Source, open_source
    from penchant.feedback.splitting import split
    from penchant.feedback.writing import write_rows

_HOMES = {
    "CheckReport": "checking",
    "Goals": "goals",
    "check": "checking",
    "convert": "pairing",
    "pair": "pairing",
    "DataRefusal": "problems",
    "Source": "reading",
    "open_source": "reading",
    "relabel": "goals",
    "split": "splitting",
    "write_rows": "writing",
}

__all__ = [
    "CheckReport",
    "DataRefusal",
    "Goals",
    "Source",
    "check",
    "convert",
    "open_source",
    "pair",
    "relabel",
    "split",
    "write_rows",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"penchant.feedback has no {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)

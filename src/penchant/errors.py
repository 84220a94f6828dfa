"""The one way penchant says no: a sentence that names the thing, its value, what is allowed and the mend.
It is not a place for warnings: a number that cannot be trusted stops the run."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class Refusal(ValueError):
    """An input, setting or result penchant will not go on with. The message is written for the person at the keyboard."""

    exit_code = 2


class StoppedRun(RuntimeError):
    """A run that was stopped because its numbers cannot be trusted (non-finite loss, policy unequal to its reference)."""

    exit_code = 3


class LostRank(RuntimeError):
    """Another process of the run has gone, or did not come in time. The message names it and what it was doing."""

    exit_code = 6


def nearest(name: str, options: Iterable[str]) -> str:
    """The end of a refusal: the closest valid name where there is one, else all of them."""
    options = sorted(options)
    folded = {option.casefold(): option for option in reversed(options)}
    close = difflib.get_close_matches(name.casefold(), folded, n=1, cutoff=0.6)
    if close:
        return f"did you mean {folded[close[0]]!r}?"
    return f"valid are {', '.join(options)}."

"""Held-out rows, chosen by prompt: no prompt stands on both sides; or by row, where prompts are a few classes or tasks. It looks at
hashes only, so it works for any size."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Literal, Protocol

import numpy as np

from penchant.errors import Refusal


class Prompted(Protocol):
    """What can be split: rows with a prompt key each. A Source is one."""

    @property
    def name(self) -> str: ...

    @property
    def prompt_keys(self) -> Sequence[int]: ...

    @property
    def row_keys(self) -> Sequence[int]: ...


By = Literal["prompt", "row"]


def split(source: Prompted, held_out: float | int, seed: int, by: By = "prompt") -> tuple[list[int], list[int]]:
    """(training indices, held-out indices), each rising. `held_out` counts prompts, since a prompt is what is new to a
    model: a share of the distinct prompts below 1, or their number as a whole number. by: "row" counts distinct rows instead.

    Every distinct prompt draws a number from its own hash and the seed, and the lowest are held out. So the sides depend on
    content and seed alone, not on the order of the rows, and as a file grows hardly any prompt changes sides.

    Raises Refusal where either side would be without a prompt.
    """
    found = source.prompt_keys if by == "prompt" else source.row_keys
    keys, where = np.unique(np.asarray(found, dtype=np.uint64), return_inverse=True)
    mend = "" if by == "row" or len(keys) > 1 else " Rows of one prompt are split by --split row."
    n = len(keys)
    whole = isinstance(held_out, int) and not isinstance(held_out, bool)
    if whole:
        if held_out < 1:
            raise Refusal(f"held_out = {held_out}: must be at least one {by}, or a share between 0 and 1.")
        if held_out >= n:
            raise Refusal(
                f"held_out = {held_out} of the {n} distinct {by}s of {source.name} leaves none to train on; hold out at "
                f"most {max(n - 1, 0)}, or give more {by}s.{mend}"
            )
    elif not isinstance(held_out, float) or not 0 < held_out < 1:
        raise Refusal(f"held_out = {held_out!r}: must be a share between 0 and 1, or a whole number of {by}s.")
    elif held_out * n < 1 or n - round(held_out * n) < 1:
        side = "held out" if held_out * n < 1 else "to train on"
        raise Refusal(
            f"held_out = {held_out} of the {n} distinct {by}s of {source.name} leaves less than one {by} {side}; give "
            f"a whole number of {by}s, or more {by}s.{mend}"
        )
    count = int(held_out) if whole else round(held_out * n)
    salt = int.from_bytes(hashlib.blake2b(str(seed).encode(), digest_size=8).digest(), "little")
    drawn = np.argsort(_mixed(keys ^ np.uint64(salt)), kind="stable")[:count]
    aside = np.zeros(n, dtype=bool)
    aside[drawn] = True
    out = aside[where]
    return np.flatnonzero(~out).tolist(), np.flatnonzero(out).tolist()


def _mixed(x: np.ndarray) -> np.ndarray:
    """splitmix64's finaliser (Steele, Lea, Flood 2014): 64 bits to 64 well-mixed bits, one to one."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))

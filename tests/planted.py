"""Preferences with planted faults, whose truth is known: what a diagnosis is tried on. It is no test itself."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from typing import Any

WORDS = [f"w{i}" for i in range(80)]


def preferences(
    count: int,
    seed: int,
    *,
    flip: float | Mapping[str, float] = 0.0,
    surely: float = 3.0,
    length: float = 0.0,
) -> tuple[list[dict[str, Any]], set[int]]:
    """(rows, numbers of the rows whose label was turned). Texts are random words with a hidden worth each; who is preferred is
    Bradley-Terry's choice of `surely` times the difference in worth, and of `length` for each word more. `flip`: the share of
    labels that are turned, or that of each annotator."""
    draw = random.Random(seed)
    worth = {word: draw.gauss(0, 1) for word in WORDS}
    names: Sequence[str | None] = sorted(flip) if isinstance(flip, Mapping) else [None]
    rows, turned = [], set()
    for number in range(1, count + 1):
        a, b = (draw.choices(WORDS, k=draw.randint(8, 20)) for _ in range(2))
        gap = surely * (sum(map(worth.get, a)) - sum(map(worth.get, b))) / 4 + length * (len(a) - len(b))  # pyright: ignore
        chosen, rejected = (a, b) if draw.random() < 1 / (1 + math.exp(-gap)) else (b, a)
        name = names[number % len(names)]
        if draw.random() < (flip[name] if isinstance(flip, Mapping) and name else flip):  # pyright: ignore
            chosen, rejected = rejected, chosen
            turned.add(number)
        row = {"prompt": f"{draw.choice(WORDS)} {draw.choice(WORDS)} {draw.choice(WORDS)} {number} ?"}
        row |= {"chosen": " ".join(chosen), "rejected": " ".join(rejected)}
        rows.append(row if name is None else {**row, "annotator": name})
    return rows, turned

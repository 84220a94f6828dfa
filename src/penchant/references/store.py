"""log π_ref of every response of a data set, computed once and kept on disk by content, so that a run that was killed half
way, or another run on the same rows, does not compute it again. It holds numbers and knows no model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from penchant.files import write
from penchant.objectives.scored import masks

PART = 128
"""Rows in one file, and so the most that a kill can cost."""


class Store:
    """The reference log-probs of a data set, by row.

    counts: responses of each row. lengths: steps of each response, flat in row order. keys: a name by content for each.
    """

    def __init__(self, counts: Sequence[int], lengths: Sequence[int], keys: Sequence[str]) -> None:
        self._lengths, self._keys = list(lengths), list(keys)
        self._logp: list[Tensor | None] = [None] * len(self._lengths)
        self._starts = [0]
        for n in counts:
            self._starts.append(self._starts[-1] + n)

    def __call__(self, rows: Sequence[int]) -> Tensor:
        """log π_ref of the responses of these rows, [n, steps], pads 0."""
        places = self._places(rows)
        mask = masks([self._lengths[j] for j in places])
        out = torch.zeros(mask.shape)
        out[mask] = torch.cat([cast(Tensor, self._logp[j]) for j in places])
        return out

    @property
    def missing(self) -> list[int]:
        """Rows with a response not yet scored."""
        return [i for i in range(len(self._starts) - 1) if any(self._logp[j] is None for j in self._places([i]))]

    def put(self, rows: Sequence[int], logp: Tensor) -> None:
        """log π_ref of the responses of these rows, [n, steps or more]."""
        for j, row in zip(self._places(rows), logp, strict=True):
            self._logp[j] = row[: self._lengths[j]].detach().to("cpu", torch.float32).clone()

    def recall(self, folder: Path) -> None:
        """Takes what earlier runs left in the folder."""
        wanted: dict[str, list[int]] = {}
        for j, key in enumerate(self._keys):
            wanted.setdefault(key, []).append(j)
        for part in sorted(folder.glob("part-*.safetensors")):
            tensors = load_file(part)
            pieces = torch.split(tensors["logp"], tensors["length"].tolist())
            for key, logp in zip(tensors["key"].tolist(), pieces, strict=True):
                for j in wanted.get(bytes(key).hex(), ()):
                    self._logp[j] = logp.clone()

    def keep(self, rows: Sequence[int], folder: Path) -> None:
        """Leaves the responses of these rows in the folder, whole or not at all."""
        places = self._places(rows)
        logp = [cast(Tensor, self._logp[j]) for j in places]
        tensors = {
            "logp": torch.cat(logp),
            "length": torch.tensor([len(x) for x in logp]),
            "key": torch.tensor([list(bytes.fromhex(self._keys[j])) for j in places], dtype=torch.uint8),
        }
        write(folder / f"part-{self._keys[places[0]]}.safetensors", save(tensors))

    def forget(self, rows: Sequence[int]) -> None:
        """Drops what is known of these rows."""
        for j in self._places(rows):
            self._logp[j] = None

    def exchange(self, rows: Sequence[int], gather: Callable[[Tensor], Tensor]) -> None:
        """Gets the other ranks' share of these rows; `gather` sums a tensor over all ranks."""
        places = self._places(rows)
        lengths = [self._lengths[j] for j in places]
        table = torch.zeros(sum(lengths))
        for j, piece in zip(places, torch.split(table, lengths), strict=True):
            if (mine := self._logp[j]) is not None:
                piece.copy_(mine)
        for j, piece in zip(places, torch.split(gather(table), lengths), strict=True):
            self._logp[j] = piece.clone()

    def _places(self, rows: Sequence[int]) -> list[int]:
        return [j for i in rows for j in range(self._starts[i], self._starts[i + 1])]


def fill(
    store: Store,
    score: Callable[[Sequence[int]], Tensor],
    groups: Sequence[Sequence[int]],
    *,
    folder: Path | None = None,
    gather: Callable[[Tensor], Tensor] = lambda x: x,
    rank: int = 0,
    world: int = 1,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Scores the rows the store is missing, in the groups they would have if all were missing: rounding differs from group
    to group, and a run killed half way must go on with the same numbers.

    score: rows → log π_ref of their responses, [n, steps], without gradient.
    groups: all rows in the groups that are scored at once (the engine's micro-batches).
    folder: where parts are kept, named by everything log π_ref depends on except the rows; None keeps nothing.
    gather, rank, world: each rank scores its share and gets the others'.
    """
    if folder is not None:
        store.recall(folder)
    lacks = set(store.missing)
    absent = torch.tensor([float(not lacks.isdisjoint(group)) for group in groups])
    # A rank that reads the folder a moment later finds more there: what any rank lacks, all count as missing.
    todo = [group for group, n in zip(groups, (gather(absent) if world > 1 else absent).tolist(), strict=True) if n]
    missing = [i for group in todo for i in group]
    store.forget(missing)
    mine, fresh, done = todo[rank::world], [], 0
    for group in mine:
        store.put(group, score(group))
        done += len(group)
        progress(done, sum(map(len, mine)))
        fresh += group
        if folder is not None and len(fresh) >= PART:
            store.keep(fresh, folder)
            fresh = []
    if folder is not None and fresh:
        store.keep(fresh, folder)
    if world > 1 and missing:
        store.exchange(missing, gather)

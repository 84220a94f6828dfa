"""log π_ref of every response of a data set, computed once and kept on disk by content, so that a run that was killed half
way, or another run on the same rows, does not compute it again. It holds numbers and knows no model."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from penchant.files import write
from penchant.objectives.scored import masks

SHARD = 128
"""Rows in one file, and so about the most that a kill can cost."""

Group = Sequence[int]
"""Rows that are scored at once."""
Shard = Sequence[Group]
"""Groups that are kept in one file."""


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

    def recall(self, folder: Path, plan: Sequence[Shard]) -> None:
        """Takes what earlier runs left of this plan in the folder. A file that is not what was written is not there."""
        for shard in plan:
            places = self._inside(shard)
            lengths = [self._lengths[j] for j in places]
            whole = _read(folder / self._name(shard))
            if whole is not None and len(whole) == sum(lengths):
                for j, logp in zip(places, torch.split(whole, lengths), strict=True):
                    self._logp[j] = logp.clone()

    def keep(self, shard: Shard, folder: Path) -> None:
        """Leaves a shard in the folder, whole or not at all."""
        logp = torch.cat([cast(Tensor, self._logp[j]) for j in self._inside(shard)])
        write(folder / self._name(shard), save({"logp": logp, "sum": _sum(logp)}))

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

    def forget(self, rows: Sequence[int]) -> None:
        """Drops what is known of these rows."""
        for j in self._places(rows):
            self._logp[j] = None

    def _name(self, shard: Shard) -> str:
        """By content: every response in it and which were scored at once, for rounding differs from group to group. So a
        number never hangs on what another plan has left in the folder."""
        told = "/".join(",".join(self._keys[j] for j in self._places(group)) for group in shard)
        return f"shard-{hashlib.sha256(told.encode()).hexdigest()[:32]}.safetensors"

    def _inside(self, shard: Shard) -> list[int]:
        return self._places([i for group in shard for i in group])

    def _places(self, rows: Sequence[int]) -> list[int]:
        return [j for i in rows for j in range(self._starts[i], self._starts[i + 1])]


def _read(path: Path) -> Tensor | None:
    """A shard's log-probs; None where there is no such file, or a disk gives back other bytes than it was given."""
    try:
        told = load_file(path)
    except (FileNotFoundError, SafetensorError):
        return None
    if told.keys() != {"logp", "sum"} or not torch.equal(told["sum"], _sum(told["logp"])):
        return None
    return told["logp"]


def _sum(logp: Tensor) -> Tensor:
    """SHA-256 of the numbers, [32]."""
    return torch.tensor(list(hashlib.sha256(logp.contiguous().numpy().tobytes()).digest()), dtype=torch.uint8)


def shards(groups: Sequence[Group]) -> list[Shard]:
    """The groups, file by file: a plan that hangs on the rows alone, however much of it is there already."""
    plan: list[list[Group]] = []
    rows = SHARD
    for group in groups:
        if rows >= SHARD:
            plan.append([])
            rows = 0
        plan[-1].append(group)
        rows += len(group)
    return list(plan)


def fill(
    store: Store,
    score: Callable[[Sequence[int]], Tensor],
    groups: Sequence[Group],
    *,
    folder: Path | None = None,
    gather: Callable[[Tensor], Tensor] = lambda x: x,
    rank: int = 0,
    world: int = 1,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Scores what is missing of the rows, shard by shard.

    score: rows → log π_ref of their responses, [n, steps], without gradient.
    groups: all rows in the groups that are scored at once (the engine's micro-batches).
    folder: where shards are kept, named by everything log π_ref depends on except the rows; None keeps nothing.
    gather, rank, world: each rank scores its share of the shards and gets the others'. All call `score` equally often.
    """
    plan = shards(groups)
    if folder is not None:
        store.recall(folder, plan)
    lacks = set(store.missing)
    absent = torch.tensor([float(any(not lacks.isdisjoint(group) for group in shard)) for shard in plan])
    # A rank that reads the folder a moment later finds more there: what any rank lacks, all count as missing.
    todo = [shard for shard, n in zip(plan, (gather(absent) if world > 1 else absent).tolist(), strict=True) if n]
    missing = [i for shard in todo for group in shard for i in group]
    store.forget(missing)
    shares = [todo[k::world] for k in range(world)]
    mine, done = shares[rank], 0
    total = sum(len(group) for shard in mine for group in shard)
    for shard in mine:
        for group in shard:
            store.put(group, score(group))
            done += len(group)
            progress(done, total)
        if folder is not None:
            store.keep(shard, folder)
    # A scorer that is split over ranks needs them all at every call: who has less to do calls it as often.
    calls = [sum(len(shard) for shard in share) for share in shares]
    for _ in range(max(calls) - calls[rank]):
        score(todo[0][0])
    if world > 1 and missing:
        store.exchange(missing, gather)

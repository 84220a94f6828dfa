"""Hidden states of rows, kept on disk by content and read where they lie, a row at a time. It knows no model and no text: a
row is a name, its states are a table, and what is missing was never a reason for another number."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from jaxtyping import Shaped
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from penchant.errors import Refusal
from penchant.files import fingerprint, write

Table = Shaped[Tensor, "tokens size"]


class States:
    """Tables of hidden states [tokens, size] by the names of their rows, 32 hexadecimal digits each. A shard is a file with
    the tables of some rows one after the other, whole or not there; other processes may add shards to the folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._seen: set[Path] = set()
        self._place: dict[str, tuple[Path, int, int]] = {}

    def get(self, name: str) -> Table | None:
        """The row's table, None where no shard has it. Only its own bytes are read. Raises Refusal for a damaged shard."""
        if name not in self._place:
            self._look()
        if name not in self._place:
            return None
        path, start, stop = self._place[name]
        try:
            with safe_open(path, "pt") as shard:  # memory-mapped
                return shard.get_slice("states")[start:stop]
        except FileNotFoundError:  # the cache was cleared meanwhile
            self._seen.discard(path)
            self._place = {name: place for name, place in self._place.items() if place[0] != path}
            return None
        except SafetensorError as error:
            raise _damaged(path) from error

    def keep(self, tables: Mapping[str, Table]) -> None:
        """Leaves the tables in a shard of their own, named by the rows it holds."""
        shard = {
            "states": torch.cat([x.cpu() for x in tables.values()]),
            "length": torch.tensor([len(x) for x in tables.values()]),
            "name": torch.tensor([list(bytes.fromhex(name)) for name in tables], dtype=torch.uint8),
        }
        write(self.folder / f"{fingerprint(*tables)}.safetensors", save(shard))

    def _look(self) -> None:
        """Learns which rows lie in shards that are new."""
        for path in sorted(set(self.folder.glob("*.safetensors")) - self._seen):
            try:
                with safe_open(path, "pt") as shard:
                    lengths, names = shard.get_tensor("length").tolist(), shard.get_tensor("name").tolist()
            except FileNotFoundError:
                continue
            except SafetensorError as error:
                raise _damaged(path) from error
            self._seen.add(path)
            start = 0
            for name, length in zip(names, lengths, strict=True):
                self._place[bytes(name).hex()] = (path, start, start + length)
                start += length


def _damaged(path: Path) -> Refusal:
    return Refusal(f"{path} is no whole file of hidden states; remove it, or clear them all: penchant cache clear trunks.")

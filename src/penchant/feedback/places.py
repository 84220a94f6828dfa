"""From what a caller names (a path, a hub id, a data set, rows in memory) to something rows can be fetched from.
It looks at names and files, not at rows."""

from __future__ import annotations

import difflib
import hashlib
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from penchant.errors import Refusal, nearest
from penchant.feedback.lines import Lines, array_of, begins_with_array, unpacked
from penchant.files import cache_folder
from penchant.words import plain

READABLE = ".jsonl, .jsonl.gz, .json (an array), .parquet, a folder saved by datasets, or a hub id org/name[:split]"
_HUB = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(:[\w.-]+)?")
_SHA = re.compile(r"[0-9a-f]{40}")


class Records(Protocol):
    """Raw rows that can be gone through once in order and then fetched one by one."""

    @property
    def blank(self) -> int: ...

    def scan(self) -> Iterator[tuple[int, int, Any]]: ...

    def reading(self) -> Any: ...


class Indexed(Protocol):
    """What can be gone through and asked for a row."""

    def __iter__(self) -> Iterator[Any]: ...

    def __getitem__(self, i: int, /) -> Any: ...


class Table:
    """Rows that already have places: a list, a `datasets.Dataset` (which stays on disk)."""

    blank = 0

    def __init__(self, rows: Indexed) -> None:
        self.rows = rows

    def scan(self) -> Iterator[tuple[int, int, Any]]:
        for i, row in enumerate(self.rows):
            yield i + 1, i, row

    @contextmanager
    def reading(self) -> Iterator[Callable[[int], Any]]:
        yield self.rows.__getitem__


class Stored:
    """Rows of a `datasets.Dataset`, as they are stored: pictures and sounds are not decoded, for a row may name any file of
    this machine, or any address, as the place of one."""

    blank = 0

    def __init__(self, rows: Any, name: str) -> None:
        self.rows = rows.with_format("arrow")
        self.name = name

    def scan(self) -> Iterator[tuple[int, int, Any]]:
        number = 0
        for start in range(0, len(self.rows), 1000):
            for row in self._plain(slice(start, start + 1000)):
                yield number + 1, number, row
                number += 1

    @contextmanager
    def reading(self) -> Iterator[Callable[[int], Any]]:
        yield lambda i: self._plain(slice(i, i + 1))[0]

    def _plain(self, which: slice) -> list[dict[str, Any]]:
        try:
            return self.rows[which].to_pylist()
        except (ValueError, OverflowError, ImportError, LookupError) as error:
            # a year that no calendar has, or a time zone that is nowhere, which two libraries say in two ways
            raise Refusal(
                f"{plain(self.name)} has a column that cannot be read ({plain(error, 200)}); take it out."
            ) from None


@dataclass
class Found:
    """What a name led to."""

    records: Records
    name: str
    revision: str | None = None
    notes: list[str] = field(default_factory=list)


def find(source: object) -> Found:
    """Opens what `source` names, without looking at rows yet."""
    if isinstance(source, (str, Path)):
        return _named(source)
    if type(source).__module__.split(".")[0] == "datasets":
        return _dataset(source, "data set in memory")
    if isinstance(source, Sequence) and not isinstance(source, bytes):
        return Found(Table(source), "rows in memory")
    raise Refusal(
        f"a source of rows cannot be {type(source).__name__}; give {READABLE}, a datasets.Dataset or a list of mappings."
    )


def _named(source: str | Path) -> Found:
    path = Path(os.path.expanduser(source))  # which leaves ~nobody as it is, where Path raises
    if path.is_dir():
        return _folder(path)
    if path.is_file():
        return _file(path)
    ending = path.suffix.casefold() in (".jsonl", ".json", ".gz", ".parquet", ".csv", ".tsv", ".txt", ".zst")
    if isinstance(source, str) and _HUB.fullmatch(source) and not ending and not path.parent.is_dir():
        return _hub(source)
    raise Refusal(_missing(path))


def _missing(path: Path) -> str:
    folder = path.parent
    if not folder.is_dir():
        return f"there is no file {plain(path)}: its folder {plain(folder)} is not there."
    names = sorted(entry.name for entry in folder.iterdir())
    close = difflib.get_close_matches(path.name, names, n=1, cutoff=0.5)
    hint = f"did you mean {plain(folder / close[0])}?" if close else f"{plain(folder)} holds nothing of a similar name."
    return f"there is no file {plain(path)}; {hint}"


def _file(path: Path) -> Found:
    name = path.name.casefold()
    if not os.access(path, os.R_OK):
        raise Refusal(f"{plain(path)} may not be read; give yourself the right to read it.")
    if path.stat().st_size == 0:
        raise Refusal(f"{plain(path)} is empty; it must hold at least one row.")
    if name.endswith((".jsonl.gz", ".ndjson.gz")):
        return Found(Lines(unpacked(path)), path.name, notes=["unpacked once into the cache folder"])
    if name.endswith((".jsonl", ".ndjson")):
        return Found(Lines(path), path.name)
    if name.endswith(".json"):
        return Found(Table(array_of(path)) if begins_with_array(path) else Lines(path), path.name)
    if name.endswith(".parquet"):
        return Found(Stored(_parquet(path), path.name), path.name)
    raise Refusal(f"{plain(path)} has an ending penchant does not read; it reads {READABLE}.")


def _parquet(path: Path) -> Any:
    """The file as a memory-mapped table; converted once, under a name by content, so that it is never stale."""
    import datasets
    import pyarrow.parquet
    from datasets.exceptions import DatasetGenerationError

    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    cache = cache_folder() / "parquet" / digest.hexdigest()[:32]
    try:
        if not pyarrow.parquet.read_metadata(path).num_rows:
            raise Refusal(f"{plain(path)} is empty; it must hold at least one row.")
        with _quietly():
            return datasets.Dataset.from_parquet(str(path), cache_dir=str(cache))
    except Refusal:
        raise
    except (pyarrow.ArrowException, DatasetGenerationError, ValueError, KeyError, TypeError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # a disk's, not the file's
            raise
        reason = error.__cause__ or error
        raise Refusal(f"{plain(path)} is no readable Parquet file ({plain(reason, 200)}).") from None


@contextmanager
def _quietly() -> Iterator[None]:
    """Without the progress bars of datasets, which have no place inside ours."""
    import datasets

    shown = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            datasets.enable_progress_bars()


def _folder(path: Path) -> Found:
    if (path / "dataset_dict.json").is_file():
        splits = sorted(entry.name for entry in path.iterdir() if entry.is_dir())
        raise Refusal(
            f"{plain(path)} holds several splits; name one: {', '.join(plain(path / split) for split in splits)}."
        )
    if (path / "state.json").is_file() and (path / "dataset_info.json").is_file():
        import datasets

        return _dataset(datasets.load_from_disk(str(path)), path.name)
    files = sorted(
        entry.name for entry in path.iterdir() if entry.name.endswith((".jsonl", ".jsonl.gz", ".json", ".parquet"))
    )
    hint = f"name one of its files: {', '.join(map(plain, files[:5]))}." if files else "it holds no data file either."
    raise Refusal(f"{plain(path)} is a folder, and not one saved by datasets; {hint}")


def _dataset(source: Any, name: str, revision: str | None = None) -> Found:
    import datasets

    if isinstance(source, (datasets.DatasetDict, datasets.IterableDatasetDict)):
        splits = ", ".join(repr(str(split)) for split in source)
        raise Refusal(f"the {name} has several splits ({splits}); give one of them.")
    if not isinstance(source, datasets.Dataset):
        raise Refusal(
            f"the {name} is a {type(source).__name__}, which cannot be read twice; give a datasets.Dataset (load it "
            "without streaming)."
        )
    return Found(Stored(source, name), name, revision)


def _hub(source: str) -> Found:
    """A data set of the hub, at a revision that is recorded. Code of the hub is never run."""
    import datasets
    from datasets.exceptions import DatasetNotFoundError
    from huggingface_hub.errors import HFValidationError

    name, _, split = source.partition(":")
    try:
        with _quietly():
            builder = datasets.load_dataset_builder(name)
            builder.download_and_prepare()
    except (DatasetNotFoundError, HFValidationError, FileNotFoundError) as error:
        raise Refusal(f"there is no file {name!r} here, and no such data set on the hub ({plain(error, 200)}).") from None
    except (OSError, ValueError) as error:
        raise Refusal(f"there is no file {name!r} here, and the hub's could not be read ({plain(error, 200)}).") from None
    # For a data set of the hub the builder's hash is the commit, also where it comes from the local cache.
    revision = str(builder.hash)
    if not _SHA.fullmatch(revision):
        raise Refusal(f"the revision of {name} cannot be told ({plain(revision, 60)}); clear its cache and load it again.")
    splits = [str(each) for each in builder.info.splits or ()]
    notes = []
    if not split:
        if len(splits) > 1 and "train" not in splits:
            raise Refusal(f"{name} has several splits; name one: {', '.join(f'{name}:{each}' for each in splits)}.")
        split = "train" if "train" in splits else splits[0]
        notes = [f"split {split!r} of {', '.join(splits)}"]
    if split not in splits:
        raise Refusal(f"{name} has no split {split!r}; {nearest(split, splits)}")
    found = _dataset(builder.as_dataset(split=split), f"{name}:{split}", revision)
    found.notes += notes
    return found

"""Files that are either whole or not there: atomic writes, JSON, names by content.
Nothing is ever pickled."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from penchant.errors import Refusal

LOCKS = "locks"
"""The part of the cache folder that says which folders are being written into."""


def cache_folder() -> Path:
    """Where converted models, reference log-probs and indexes are kept: $PENCHANT_CACHE, else the user's cache folder."""
    base = os.environ.get("PENCHANT_CACHE")
    if base:
        return Path(base)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "penchant"


def write(path: Path, content: str | bytes) -> None:
    """Writes the file whole: to a neighbour first, flushed to disk, then renamed over the old one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with named(path), os.fdopen(handle, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
        flush(path.parent)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


@contextmanager
def named(path: Path) -> Iterator[None]:
    """An error of the system that says which file it was about: a write that finds the disk full does not know."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A folder that appears under its name only when the block has ended well; a failure leaves what was there before.
    A tensor file that cannot be written fails as any other file does, with an OSError."""
    from safetensors import SafetensorError

    path.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    try:
        try:
            yield draft
        except SafetensorError as error:  # "I/O error: No space left on device (os error 28)"
            code = re.search(r"\(os error (\d+)\)", str(error))
            raise OSError(int(code[1]), os.strerror(int(code[1])), str(path)) if code else error from error
        for file in draft.rglob("*"):
            if file.is_file():
                flush(file)
        flush(draft)
        old = None
        if path.exists():
            old = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".old.{path.name}."))
            os.replace(path, old / path.name)
        os.replace(draft, path)
        flush(path.parent)
        if old is not None:
            shutil.rmtree(old, ignore_errors=True)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise


def drafts(folder: Path, names: Iterable[str]) -> list[Path]:
    """What a kill left behind of files and folders that were being written under these names."""
    made = re.compile(rf"\.(old\.)?({'|'.join(map(re.escape, names))})\.[a-z0-9_]{{8}}")  # as tempfile names them
    return [path for path in folder.iterdir() if made.fullmatch(path.name)] if folder.is_dir() else []


def remove(path: Path) -> None:
    """Takes away a file, a folder or a link (and not what it points to), if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def flush(path: Path) -> None:
    """Waits until what was written of a file or a folder is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_json(path: Path, value: Any) -> None:
    """Strict JSON, so that any other program can read it: NaN and infinities are refused."""
    write(path, json.dumps(value, ensure_ascii=False, indent=1, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Refuses a file that holds no JSON: none that was written here is ever half there."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # of the text, or of its encoding
        raise Refusal(f"{path} was cut or changed after it was written: {error}.") from error


def fingerprint(*parts: str | bytes | Mapping[str, Any]) -> str:
    """A short name by content."""
    digest = hashlib.sha256()
    for part in parts:
        data = (
            part
            if isinstance(part, bytes)
            else (part if isinstance(part, str) else json.dumps(part, sort_keys=True)).encode()
        )
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.hexdigest()[:32]

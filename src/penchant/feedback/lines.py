"""JSON Lines read strictly, line by line, from files of any size; and JSON arrays, which are read whole.
It knows lines and offsets, not what a row should hold."""

from __future__ import annotations

import codecs
import gzip
import hashlib
import json
import os
import tempfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from penchant.errors import Refusal
from penchant.feedback.records import Problem
from penchant.files import cache_folder
from penchant.words import brief, plain

_BLOCK = 1 << 20


class _Strict(ValueError):
    """JSON that the standard module takes and the standard does not."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) != len(pairs):
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise _Strict(f"the key {brief(twice)} stands twice in one object; keep one of them.")
    return out


def _constant(word: str) -> float:
    raise _Strict(f"{word} is no JSON; write a finite number, or take the row out.")


def _float(digits: str) -> float:
    number = float(digits)
    if number in (float("inf"), float("-inf")):
        raise _Strict(f"{brief(digits)} is too large for a number; write a finite one.")
    return number


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_constant, parse_float=_float)


def strict_json(data: bytes, number: int = 0) -> Any:
    """The value, or a Problem of row `number`. Refuses what makes a file mean different things to different programs:
    duplicate keys, NaN and infinities, bytes that are not UTF-8."""
    try:
        return _DECODER.decode(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        said = f"byte {error.start + 1} is not UTF-8; save the file as UTF-8."
        return Problem(number, "", brief(data[max(error.start - 10, 0) : error.end + 10]), said, "not UTF-8")
    except json.JSONDecodeError as error:
        where = f"column {error.colno}" if number else f"line {error.lineno} column {error.colno}"
        return Problem(number, "", "", f"not JSON at {where}: {error.msg}.", "not JSON")
    except RecursionError:
        return Problem(number, "", "", "is nested too deeply to be a row; flatten it.", "not JSON")
    except _Strict as error:
        return Problem(number, "", "", str(error), "not JSON")
    except ValueError:
        return Problem(number, "", "", "holds a whole number of too many digits; write it as text.", "not JSON")


class Lines:
    """A JSON Lines file. A row's place is the byte at which its line begins; its number is its line's. Blank lines are
    skipped and counted. Line ends are "\\n" or "\\r\\n"; a byte-order mark at the beginning is passed over."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.blank = 0

    def scan(self) -> Iterator[tuple[int, int, Any]]:
        """(number, place, value or Problem) of every line; one pass, one line in memory at a time."""
        self.blank = 0
        with self.path.open("rb") as file:
            start = file.read(4)
            if start[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
                raise Refusal(f"{plain(self.path)} is UTF-16, not UTF-8; save it as UTF-8.")
            place = 3 if start[:3] == codecs.BOM_UTF8 else 0
            file.seek(place)
            for number, line in enumerate(file, 1):
                if line.isspace():
                    self.blank += 1
                else:
                    yield number, place, self._value(line, number)
                place += len(line)

    @staticmethod
    def _value(line: bytes, number: int) -> Any:
        value = strict_json(line, number)
        if number == 1 and line[:1] == b"[" and not isinstance(value, dict):
            said = "begins a JSON array; write one object per line, or name the file .json."
            return Problem(number, "", "", said, "not an object")
        return value

    @contextmanager
    def reading(self) -> Iterator[Callable[[int], Any]]:
        """A function from a place to its value, while the file is held open. Each call of `reading` opens the file for
        itself, so processes and threads do not share a position."""
        try:
            file = self.path.open("rb")
        except FileNotFoundError:
            raise Refusal(f"{plain(self.path)} is no longer there; open the source again.") from None
        with file:

            def fetch(place: int) -> Any:
                file.seek(place)
                return strict_json(file.readline())

            yield fetch


def array_of(path: Path) -> list[Any]:
    """The values of a JSON array, read whole."""
    value = strict_json(path.read_bytes().removeprefix(codecs.BOM_UTF8))
    if isinstance(value, Problem):
        raise Refusal(f"{plain(path)}: {value.said}")
    return value


def begins_with_array(path: Path) -> bool:
    """Whether a .json file holds one array; else it is read as JSON Lines, which many name .json too."""
    with path.open("rb") as file:
        start = file.read(_BLOCK).removeprefix(codecs.BOM_UTF8).lstrip()
    return start[:1] == b"["


def unpacked(path: Path) -> Path:
    """A gzip file cannot be read from the middle, so it is unpacked once into the cache, under a name by content."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    target = cache_folder() / "unpacked" / f"{digest.hexdigest()[:32]}.jsonl"
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, draft = tempfile.mkstemp(dir=target.parent, prefix=".")
    try:
        with os.fdopen(handle, "wb") as out, gzip.open(path) as packed:
            while block := packed.read(_BLOCK):
                out.write(block)
            out.flush()
            os.fsync(out.fileno())
        os.replace(draft, target)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise Refusal(f"{plain(path)} is no whole gzip file ({error}); fetch it again.") from None
    except OSError as error:
        said = f"{plain(path)} could not be unpacked into {plain(target.parent)} ({error.strerror})"
        raise Refusal(f"{said}; set PENCHANT_CACHE to a folder with room, or unpack the file yourself.") from None
    finally:
        Path(draft).unlink(missing_ok=True)
    return target

"""Feedback whose responses are pictures: files beside the data, PIL images, or images stored in a data set. Each is opened once to
see that it is whole and gets a name by content; what a model makes of it is not known here."""

from __future__ import annotations

import hashlib
import io
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from penchant.errors import Refusal
from penchant.feedback.places import Records, find
from penchant.feedback.problems import type_words
from penchant.feedback.reading import Source, opened
from penchant.feedback.records import Problem
from penchant.files import cache_folder, write
from penchant.words import brief, plain

if TYPE_CHECKING:
    from PIL.Image import Image

COLUMNS = ("chosen", "rejected", "completion", "responses", "completions")
"""Where pictures stand in a row; prompts are texts."""
FORMATS = ("PNG", "JPEG", "WEBP", "BMP")
"""What is opened. Formats that run other programs, such as EPS, are not."""
PIXELS = 2**26
"""The largest picture, width times height."""


class Gallery:
    """Pictures by name. A name is the place as it was written, a # and 16 digits of the content's SHA-256, so that rows and their
    fingerprints hang on what the pictures show."""

    def __init__(self, root: Path | None) -> None:
        """root: the folder that paths begin in and may not leave; None where there is none."""
        self.root = None if root is None else root.resolve()
        self._held: dict[str, Image] = {}

    def name(self, value: Any) -> str:
        """The name of one picture. Raises Refusal, in words that follow the field's name."""
        from PIL.Image import Image

        if isinstance(value, str):
            return self._named(value, self._file(value).read_bytes())
        if isinstance(value, Image):
            name = f"picture#{_digest(f'{value.mode} {value.size} '.encode() + value.tobytes())}"
            self._held[name] = value
            return name
        if isinstance(value, Mapping) and {"bytes", "path"} >= set(value):  # as `datasets` stores an image
            data, path = value.get("bytes"), value.get("path")
            if not isinstance(data, bytes):
                return self.name(path if path is not None else data)
            name = self._named("stored", data)
            if not (place := self._stored(name)).exists():
                write(place, data)
            return name
        raise Refusal(f"is {type_words(value)}; a picture is a path beside the data or a PIL image.")

    def holds(self, name: str) -> bool:
        """Whether the picture of this name is to be found from here."""
        path, _, _ = name.rpartition("#")
        if name in self._held or path == "stored":
            return name in self._held or self._stored(name).is_file()
        return self.root is not None and (self.root / path).is_file()

    def open(self, name: str) -> Image:
        """The picture, upright. Raises Refusal where it is no longer what it was when the data was checked."""
        if name in self._held:
            return self._held[name]
        path, _, digest = name.rpartition("#")
        file = self._stored(name) if path == "stored" else self._file(path)
        data = file.read_bytes() if file.is_file() else b""
        if _digest(data) != digest:
            raise Refusal(f"the picture {plain(path)} is not what it was when the data was checked; open the data again.")
        return _read(data)

    def _named(self, path: str, data: bytes) -> str:
        _read(data)
        return f"{path}#{_digest(data)}"

    def _stored(self, name: str) -> Path:
        return cache_folder() / "pictures" / name.rpartition("#")[2]

    def _file(self, path: str) -> Path:
        """The file a path leads to, which lies in the root."""
        if "://" in path:
            raise Refusal("is an address; nothing is fetched. Save the picture beside the data and write its path.")
        if self.root is None:
            raise Refusal("is a path, but rows given in Python lie in no folder; say root=FOLDER, or give PIL images.")
        if "\0" in path or Path(path).is_absolute():
            raise Refusal("must be a path that begins in the data's own folder.")
        file = (self.root / path).resolve()
        if not file.is_relative_to(self.root):
            raise Refusal("leads out of the data's own folder; pictures lie within it.")
        if not file.is_file():
            raise Refusal("is no file that is there; mend the path.")
        return file


def open_pictures(
    source: str | PathLike[str] | Any,
    *,
    root: str | PathLike[str] | None = None,
    bad_rows: Literal["refuse", "drop"] = "refuse",
) -> tuple[Source, Gallery]:
    """Opens rows whose responses are pictures: {prompt, chosen, rejected}, {prompt, completion} (winners only, or with a label),
    {prompt, responses, scores}; all that `open_source` takes. A picture is a path within `root` (unset: the data file's folder),
    a PIL image, or an image as `datasets` stores it. Every picture is decoded once.

    Returns the rows, whose responses are names, and the gallery that opens them. Raises DataRefusal with all problems by row,
    and Refusal where Pillow is not installed.
    """
    try:
        import PIL.Image  # noqa: F401
    except ImportError:
        raise Refusal('pictures are read by Pillow: pip install "penchant[diffusion]".') from None
    found = find(Path(source) if isinstance(source, PathLike) else source)
    if root is None and isinstance(source, str | PathLike) and Path(source).exists():
        place = Path(source)
        root = place if place.is_dir() else place.parent
    gallery = Gallery(None if root is None else Path(root))
    found.records = _Pictured(found.records, gallery)
    return opened(found, bad_rows=bad_rows), gallery


class _Pictured:
    """Rows with a picture's name wherever there was a picture, or the first thing that is wrong with one."""

    def __init__(self, records: Records, gallery: Gallery) -> None:
        self._records, self._gallery = records, gallery

    @property
    def blank(self) -> int:
        return self._records.blank

    def scan(self) -> Iterator[tuple[int, int, Any]]:
        for number, place, raw in self._records.scan():
            yield number, place, self._read(raw, number)

    @contextmanager
    def reading(self) -> Iterator[Callable[[int], Any]]:
        with self._records.reading() as fetch:
            yield lambda place: self._read(fetch(place), 0)

    def _read(self, raw: Any, number: int) -> Any:
        """Rows that are none are left to the reader of rows, which says so."""
        if not isinstance(raw, Mapping):
            return raw
        out = dict(raw)
        for field in COLUMNS:
            if field not in raw:
                continue
            many = field in ("responses", "completions") and isinstance(raw[field], list | tuple)
            try:
                out[field] = [self._gallery.name(x) for x in raw[field]] if many else self._gallery.name(raw[field])
            except Refusal as refusal:
                return Problem(number, field, brief(raw[field]), str(refusal), "picture")
        return out


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def _read(data: bytes) -> Image:
    """A picture of its bytes, decoded and turned as its camera was held."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # PIXELS is the stricter bound
            with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
                if picture.width * picture.height > PIXELS:
                    raise Refusal(f"has {picture.width} × {picture.height} pixels; at most {PIXELS:,} are read.")
                picture.load()
                return ImageOps.exif_transpose(picture)
    except UnidentifiedImageError:
        raise Refusal(f"is no picture that can be read; write it as {', '.join(FORMATS)}.") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise Refusal(f"is a broken picture ({plain(error, 80)}); save it anew.") from None

"""Feedback whose responses are pictures: files beside the data, PIL images, or images stored in a data set. Each is opened once to
see that it is whole and gets a name by content; what a model makes of it is not known here."""

from __future__ import annotations

import hashlib
import io
import warnings
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from penchant.errors import Refusal
from penchant.feedback.attached import Attached, open_attached
from penchant.feedback.problems import type_words
from penchant.feedback.reading import Source
from penchant.files import cache_folder, write
from penchant.words import plain

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = ("PNG", "JPEG", "WEBP", "BMP")
"""What is opened. Formats that run other programs, such as EPS, are not."""
PIXELS = 2**26
"""The largest picture, width times height."""


class Gallery(Attached):
    """Pictures by name. A name is the place as it was written, a # and 16 digits of the content's SHA-256, so that rows and their
    fingerprints hang on what the pictures show."""

    what, mend = "picture", "give PIL images"

    def __init__(self, root: Path | None) -> None:
        """root: the folder that paths begin in and may not leave; None where there is none."""
        super().__init__(root)
        self._held: dict[str, Image] = {}

    def name(self, value: Any) -> str:
        """The name of one picture. Raises Refusal, in words that follow the field's name."""
        from PIL.Image import Image

        if isinstance(value, str):
            return self._named(value, self.file(value).read_bytes())
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
        file = self._stored(name) if path == "stored" else self.file(path)
        data = file.read_bytes() if file.is_file() else b""
        if _digest(data) != digest:
            raise Refusal(f"the picture {plain(path)} is not what it was when the data was checked; open the data again.")
        return _read(data)

    def _named(self, path: str, data: bytes) -> str:
        _read(data)
        return f"{path}#{_digest(data)}"

    def _stored(self, name: str) -> Path:
        return cache_folder() / "pictures" / name.rpartition("#")[2]


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
    return open_attached(source, Gallery, root, bad_rows)


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

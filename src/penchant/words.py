"""Text of models and data made harmless before it reaches a terminal, and numbers as they are printed. The report and the
cards escape their own way."""

from __future__ import annotations

import json
import unicodedata

_KEEP = {"\n", "\t"}


def plain(text: object, limit: int | None = None) -> str:
    """The text without escape sequences, control, format (bidirectional, zero-width) or surrogate characters, each shown
    as ␛ or �; shortened to `limit` characters. Markup of the terminal library is the printer's to escape or switch off."""
    out = []
    for ch in str(text):
        if ch in _KEEP or unicodedata.category(ch) not in ("Cc", "Cf", "Cs"):
            out.append(ch)
        else:
            out.append("␛" if ch == "\x1b" else "�")
    said = "".join(out)
    return said if limit is None or len(said) <= limit else said[: max(limit - 1, 0)] + "…"


def brief(value: object, limit: int = 60) -> str:
    """A value on one line for an error message."""
    try:
        said = repr(value)
    except (ValueError, RecursionError):  # an integer of more digits than Python writes, a value of endless depth
        said = f"a {type(value).__name__} too long to be written"
    return plain(said, limit).replace("\n", " ")


def json_text(value: object, indent: int | None = None) -> str:
    """JSON that can be shown in a terminal: what `plain` replaces stands there as an escape, and is read back the same."""
    said = json.dumps(value, ensure_ascii=False, indent=indent)
    return "".join(ch if ch == "\n" or plain(ch) == ch else json.dumps(ch)[1:-1] for ch in said)


def figure(x: float, form: str) -> str:
    """A number by a format specification, with a true minus sign."""
    return format(x, form).replace("-", "−")

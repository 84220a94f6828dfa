"""Rows written as JSON Lines that `open_source` and the ecosystem's other libraries read. It changes nothing in them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from penchant.feedback.records import WEIGHTS, Row
from penchant.files import write


def as_mapping(row: Row) -> dict[str, Any]:
    """The row as columns. In a chat the responses are messages too, as TRL wants them."""
    chat = not isinstance(row.prompt, str)
    said = [[{"role": "assistant", "content": y}] if chat else y for y in row.responses]
    out: dict[str, Any] = {"prompt": list(row.prompt) if chat else row.prompt}
    if row.kind == "pairs":
        out["chosen"], out["rejected"] = said
    elif row.kind == "labelled":
        out["completion"], out["label"] = said[0], row.label
    elif row.kind == "lists":
        out["responses"], out["scores"] = said, list(row.scores or ())
    for name, value in (("annotator", row.annotator), ("strength", row.strength), ("margin", row.margin)):
        if value is not None:
            out[name] = value
    if row.weights is not None:
        spans = [[list(span) for span in of_one] for of_one in row.weights]
        names = WEIGHTS[row.kind]
        out |= {names[0]: spans} if row.kind == "lists" else dict(zip(names, spans, strict=True))
    return {**row.extra, **out}


def write_rows(path: Path, rows: Iterable[Row]) -> int:
    """Writes the file whole, and says how many rows it holds."""
    lines = [json.dumps(as_mapping(row), ensure_ascii=False, allow_nan=False) for row in rows]
    write(path, "".join(line + "\n" for line in lines))
    return len(lines)

"""What stands behind a method: the golden numbers its loss and gradient are tested against, and the claims it was tried on.
Both are read from where they are kept, tests/golden and docs/claims.md, to which `golden` and `claims.md` beside this file
are links (a wheel carries copies)."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
_METHOD = re.compile(r"\b([A-Z]\w*)\(")


@dataclass(frozen=True)
class Golden:
    """Numbers that somebody else computed for a method."""

    case: str
    source: str
    """Who computed them, and how."""
    objective: str
    inputs: str
    """The responses in short: log-probs (sums, or per step), reference, steps, grade or label."""
    loss: tuple[float, ...]
    grad: str
    """dL/dlog π of the responses in the order of the inputs; empty where the source gives none."""


@dataclass(frozen=True)
class Claim:
    """A claim, our run and what came of it."""

    claim: str
    source: str
    run: str
    result: str
    verdict: str


def golden(name: str) -> tuple[Golden, ...]:
    """The cases of a method by its class's name."""
    kept = HERE / "golden" / f"{name.lower()}.json"
    if not kept.is_file():
        return ()
    cases = json.loads(kept.read_text(encoding="utf-8"))["cases"]
    return tuple(
        Golden(c["case"], c["source"], c["objective"], _inputs(c), tuple(c["loss"]), _numbers(c.get("grad", [])))
        for c in cases
    )


def claims(name: str | None = None) -> tuple[Claim, ...]:
    """The claims whose row writes the method as it is called, `DPO(`; all of them without a name."""
    found = []
    for line in (HERE / "claims.md").read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip().strip("|"))]
        if line.startswith("|") and len(cells) == 5 and cells[0] != "claim" and set(cells[0]) != {"-"}:
            found.append((Claim(*cells), set(_METHOD.findall(line))))
    return tuple(claim for claim, named in found if name is None or name in named)


def _inputs(case: dict[str, Any]) -> str:
    if "pairs" in case:
        shown = [f"chosen {_response(pair['w'])}, rejected {_response(pair['l'])}" for pair in case["pairs"]]
    elif "lists" in case:
        shown = [", ".join(_response(y) for y in answers) for answers in case["lists"]]
    else:
        shown = [_response(y) for y in case.get("responses", [])]
    extra = {key: case[key] for key in ("columns", "state") if case.get(key)}
    return "; ".join([*shown, *(f"{key} {json.dumps(x)}" for key, x in extra.items())])


def _response(y: dict[str, Any]) -> str:
    said = {key: x for key, x in y.items() if key not in ("logp", "ref")}
    reference = f" (reference {_numbers(y['ref'])})" if "ref" in y else ""
    extra = "".join(f", {key} {_numbers(x)}" for key, x in said.items())
    return f"{_numbers(y['logp'])}{reference}{extra}"


def _numbers(x: Any) -> str:
    """Nested numbers as a person writes them: six figures, no quotes."""
    if isinstance(x, float):
        return f"{x:.6g}"
    if isinstance(x, dict):
        return ", ".join(f"{key} {_numbers(value)}" for key, value in x.items())
    if isinstance(x, Sequence) and not isinstance(x, str):
        return "[" + ", ".join(map(_numbers, x)) + "]" if x else ""
    return str(x)

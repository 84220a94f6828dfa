"""Every objective of the catalogue trains the real model from the command line: twenty steps each, on a few short rows.

Claim     Each method that `penchant methods` lists runs as it is written there: it finds what it needs, stays finite, and
          finishes. What it is good for is not asked here.
Source    The project's own catalogue.
Run       SmolLM2-135M-Instruct with an adapter of rank 8 on every linear layer, 20 steps of 2 rows, learning rate 1e-4, as
          `penchant align` does it. Wrappers wrap DPO. Budget: 20 CPU-seconds a method.
Showed    54 of 54 finished, every loss and every gradient finite, in 840 CPU-seconds. SLiC's margins were met from the start, so
          its loss stayed 0. It ends with exit status 1 where any method fails.

    python recipes/every_method.py [--only DPO,KTO] [--model smollm2] [--output runs/every_method]
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import json
import math
import shutil
import time
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, cast

from penchant.cli import main as command
from penchant.objectives import DPO, Labelled, Lists, Objective, Pairs, catalogue
from penchant.objectives.base import kinds_of

ASKED = ("a colour", "a fruit", "a river", "a tool", "a bird", "a city", "a metal", "a game", "a drink", "a tree")
GOOD = (
    "Blue.",
    "Apples, gladly.",
    "The Nile.",
    "A hammer.",
    "A robin.",
    "Lisbon.",
    "Copper.",
    "Chess.",
    "Tea, please.",
    "Oak.",
)
BAD = ("No idea.", "Why ask?", "Water.", "Things.", "Not now.", "Somewhere.", "Stuff.", "Nothing.", "Whatever.", "Go away.")


def rows(kind: type) -> list[dict[str, Any]]:
    """Ten short rows with every column that a method may read."""
    asked = [f"Name {thing}." for thing in ASKED]
    if kind is Lists:
        return [
            {
                "prompt": x,
                "responses": [g, b, "Hm."],
                "scores": [1.0, 0.0, 0.5],
                "response_weights": [[[0, 2, 2.0]], [], []],
            }
            for x, g, b in zip(asked, GOOD, BAD, strict=True)
        ]
    if kind is Labelled:
        return [
            {
                "prompt": x,
                "completion": y,
                "label": label,
                "annotator": f"person {i % 3}",
                "completion_weights": [[0, 2, 2.0]],
            }
            for i, (x, g, b) in enumerate(zip(asked, GOOD, BAD, strict=True))
            for y, label in ((g, True), (b, False))
        ]
    return [
        {
            "prompt": x,
            "chosen": g,
            "rejected": b,
            "annotator": f"person {i % 3}",
            "strength": (0.9, 0.7, 1.0)[i % 3],
            "margin": 0.5 + i % 4,
            "chosen_weights": [[0, 2, 2.0]],
        }
        for i, (x, g, b) in enumerate(zip(asked, GOOD, BAD, strict=True))
    ]


def example(cls: type[Objective]) -> Objective:
    """The method with its defaults; where a field must be given it is the objective inside, so DPO."""
    fields = dataclasses.fields(cast(Any, cls))
    return cls(**{field.name: DPO() for field in fields if field.default is dataclasses.MISSING})


@dataclasses.dataclass(frozen=True)
class Trained:
    """What became of one method."""

    method: str
    finished: bool
    first: float
    last: float
    finite: bool
    seconds: float
    said: str
    """The last line of its output, where it did not finish."""

    def __str__(self) -> str:
        state = "finished" if self.finished else "FAILED"
        numbers = f"{self.first:12.4f} {self.last:12.4f}  {'finite' if self.finite else 'NOT FINITE'}"
        return f"{self.method:34} {state:8} {numbers} {self.seconds:7.1f}  {self.said}"


def trained(objective: Objective, model: str, output: Path, steps: int) -> Trained:
    """One method, by the words that a person would type."""
    kind = next(kind for kind in (Pairs, Labelled, Lists) if kind in kinds_of(objective))
    folder, data = output / type(objective).__name__, output / f"{kind.__name__.lower()}.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows(kind)), encoding="utf-8")
    lean = {"lora": 8, "template": "none"}
    settings = {
        "steps": steps,
        "batch": 2,
        "learning-rate": 1e-4,
        "held-out": 2,
        "sample-prompts": 0,
        "save-every": 0,
    } | lean
    flags = [word for name, value in settings.items() for word in (f"--{name}", str(value))]
    asked = ["--model", model, "--data", str(data), "--objective", repr(objective), "--output", str(folder), "--overwrite"]
    said, started = io.StringIO(), time.process_time()
    with redirect_stdout(said), redirect_stderr(said):
        command(["align", *asked, *flags])
    seconds = time.process_time() - started
    metrics = folder / "metrics.jsonl"
    lines = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()] if metrics.exists() else []
    taken = [line for line in lines if line["kind"] == "step"]
    losses = [math.nan if line["loss"] is None else float(line["loss"]) for line in taken]
    finite = bool(taken) and all(math.isfinite(x) for x in losses) and all(line["grad_norm"] is not None for line in taken)
    # A verdict of 20 steps is worth nothing, so its exit status is not asked for: the evidence is written last.
    finished = len(taken) == steps and (folder / "evidence.json").exists()
    last_words = "" if finished else (said.getvalue().strip().splitlines() or [""])[-1][:160]
    shutil.rmtree(folder, ignore_errors=True)
    first, last = (losses[0], losses[-1]) if losses else (math.nan, math.nan)
    return Trained(type(objective).__name__, finished, first, last, finite, seconds, last_words)


def every(model: str, output: Path, only: tuple[str, ...] = (), steps: int = 20) -> list[Trained]:
    """All methods, or those named, each printed as it ends."""
    output.mkdir(parents=True, exist_ok=True)
    found = []
    for name, cls in catalogue().items():
        learns = {Pairs, Labelled, Lists}.intersection(kinds_of(cls))  # what takes rollouts alone, no file holds
        if learns and (not only or name in only):
            found.append(trained(example(cls), model, output, steps))
            print(found[-1], flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2", help="a folder, a hub id or smollm2")
    parser.add_argument("--output", default="runs/every_method", help="folder for data and runs; each run is removed again")
    parser.add_argument("--only", default="", help="names of methods with commas between; all where not given")
    parser.add_argument("--steps", type=int, default=20, help="optimiser steps of each")
    asked = parser.parse_args()
    only = tuple(name.strip() for name in asked.only.split(",") if name.strip())
    print(f"{'method':34} {'':8} {'first loss':>12} {'last loss':>12}  {'numbers':10} {'CPU-s':>5}")
    found = every(asked.model, Path(asked.output), only, asked.steps)
    good = [one for one in found if one.finished and one.finite]
    print(
        f"{len(good)} of {len(found)} methods finished with finite numbers; {sum(one.seconds for one in found):,.0f} CPU-seconds"
    )
    if len(good) < len(found):
        raise SystemExit(1)


if __name__ == "__main__":
    main()

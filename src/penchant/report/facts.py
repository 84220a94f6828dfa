"""What page, model card and terminal say alike: names, numbers, the accounting, the command to do it again.
Nothing here escapes anything; each of the three does that in its own way, for all text at once."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from penchant.evaluation.evidence import IN_PYTHON, RunEvidence
from penchant.evaluation.rules import Finding
from penchant.evaluation.table import STEPS
from penchant.evaluation.verdict import Verdict
from penchant.words import figure

PLACES = ("model", "data", "unseen", "objective", "judge", "guard", "output")
"""What a run is named by, in the order the command line shows it."""
UNKNOWN = "not recorded"


def number(value: float | int | None, places: int = 3) -> str:
    """A number as people read it: whole numbers grouped, others to about three figures; "–" where there is none."""
    if value is None:
        return "–"
    if isinstance(value, int) or (math.isfinite(value) and value == round(value) and abs(value) >= 1000):
        return figure(value, ",.0f")
    if not math.isfinite(value):
        return "not a number" if math.isnan(value) else f"{'−' if value < 0 else ''}infinite"
    size = abs(value)
    if size == 0:
        return "0"
    if size < 1e-3 or size >= 1e7:
        return figure(value, f".{places - 1}e")
    digits = max(0, places - 1 - math.floor(math.log10(size))) if size >= 1 else places
    return figure(value, f",.{min(digits, places)}f")


def signed(value: float | None) -> str:
    """A difference, with its sign."""
    if value is None:
        return "–"
    return f"+{number(value)}" if value > 0 else number(value)


def duration(seconds: float) -> str:
    """A time as it is spoken."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


def named(evidence: RunEvidence, name: str) -> str:
    """A setting as written, or that it was not recorded."""
    value = evidence.settings.get(name)
    return UNKNOWN if value is None else str(value)


def short_model(evidence: RunEvidence) -> str:
    """The model's name without the folders before it."""
    return named(evidence, "model").rstrip("/").split("/")[-1]


def title(evidence: RunEvidence, by: str) -> str:
    """What was made of what, by an objective as it is written."""
    made = "{model} as a reward model, by {by}" if evidence.makes == "scores" else "{model}, aligned with {by}"
    return made.format(model=short_model(evidence), by=by)


def methods(evidence: RunEvidence) -> list[str]:
    """The names of the objectives in the expression, in order, once each."""
    return list(dict.fromkeys(re.findall(r"[A-Za-z_]\w*(?=\s*\()", str(evidence.settings.get("objective", "")))))


def equations(evidence: RunEvidence) -> list[tuple[str, str, str]]:
    """(method, equation, source) of every objective of this library that the expression names, in its class's words."""
    from penchant.objectives import catalogue
    from penchant.objectives.describe import describe

    known = catalogue()
    found = [describe(known[name]) for name in methods(evidence) if name in known]
    return [(one.name, one.equation, one.source) for one in found]


def tone(verdict: Verdict) -> str:
    """ "good" for a run that learned and nothing else, "bad" for one that came to nothing, "mixed" between."""
    if not verdict.ok:
        return "bad"
    return "good" if verdict.word == "learned" else "mixed"


def behind(finding: Finding) -> str:
    """The numbers behind a finding on one line; an interval as value [low, high] of n."""
    return "; ".join(f"{name.replace('_', ' ')} {told(value)}" for name, value in finding.evidence.items())


def told(value: Any) -> str:
    """One value of a finding's evidence."""
    if isinstance(value, Mapping) and "value" in value:
        low, high = value.get("low"), value.get("high")
        between = "" if low is None or high is None else f" [{number(low)}, {number(high)}]"
        return f"{number(value['value'])}{between}" + (f", n = {number(value['n'])}" if "n" in value else "")
    if isinstance(value, int | float) and not isinstance(value, bool):
        return number(value)
    return str(value)


@dataclass(frozen=True)
class Ranked:
    """A number that was learned of each category of a column: of each annotator, the reliability."""

    title: str
    rows: tuple[tuple[int, str, int | None, float | None], ...]
    """Place in the data, name, rows in the data where they were counted, number; the lowest first."""
    hidden: int
    """Categories between the lowest and the highest that are left out."""


SHOWN = 12
"""Categories shown from either end."""


def remembered(evidence: RunEvidence) -> list[Ranked]:
    """What the objective remembered of each category in the end; empty for one that has no such memory."""
    line = next((line for line in reversed(evidence.history) if line.get("kind") == "state"), {})
    found = []
    for name, value in line.items():
        if not isinstance(value, Mapping):
            continue
        title, _, column = name.rpartition("/")
        counts = evidence.data.get(f"{column}s") or {}
        rows = [(k, str(who), counts.get(who), x) for k, (who, x) in enumerate(value.items(), 1)]
        rows.sort(key=lambda row: math.inf if row[3] is None else row[3])
        shown = rows if len(rows) <= 2 * SHOWN else [*rows[:SHOWN], *rows[-SHOWN:]]
        found.append(Ranked(f"{title.capitalize()} by {column}", tuple(shown), len(rows) - len(shown)))
    return found


def accounting(evidence: RunEvidence) -> list[tuple[str, int]]:
    """What became of every row that was read, as (words, rows); empty where no file was read."""
    counts = evidence.data.get("accounting")
    if not isinstance(counts, Mapping) or not counts.get("read"):
        return []
    dropped = counts.get("dropped") or {}
    return [
        ("read", counts["read"]),
        ("kept", counts.get("kept", 0)),
        ("dropped", sum(dropped.values())),
        *[(f"dropped: {reason}", n) for reason, n in sorted(dropped.items())],
        ("truncated", counts.get("truncated", 0)),
        ("identical after truncation", counts.get("identical", 0)),
        *([("cut when sampled, without a stop token", counts["unfinished"])] if counts.get("unfinished") else []),
        *([("rendered otherwise by the template", counts["template_differs"])] if counts.get("template_differs") else []),
    ]


def split(evidence: RunEvidence) -> str:
    """How the rows were divided, or nothing."""
    train, held = evidence.data.get("train"), evidence.data.get("held_out")
    if train is None:
        return ""
    return f"{number(int(train))} to learn from" + (
        "" if held is None else f", {number(int(held))} held out by {evidence.settings.get('split', 'prompt')}"
    )


def step(evidence: RunEvidence) -> str:
    """What one step of a response is called."""
    return STEPS.get(evidence.makes, "step")


def legend(evidence: RunEvidence) -> str:
    """How the pictures of samples are to be read."""
    same = "The same prompts, the same noise: what stands on the right began where its neighbour on the left did."
    if evidence.makes != "policies":
        return same
    return (
        f"{same} Each is an episode's way through the two observed numbers that move most, growing darker: from the ring "
        f"to the disc, "
        "which is filled where the simulator said that the task was done."
    )


def where(evidence: RunEvidence) -> str:
    """What before and after were measured on."""
    if evidence.settings.get("split") == "row":
        return "On rows that were held out; their prompts were trained on."
    return "On prompts the model was never trained on."


def steps(evidence: RunEvidence) -> int:
    """Optimiser steps that were taken."""
    return max((line["step"] for line in evidence.history if line.get("kind") == "step"), default=0)


def sampling(evidence: RunEvidence) -> str:
    """What sampling took of the run, and how far sampler and trainer were apart; nothing of a run on a file."""
    rounds = [line for line in evidence.history if line.get("kind") == "round" and "seconds/sample" in line]
    if not rounds or not evidence.seconds:
        return ""
    took = sum(line["seconds/sample"] for line in rounds)
    said = (
        f"{took / evidence.seconds:.0%} of the time went into sampling ({duration(took)} in {number(len(rounds))} rounds)"
    )
    apart = [line["mismatch/largest"] for line in rounds if "mismatch/largest" in line]
    told = f"; sampler and trainer differ by at most {number(max(apart))} nats on a token they both scored" if apart else ""
    return f"{said.replace('%', ' %')}{told}"


def judging(evidence: RunEvidence) -> list[tuple[str, str]]:
    """What was asked of endpoints and what it took, as (judge, words); empty where none was asked."""
    found = []
    for name, took in evidence.judging.items():
        said = f"{number(took['asked'])} replies paid for, {number(took['kept'])} from the cache; "
        said += f"{number(took['prompt_tokens'])} prompt and {number(took['completion_tokens'])} completion tokens"
        said += f" ({number(took['uncounted'])} replies came without a count)" if took["uncounted"] else ""
        said += "" if took["cost"] is None else f"; cost {number(took['cost'])} at the given prices"
        said += f"; {number(took['failed'])} judgements failed" if took["failed"] else "; no judgement failed"
        found.append((name, said))
    return found


def command(evidence: RunEvidence) -> str:
    """The command line that does the same again: what was asked, without the settings left at their defaults. Rows that
    were given in Python stand as a file they have to be written to."""
    from penchant.engine.settings import Settings

    defaults = Settings().model_dump(mode="json")
    asked = dict(evidence.settings)
    for name, file in (("data", "ROWS.jsonl"), ("unseen", "UNSEEN.jsonl")):
        if asked.get(name) == IN_PYTHON:
            asked[name] = file
    words = ["penchant align"]
    words += [flag(name, asked[name]) for name in PLACES if asked.get(name) is not None]
    words += [
        flag(name, value)
        for name, value in asked.items()
        if name in defaults and value != defaults[name] and name != "overwrite"
    ]
    return " \\\n  ".join(words)


def flag(name: str, value: Any) -> str:
    """One setting as the shell takes it."""
    name = name.replace("_", "-")
    if isinstance(value, bool):
        return f"--{name}" if value else f"--no-{name}"
    if isinstance(value, list | tuple):
        value = ",".join(map(str, value))
    return f"--{name} {shlex.quote('none' if value is None else str(value))}"


def listed(values: Mapping[str, Any], before: str = "") -> list[tuple[str, str]]:
    """Settings or choices as lines of a table; a nested table is written name.inner."""
    lines: list[tuple[str, str]] = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            lines += listed(value, f"{before}{name}.")
        elif isinstance(value, list | tuple):
            lines.append((f"{before}{name}", ", ".join(map(str, value)) or "none"))
        else:
            plain = isinstance(value, int | float) and not isinstance(value, bool)
            grouped = f"{value:,}" if plain and abs(value) >= 10_000 else str(value)
            lines.append((f"{before}{name}", "none" if value is None else grouped))
    return lines

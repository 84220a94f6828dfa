"""What `penchant check --deep` says of public data: one diagnosis each, as the rows of the table in docs/diagnosis.md. It shows
no text of the data, and it estimates nothing that the command does not.

    python recipes/public_diagnosis.py          prints the table; about 100 CPU-seconds
"""

from __future__ import annotations

from collections.abc import Iterator

import data

from penchant.evaluation.diagnosis import Diagnosis, diagnose
from penchant.evaluation.diagnosis.shortcuts import FIRST
from penchant.feedback import open_source
from penchant.words import figure

LEFT = ("hh_harmless", "pandalm, unanimous", "gsm8k, all")
"""Sets that stand in the table otherwise, or that say the same as another."""
SETS = {name: make for name, make in data.SETS.items() if name not in LEFT}
SETS |= {f"persona, {trait}": lambda trait=trait: data.persona(trait) for trait in data.TRAITS}
SETS |= {"hh_rlhf, harmless": data.hh_harmless}
TOLD = ("labels", "shortcuts", "position")
"""Findings whose numbers are always told, and therefore not again."""


def told(found: Diagnosis) -> Iterator[str]:
    """Sentences of one data set."""
    yield f"{found.comparisons:,} comparisons."
    noise = found.noise
    if noise is not None and noise.learnable:
        bound = f"t most {figure(100 * noise.at_most, '.0f')} % of labels are wrong."
        yield f"{noise.rate.percent()} of labels look wrong, a{bound}" if noise.found else f"A{bound}"
        style = "" if found.style is None else f", length and style alone {found.style.percent()}"
        yield f"The predictor is right in {noise.accuracy.percent()} of unseen pairs{style}."
    elif noise is not None:
        yield "Nothing in the texts foretells the label."
    rules = [one for one in found.shortcuts if one.surely and one.name != FIRST]
    if rules:
        yield f"“{rules[0].name}” {rules[0].accuracy.percent()}{'; a shortcut' if rules[0].strong else ''}."
    if found.position is not None:
        sure = "" if found.position.all.surely else ", no sure liking"
        yield f"First place {found.position.all.first.percent()}{sure}."
    yield from (one.said for one in found.points if one.word in ("wrong", "look") and one.about not in TOLD)
    advised = list(dict.fromkeys(one.objective for one in found.advice if one.objective))
    yield f"Advised: {', '.join(f'`{one}`' for one in advised)}." if advised else "No objective is advised."


def table() -> list[str]:
    """Rows of Markdown."""
    return [f"| {name} | {' '.join(told(diagnose(open_source(make(), bad_rows='drop'))))} |" for name, make in SETS.items()]


def main() -> None:
    print("| data | what it says |", "| --- | --- |", *table(), sep="\n")


if __name__ == "__main__":
    data.or_skip(main)

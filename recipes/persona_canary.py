"""The canary: forty steps of DPO tell statements of one attitude from those of its opposite.

Claim     A model that is shown pairs of statements, one that an agreeable person would make and one that they would not,
          learns which is which for statements it has not seen. If this fails, the library is broken.
Source    Statements: Perez et al. 2022, arXiv 2212.09251, persona/agreeableness, written by a language model and checked by
          people; paired by us. Method: Rafailov et al. 2023, arXiv 2305.18290, eq. 7.
Run       SmolLM2-135M-Instruct, all weights, 40 steps of 4 pairs (160, each once), learning rate 3e-5; held out are 100 pairs
          of other statements. Budget: 400 CPU-seconds.
Showed    100 % held-out accuracy [96.3, 100], margin +4.29, 269 CPU-seconds. A prototype that trained the upper six layers
          only: 99 %, margin +0.76. It must stay above 90 %.

    python recipes/persona_canary.py
"""

from __future__ import annotations

import data
from shared import Figures, figures, options

from penchant import DPO, align

LEAST = 0.90
"""Held-out accuracy below this is an alarm."""


def canary(model: str = "smollm2", output: str = "runs/persona_canary", steps: int | None = None) -> Figures:
    rows = data.persona("agreeableness")
    run = align(
        model,
        rows[:160],
        DPO(beta=0.1),
        output=output,
        unseen=rows[160:260],
        steps=steps or 40,
        batch=4,
        learning_rate=3e-5,
        sample_prompts=8,
        sample_count=1,
        limit=32,
    )
    return figures(run)


def main() -> None:
    asked = options(__doc__ or "", "persona_canary")
    found = canary(asked.model, asked.output, asked.steps)
    print(found)
    if asked.steps is None and found.accuracy < LEAST:
        raise SystemExit(f"held-out accuracy fell below {LEAST:.0%}: something is broken.")


if __name__ == "__main__":
    data.or_skip(main)

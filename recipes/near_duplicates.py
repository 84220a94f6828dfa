"""Pairs that differ in one word: DPO lowers both responses, losses that hold the chosen up do not.

Claim     Where chosen and rejected are the same but for one word, fifty steps of DPO lower log π of the chosen; DPOP, CPO with
          its likelihood term, ORPO with its own and NCA do not.
Source    DPO: Rafailov et al. 2023, arXiv 2305.18290. DPOP: Pal et al. 2024, arXiv 2402.13228, section 3. CPO: Xu et al. 2024,
          arXiv 2401.08417. ORPO: Hong et al. 2024, arXiv 2403.07691. NCA: Chen et al. 2024, arXiv 2402.05369.
Run       SmolLM2-135M-Instruct, all weights; the first lines of 64 right solutions of GSM8K (arXiv 2110.14168; MIT), each
          against itself with its first number one larger, which is our doing; 50 steps of AdamW at 1e-5 on 4 pairs, then
          all 64 are scored; three seeds draw the order, the baseline is DPO. Budget: 7,200
          CPU-seconds.
Showed    Tried for one step only so far: the table of the whole is still to come.

    python recipes/near_duplicates.py
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import data
import torch
from accelerate import Accelerator
from shared import options
from study import Study, study
from torch import Tensor, nn

from penchant.domains.base import Domain, Encoded, Want
from penchant.domains.models import load
from penchant.engine.batching import steps as plan_steps
from penchant.engine.precision import Precision
from penchant.engine.step import Material, Step
from penchant.feedback import open_source
from penchant.objectives import CPO, DPO, DPOP, NCA, NLL, ORPO, Objective, Pairs, Scored
from penchant.objectives.base import zeros
from penchant.objectives.scored import masks

PAIRS, BATCH, STEPS, RATE, SEEDS = 64, 4, 50, 1e-5, (0, 1, 2)

ARMS: Mapping[str, Objective] = {
    "DPO": DPO(beta=0.1),
    "DPOP": DPOP(beta=0.1, penalty=50),
    "CPO + NLL": CPO(beta=0.1) + NLL(),
    "NLL + ORPO": NLL() + 0.1 * ORPO(),
    "NCA": NCA(beta=0.1),
}


def near_duplicates(count: int = PAIRS) -> data.Rows:
    """The first lines of right solutions, each against itself with its first number one larger; one for each of the problems
    with the shortest texts."""
    rows: data.Rows = []
    for problem in data.gsm8k("all"):
        solutions = zip(problem["responses"], problem["scores"], strict=True)
        right = [text.split("\n")[0] for text, score in solutions if score == 1]
        chosen = min((line for line in right if re.search(r"\d", line)), key=len, default=None)
        if chosen is not None:
            rejected = re.sub(r"\d+", lambda number: str(int(number[0]) + 1), chosen, count=1)
            rows.append({"prompt": problem["prompt"], "chosen": chosen, "rejected": rejected})
    return sorted(rows, key=lambda row: len(row["prompt"]) + 2 * len(row["chosen"]))[:count]


def changes(objective: Objective, seed: int, model: str = "smollm2", steps: int = STEPS) -> dict[str, float]:
    """Trains on the pairs and scores all of them again: mean changes in nats per response, and the share that fell."""
    loaded = load(model, max_length=512)
    domain, policy = loaded.domain, loaded.policy
    rows = domain.encode(open_source(near_duplicates()))
    before = untrained(model)
    step = Step(
        policy,
        domain,
        objective,
        torch.optim.AdamW(policy.parameters(), lr=RATE, weight_decay=0.0),
        Accelerator(cpu=True),
        Precision("fp32", "highest", {}),
        tokens=1024,
        clip=1.0,
    )

    def reference(some: Sequence[int]) -> Tensor:
        places = rows.places(some)
        return before[places, : max(rows.lengths[k] for k in places)]

    state = zeros(objective)
    for some in plan_steps(len(rows), BATCH, 1, seed, steps):
        state = step(Material(rows, {"ref": reference}), some, state).state
    after = rows.batch(Scored(scores(domain, policy, rows), masks(rows.lengths), before))
    assert isinstance(after, Pairs)
    w, l = after.w.ratio, after.l.ratio
    return {
        "log π chosen": float(w.mean()),
        "log π rejected": float(l.mean()),
        "margin": float((w - l).mean()),
        "chosen that fell": float((w < 0).float().mean()),
    }


@cache
def untrained(model: str) -> Tensor:
    """The reference's log π, which all arms and seeds share."""
    loaded = load(model, max_length=512)
    return scores(loaded.domain, loaded.policy, loaded.domain.encode(open_source(near_duplicates())))


@torch.no_grad()
def scores(domain: Domain, policy: nn.Module, rows: Encoded) -> Tensor:
    """log π of every step of every response, [responses, steps]."""
    return domain.score(policy, rows, Want()).logp


def study_of(model: str = "smollm2", output: str = "runs/near_duplicates", steps: int | None = None) -> Study:
    """All arms and seeds; with `steps`, one seed of so many steps, to try it out. Finished runs are kept in `output`."""
    arms = {name: lambda seed, o=objective: changes(o, seed, model, steps or STEPS) for name, objective in ARMS.items()}
    return study(arms, SEEDS if steps is None else SEEDS[:1], None if steps else Path(output) / "runs.jsonl")


def main() -> None:
    asked = options(__doc__ or "", "near_duplicates")
    print(study_of(asked.model, asked.output, asked.steps))


if __name__ == "__main__":
    data.or_skip(main)

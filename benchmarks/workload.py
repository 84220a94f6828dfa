"""What is measured: the packaged model on the first real pairs of a seeded shuffle, and the engine's own step on them with
everything on. Nothing is timed here and no other library is known."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import Accelerator

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "recipes"))

import data

from penchant.domains.base import Encoded
from penchant.domains.text.models import Loaded, LoRA, load
from penchant.engine.batching import order
from penchant.engine.precision import Precision, choose
from penchant.engine.settings import Settings
from penchant.engine.step import Material, Step
from penchant.feedback import open_source
from penchant.feedback.records import Row
from penchant.objectives import DPO

MAX_LENGTH = 512
BETA = 0.1
RATE = 1e-6
CPU = torch.device("cpu")


def loaded(lora: LoRA | None = None) -> Loaded:
    """The packaged model, in float32, ready to be trained."""
    return load("smollm2", lora=lora, max_length=MAX_LENGTH)


@cache
def pairs(count: int) -> tuple[Row, ...]:
    """The first pairs of a shuffle with seed 0 that fit into MAX_LENGTH tokens whole."""
    rows = list(open_source(data.hh_harmless(), bad_rows="drop"))
    some = [rows[i] for i in order(len(rows), 0, 0)[: 2 * count + 8]]
    numbers = loaded().domain.encode(some).numbers[:count]
    assert len(numbers) == count, "too few pairs fit"
    by_number = {row.number: row for row in some}
    return tuple(by_number[n] for n in numbers)


def as_chat(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Pairs as conversations, which both libraries read."""
    turn = lambda text: [{"role": "assistant", "content": text}]  # noqa: E731
    made = []
    for row in rows:
        prompt = [{"role": "user", "content": row.prompt}] if isinstance(row.prompt, str) else [dict(m) for m in row.prompt]
        made.append({"prompt": prompt, "chosen": turn(row.responses[0]), "rejected": turn(row.responses[1])})
    return made


def precision(name: Literal["bf16", "fp32"]) -> Precision:
    """As a run would choose it, once it was asked for this number format."""
    return choose(name, CPU)


def step_on(model: Loaded, rows: Encoded, how: Precision, budget: int | None = None) -> Callable[[], object]:
    """One optimiser step of DPO as a run takes it: counting, micro-batches, forward, backward, metrics, clipping, AdamW. The
    reference's log-probs were computed before, as in a run. budget: tokens of a micro-batch, if not the settings' own."""
    how.apply()
    budget = budget or Settings().tokens
    with torch.no_grad(), how.forward(CPU):
        model.policy.follow(model.policy.scoring_path)  # probed now, not in the first step
        groups = model.domain.cost(model.policy, rows).micro_batches(budget)
        ref = torch.zeros(len(rows.lengths), max(rows.lengths))
        for group in groups:
            some = model.domain.score(model.policy, rows.select(group)).logp
            ref[rows.places(group), : some.shape[1]] = some
    parameters = [p for _, p in model.policy.named_trainable()]
    optimiser = torch.optim.AdamW(parameters, lr=RATE, weight_decay=0.0, fused=True)
    step = Step(model.policy, model.domain, DPO(beta=BETA), optimiser, Accelerator(cpu=True), how, tokens=budget, clip=1.0)
    material = Material(rows, {"ref": lambda some: ref[rows.places(some), : max(rows.select(some).lengths)]})

    def act() -> object:
        how.apply()
        outcome = step(material, range(len(rows)), {})
        optimiser.zero_grad(set_to_none=True)  # the others find the memory free
        return outcome

    return act


def needed(model: Loaded, rows: Encoded) -> float:
    """Operations that one training step cannot do without: 2 for each weight and token forwards and twice that backwards, in
    the body once for every token of a prompt and its responses, in the head once for every token that is predicted.
    Attention scores are left out."""
    head = model.policy.plain_model.get_output_embeddings().weight.numel()
    body = sum(p.numel() for _, p in model.policy.named_parameters()) - head
    read = sum(len(x) + sum(len(y) - 1 for y in ys) for x, ys in zip(rows.contexts, rows.responses, strict=True))
    return 3.0 * (2.0 * body * read + 2.0 * head * sum(rows.lengths))

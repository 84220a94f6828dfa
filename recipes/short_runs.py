"""Many short runs of a real language model from one start: only its upper layers train, so the frozen rest reads each row once
for all of them. It is not another way to align: `penchant.align` trains a model, judges the run and leaves a report."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import data
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from penchant.domains.base import Encoded, Want
from penchant.domains.text.models import load
from penchant.engine.batching import steps
from penchant.engine.loop import schedule
from penchant.engine.precision import choose
from penchant.engine.settings import Settings
from penchant.engine.step import Material, Step
from penchant.feedback import open_source
from penchant.objectives.base import Objective, zeros
from penchant.objectives.scored import Pairs, Scored, masks


class Bench:
    """One model for many runs: each starts from the same weights and is held against them."""

    def __init__(
        self,
        model: str = "smollm2",
        *,
        layers: int = 6,
        max_length: int = 128,
        tokens: int = 2048,
        head: Literal["lm", "reward"] = "lm",
    ) -> None:
        """`max_length`: longer rows are left out. `tokens`: of a micro-batch. head: reward makes reward models of it, which have
        no reference and no answers."""
        self.accelerator = Accelerator(cpu=True)
        self.precision = choose("auto", self.accelerator.device)
        self.precision.apply()
        loaded = load(model, top=layers, max_length=max_length, too_long="drop", head=head)
        self.domain, self.policy, self.tokens, self.head = loaded.domain, loaded.policy, tokens, head
        with self.precision.forward(self.accelerator.device):
            self.policy.follow(self.policy.scoring_path)
        self.start = {name: p.clone() for name, p in self.policy.state().items()}
        self._ref: dict[str, Tensor] = {}

    def encode(self, rows: data.Rows) -> Encoded:
        """The rows that fit, as ids."""
        return self.domain.encode(open_source(rows, bad_rows="drop"))

    def train(
        self, objective: Objective, rows: Encoded, *, batch: int = 8, learning_rate: float = 3e-5, seed: int = 0
    ) -> dict[str, Tensor]:
        """One epoch from the start weights, AdamW with warm-up and linear decay; the policy then holds what came of it. The
        objective's state at the end."""
        settings = Settings(batch=batch, learning_rate=learning_rate, seed=seed, tokens=self.tokens)
        held_against = ("ref", "prev", "history/0") if self.head == "lm" else ()
        if held_against:
            self.reference(rows)
        self.policy.load_state(self.start)
        trained = [p for _, p in self.policy.named_trainable()]
        optimiser = torch.optim.AdamW(trained, lr=learning_rate, weight_decay=settings.weight_decay, fused=True)
        step = Step(
            self.policy,
            self.domain,
            objective,
            optimiser,
            self.accelerator,
            self.precision,
            tokens=self.tokens,
            clip=settings.clip,
        )
        anchor = lambda chosen: self.reference(rows.select(chosen))  # noqa: E731
        material = Material(rows, dict.fromkeys(held_against, anchor))
        plan = steps(len(rows), batch, settings.epochs, seed, None)
        state: dict[str, Tensor] = zeros(objective, {"annotator": max(len(rows.annotators), 1)})
        for place, chosen in enumerate(plan):
            for group in optimiser.param_groups:
                group["lr"] = learning_rate * schedule(settings, 0, place, len(plan), 1)
            state = step(material, chosen, state).state
        return state

    @torch.no_grad()
    def logp(self, rows: Encoded) -> Tensor:
        """log π of all responses as the policy stands, [n, steps]; of a reward model the scores, [n, 1]."""
        out = torch.zeros(len(rows.lengths), max(rows.steps(self.head)))
        for group in self.domain.cost(self.policy, rows).micro_batches(self.tokens):
            with self.precision.forward(self.accelerator.device):
                found = self.domain.score(self.policy, rows.select(group), Want(head=self.head)).logp
            out[rows.places(group), : found.shape[1]] = found
        return out

    def reference(self, rows: Encoded) -> Tensor:
        """log π_ref of all responses, [n, steps]; texts that are new are scored by the start weights."""
        keys = rows.keys
        if any(key not in self._ref for key in keys):
            now = {name: p.clone() for name, p in self.policy.state().items()}
            self.policy.load_state(self.start)
            self._ref |= {k: y[:n] for k, y, n in zip(keys, self.logp(rows), rows.lengths, strict=True)}
            self.policy.load_state(now)
        return nn.utils.rnn.pad_sequence([self._ref[key] for key in keys], batch_first=True)

    def score(self, rows: Encoded) -> Scored:
        """All responses, flat, as the trained policy sees them and as the start did."""
        ref = self.reference(rows) if self.head == "lm" else None
        return Scored(self.logp(rows), masks(rows.steps(self.head)), ref)

    def pairs(self, rows: Encoded) -> Pairs:
        """Pairs as the trained policy sees them."""
        found = rows.batch(self.score(rows))
        assert isinstance(found, Pairs)
        return found

    def answers(self, prompts: Sequence[Any], count: int, limit: int, seed: int) -> Answers:
        """`count` sampled answers of at most `limit` tokens to each prompt."""
        samples = self.domain.sample(self.policy, prompts, count=count, limit=limit, seed=seed, scored=False)
        ended = torch.tensor([stopped for row in samples.stopped for stopped in row])
        return Answers(self.score(samples.encoded), ended)


@dataclass(frozen=True, eq=False)
class Answers:
    """Sampled answers, flat."""

    scored: Scored
    """By the policy that gave them, with the start as reference: the mean of `ratio` is KL(π ‖ start) in nats an answer."""
    ended: Tensor
    """Which ended by themselves rather than by the limit, [n]."""


def bare(row: dict[str, Any]) -> dict[str, Any]:
    """The row under an empty system message: the template's own would cost a third of a short pair's tokens."""
    return {**row, "prompt": [{"role": "system", "content": ""}, {"role": "user", "content": row["prompt"]}]}


def split(rows: Encoded, held_out: int, seed: int, most: int | None = None) -> tuple[Encoded, Encoded]:
    """Rows to train on (at most `most`) and at least so many to judge by; a prompt is on one side only."""
    prompts: dict[bytes, list[int]] = {}
    for i, context in enumerate(rows.contexts):
        prompts.setdefault(context.numpy().tobytes(), []).append(i)
    groups = list(prompts.values())
    random.Random(seed).shuffle(groups)
    held: list[int] = []
    while len(held) < held_out:
        held += groups.pop()
    return rows.select([i for group in groups for i in group][:most]), rows.select(held)

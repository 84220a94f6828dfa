"""Many short runs of a real language model: only its upper layers train, so what the frozen rest makes of a text is computed
once for all of them. It is not another way to align: `penchant.align` trains a model, judges the run and leaves a report."""

from __future__ import annotations

import copy
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from typing import Any

import data
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from penchant.domains.base import Encoded, Want
from penchant.domains.logits import chunked_values
from penchant.domains.models import load
from penchant.domains.paths import ScoringPath
from penchant.domains.policy import PLAIN, TextPolicy
from penchant.engine.batching import steps
from penchant.engine.loop import schedule
from penchant.engine.precision import choose
from penchant.engine.settings import Settings
from penchant.engine.step import Material, Step
from penchant.feedback import open_source
from penchant.objectives.base import Objective, zeros
from penchant.objectives.scored import Pairs, Scored, masks


class Upper(TextPolicy):
    """A language model whose last `layers` train, with its final norm; the layers below, the embedding and the head (which
    are one matrix) stay as they are. What the lower layers make of a text is kept in memory, in float32; responses to one
    prompt share the reading of it, each blind to the others."""

    def __init__(self, policy: TextPolicy, layers: int) -> None:
        super().__init__(policy.model, policy.tokenizer, stops=policy.stops)
        whole: Any = self.plain_model
        below, above = whole.model.layers[:-layers], whole.model.layers[-layers:]
        self.requires_grad_(False)
        for part in (above, whole.model.norm):
            part.requires_grad_(True)
        # Views of the same modules, kept out of this module's own parts: every parameter has one name.
        self._parts = (sliced(whole.model, below, nn.Identity()), sliced(whole.model, above, whole.model.norm))
        self.path = ScoringPath("padded", "logits")  # what rows cost; how they are read is decided here
        self._kept: dict[tuple[bytes, bytes], Tensor] = {}

    def forward(
        self, contexts: Sequence[Tensor], responses: Sequence[Sequence[Tensor]], want: Want = PLAIN
    ) -> dict[str, Tensor]:
        contexts = [context for context, several in zip(contexts, responses, strict=True) for _ in several]
        return self._flat(contexts, [y for several in responses for y in several], want)

    def _flat(self, contexts: Sequence[Tensor], responses: Sequence[Tensor], want: Want) -> dict[str, Tensor]:
        rows: dict[bytes, list[int]] = {}
        for i, context in enumerate(contexts):
            rows.setdefault(context.numpy().tobytes(), []).append(i)
        packed = Packed([[contexts[group[0]], *(responses[i][:-1] for i in group)] for group in rows.values()])
        names = [[(name, b""), *((name, responses[i].numpy().tobytes()) for i in group)] for name, group in rows.items()]
        above = self._parts[1](inputs_embeds=self._below(packed, names), **packed.shared, use_cache=False)
        found = above.last_hidden_state
        whole: Any = self.plain_model
        mask = masks([len(y) for y in responses])
        # A response's first token is predicted by the prompt's last, each further one by the token before it.
        row, place = torch.zeros(mask.shape, dtype=torch.long), torch.zeros(mask.shape, dtype=torch.long)
        for r, group in enumerate(rows.values()):
            for i, begin in zip(group, packed.begins[r][1:], strict=True):
                row[i], last = r, len(contexts[i]) - 1
                place[i, : len(responses[i])] = torch.cat(
                    [torch.tensor([last]), begin + torch.arange(len(responses[i]) - 1)]
                )
        answer = torch.cat(list(responses))[None]
        said = chunked_values(
            whole.lm_head(found[row[mask], place[mask]])[None], answer, torch.ones_like(answer).bool(), want
        )
        return {name: torch.zeros(mask.shape).masked_scatter(mask, x[0]) for name, x in said.items()}

    @torch.no_grad()
    def _below(self, packed: Packed, names: list[list[tuple[bytes, bytes]]]) -> Tensor:
        """What the frozen layers make of these rows, [n, tokens, width]: looked up, or read and kept."""
        if not all(name in self._kept for row in names for name in row):
            fresh = self._parts[0](input_ids=packed.tokens, **packed.shared, use_cache=False).last_hidden_state
            for row, said, begins, parts in zip(names, fresh, packed.begins, packed.rows, strict=True):
                for name, begin, part in zip(row, begins, parts, strict=True):
                    self._kept[name] = said[begin : begin + len(part)].float().clone()
        return nn.utils.rnn.pad_sequence([torch.cat([self._kept[name] for name in row]) for row in names], batch_first=True)


class Packed:
    """Rows of [prompt | response | response …], padded at the end; a response sees the prompt and itself, and its positions
    go on from the prompt's."""

    def __init__(self, rows: list[list[Tensor]]) -> None:
        """`rows`: each prompt's ids and those of its responses, without their last tokens, which predict nothing."""
        self.rows = rows
        self.begins = [list(accumulate(map(len, row), initial=0))[:-1] for row in rows]
        """Where each part of a row begins."""
        pad = partial(nn.utils.rnn.pad_sequence, batch_first=True)
        self.tokens = pad([torch.cat(row) for row in rows])
        part = pad([torch.cat([torch.full((len(x),), k) for k, x in enumerate(row)]) for row in rows], padding_value=-1)
        place = pad([torch.cat([torch.arange(len(x)) + len(row[0]) * (k > 0) for k, x in enumerate(row)]) for row in rows])
        size = part.shape[1]
        seen = (part[:, None, :] == part[:, :, None]) | (part[:, None, :] == 0)
        seen = seen & torch.ones(size, size, dtype=torch.bool).tril()
        self.shared = {"attention_mask": seen[:, None], "position_ids": place}
        """What every layer is told: who sees whom, [n, 1, tokens, tokens], and the positions."""


def sliced(decoder: nn.Module, layers: nn.ModuleList, norm: nn.Module) -> nn.Module:
    """The decoder with some of its layers and another end; parameters are shared, not copied."""
    part = copy.copy(decoder)
    part._modules = {**decoder._modules, "layers": layers, "norm": norm}
    return part


class Bench:
    """One model for many runs: each starts from the same weights and is held against them."""

    def __init__(self, model: str = "smollm2", *, layers: int = 6, max_length: int = 128, tokens: int = 2048) -> None:
        """`max_length`: longer rows are left out. `tokens`: of a micro-batch."""
        self.accelerator = Accelerator(cpu=True)
        self.precision = choose("auto", self.accelerator.device)
        self.precision.apply()
        loaded = load(model, max_length=max_length, too_long="drop")
        self.domain, self.policy, self.tokens = loaded.domain, Upper(loaded.policy, layers), tokens
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
        material = Material(rows, dict.fromkeys(("ref", "prev", "history/0"), anchor))
        plan = steps(len(rows), batch, settings.epochs, seed, None)
        state: dict[str, Tensor] = zeros(objective, {"annotator": max(len(rows.annotators), 1)})
        for place, chosen in enumerate(plan):
            for group in optimiser.param_groups:
                group["lr"] = learning_rate * schedule(settings, 0, place, len(plan), 1)
            state = step(material, chosen, state).state
        return state

    @torch.no_grad()
    def logp(self, rows: Encoded) -> Tensor:
        """log π of all responses as the policy stands, [n, steps]."""
        out = torch.zeros(len(rows.lengths), max(rows.lengths))
        for group in self.domain.cost(self.policy, rows).micro_batches(self.tokens):
            with self.precision.forward(self.accelerator.device):
                found = self.domain.score(self.policy, rows.select(group)).logp
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
        return Scored(self.logp(rows), masks(rows.lengths), self.reference(rows))

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

"""Policies over finite sets of responses, trained by the engine's own step: small enough that optima, regrets and divergences
are exact and many seeds run in seconds. It is no stand-in for a language model; what needs one says so and uses one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from penchant.domains.base import Cost, Encoded, Samples, Want
from penchant.engine.batching import steps as plan_steps
from penchant.engine.batching import strangers
from penchant.engine.precision import Precision
from penchant.engine.step import Material, Step
from penchant.errors import Refusal
from penchant.feedback.records import Row
from penchant.objectives import Labelled, Lists, Objective, Pairs, Scored
from penchant.objectives.base import zeros

PLAIN = Want()
ALL_TOKENS = 10**9
"""A micro-batch that holds any step: nothing here is large."""
PLAINLY = Precision("fp32", "highest", {})


class Policy(nn.Module):
    """π(y | x) = softmax over x's responses of `start` + what `table` (free) or `features · theta` (shared) adds."""

    def __init__(self, start: Tensor, features: Tensor | None = None, scale: float = 1.0) -> None:
        """`start`: logits [prompts, responses] before training, which make the reference; `features`: [prompts,
        responses, d], multiplied by `scale` and a trained vector theta, else every logit is free."""
        super().__init__()
        shape = start.shape if features is None else features.shape[-1:]
        self.theta = nn.Parameter(torch.zeros(shape, dtype=start.dtype))
        self.start = nn.Buffer(start.clone())
        self.features = None if features is None else nn.Buffer(features * scale)

    def logp(self) -> Tensor:
        """log π(y | x), [prompts, responses]."""
        added = self.theta if self.features is None else self.features @ self.theta
        return (self.start + added).log_softmax(-1)

    @torch.no_grad()
    def probabilities(self) -> Tensor:
        """π(y | x), [prompts, responses]."""
        return self.logp().exp()

    def forward(self, prompts: Tensor, responses: Tensor) -> Tensor:
        return self.logp()[prompts, responses]


class Finite:
    """The domain of numbered prompts and numbered responses, each response one step."""

    name, noisy = "finite", False

    def encode(self, rows: Iterable[Row]) -> Encoded:
        raise Refusal("finite sets are given as numbers: use pairs(), lists() or labelled().")

    def score(self, policy: nn.Module, encoded: Encoded, want: Want = PLAIN) -> Scored:
        if want.values:
            raise Refusal(f"a finite policy has no values; {sorted(want.values)} were wanted.")
        prompts = torch.cat([context for context, _ in encoded.flat])
        responses = torch.cat([response for _, response in encoded.flat])
        logp = policy(prompts, responses)[:, None]
        return Scored(logp, torch.ones_like(logp, dtype=torch.bool))

    def cost(self, policy: nn.Module, encoded: Encoded) -> Cost:
        return Cost(encoded.sizes, padded=True)

    def sample(
        self,
        policy: nn.Module,
        contexts: Sequence[Any],
        *,
        count: int = 1,
        limit: int = 64,
        temperature: float = 1.0,
        top_p: float = 1.0,
        seed: int = 0,
        scored: bool = True,
        sampler: Any = None,
    ) -> Samples:
        raise Refusal("a finite policy is sampled with draw(), or taken whole: probabilities() are exact.")

    def recombine(self, encoded: Encoded, i: Sequence[int], j: Sequence[int]) -> Encoded:
        return replace(encoded.select(list(i)), responses=tuple((encoded.responses[k][0],) for k in j))


def pairs(prompt: Tensor, chosen: Tensor, rejected: Tensor, **columns: Tensor) -> Encoded:
    """Pairs from numbers [n]; columns (annotator, strength, margin, …) have one value per pair."""
    both = tuple(zip(chosen.view(-1, 1), rejected.view(-1, 1), strict=True))
    people = tuple(f"annotator {k}" for k in range(int(columns["annotator"].max()) + 1)) if "annotator" in columns else ()
    return _encoded(Pairs, prompt, both, columns, people)


def labelled(prompt: Tensor, response: Tensor, label: Tensor) -> Encoded:
    """Single responses from numbers [n], called good (True) or bad."""
    return _encoded(Labelled, prompt, tuple((y,) for y in response.view(-1, 1)), {"label": label})


def lists(prompt: Tensor, responses: Sequence[Tensor], gains: Sequence[Tensor]) -> Encoded:
    """Lists of numbered responses with their gains, one tensor per prompt; they may be of unequal length."""
    return _encoded(Lists, prompt, tuple(tuple(y.view(-1, 1)) for y in responses), {"gain": torch.cat(list(gains)).float()})


def _encoded(
    kind: type, prompt: Tensor, responses: Any, columns: Mapping[str, Tensor], annotators: tuple[str, ...] = ()
) -> Encoded:
    return Encoded(kind, tuple(prompt.view(-1, 1)), responses, tuple(range(1, len(prompt) + 1)), dict(columns), annotators)


def draw(probabilities: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """`count` responses to each prompt, drawn independently: [prompts, count]."""
    return torch.multinomial(probabilities, count, replacement=True, generator=generator)


def train(
    policy: Policy,
    objective: Objective,
    rows: Encoded,
    *,
    steps: int,
    batch: int | None = None,
    rate: float = 0.05,
    seed: int = 0,
    optimiser: type[torch.optim.Optimizer] = torch.optim.Adam,
    state: Mapping[str, Tensor] | None = None,
    reference: Policy | None = None,
    domain: Finite | None = None,
) -> dict[str, Tensor]:
    """Trains `policy` in place for so many steps of `batch` rows (all rows where not given) and gives the objective's state.
    The reference is `reference`, or the policy as it comes; it is also the start of this phase and all of its history."""
    domain, frozen = domain or Finite(), deepcopy(reference or policy).requires_grad_(False)
    step = Step(
        policy,
        domain,
        objective,
        optimiser(policy.parameters(), lr=rate),  # pyright: ignore[reportCallIssue]
        Accelerator(cpu=True),
        PLAINLY,
        tokens=ALL_TOKENS,
        clip=float("inf"),
    )
    anchor = lambda some: domain.score(frozen, rows.select(some)).logp  # noqa: E731
    material = Material(rows, dict.fromkeys(("ref", "prev", "history/0"), anchor))
    if objective.needs.mismatched:
        other = strangers([context.numpy().tobytes() for context in rows.contexts], seed)
        mixed = domain.recombine(rows, range(len(rows)), other)
        strange = lambda some: domain.score(frozen, mixed.select(some)).logp  # noqa: E731
        material = replace(material, mismatched=mixed, mismatched_anchors={"ref": strange})
    memory = dict(state) if state is not None else zeros(objective, {"annotator": len(rows.annotators)})
    for some in plan_steps(len(rows), batch or len(rows), 1, seed, steps):
        memory = step(material, some, memory).state
    return memory


def value(policy: Policy, reward: Tensor) -> float:
    """E over prompts of Σ_y π(y | x) reward[x, y]."""
    return float((policy.probabilities() * reward).sum(-1).mean())


@torch.no_grad()
def divergence(policy: Policy, reference: Policy) -> float:
    """KL(π ‖ π_ref) in nats, the mean over prompts."""
    now, then = policy.logp(), reference.logp()
    return float((now.exp() * (now - then)).sum(-1).mean())

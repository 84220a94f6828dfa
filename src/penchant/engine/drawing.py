"""Answers drawn for a run, each process its share, and how far the sampler and the trainer disagree about the very tokens that
were drawn. It judges nothing."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from contextlib import nullcontext
from dataclasses import replace

import torch
from accelerate import Accelerator
from torch import Tensor

from penchant.domains.base import Samples
from penchant.domains.sharding import gathered
from penchant.domains.text.policy import TextPolicy, unwrap
from penchant.domains.text.sampling import Answer, Sampler, generate
from penchant.engine.metrics import reduced
from penchant.engine.settings import Settings
from penchant.engine.sources import Scorer
from penchant.errors import Refusal, StoppedRun
from penchant.feedback.records import Prompt
from penchant.rollouts.round import Agreement
from penchant.rollouts.server import Server

CHECKED = 64
"""Answers of a round, each to another prompt, whose tokens are scored again."""
FOREIGN = 0.1
"""Largest mean |Δ log π| of a token between this run and a server. Other kernels and number formats explain a fraction of it;
other weights, or log-probs taken at another temperature, many times more."""


class Drawing:
    """Draws with the run's own model in the run's own number format, or has a server draw."""

    def __init__(self, scorer: Scorer, settings: Settings, accelerator: Accelerator, server: Server | None) -> None:
        self._scorer, self._settings, self._accelerator, self._server = scorer, settings, accelerator, server

    def __call__(self, prompts: Sequence[Prompt], seed: int) -> tuple[Samples, Agreement | None]:
        """Every process gets all answers; which one drew an answer changes its rounding alone. Raises Refusal, in every
        process if in one; StoppedRun where sampler and trainer disagree by more than rounding explains."""
        scorer, settings = self._scorer, self._settings
        inner, policy = generate if self._server is None else self._server, scorer.policy
        if self._server is not None:  # put together by all processes, kept by the one that hands them to the server
            self._server.tensors = unwrap(policy).tensors(keep=self._accelerator.is_main_process)
        own = gathered(policy) if self._server is None else nullcontext()
        with scorer.precision.forward(scorer.device), own:
            samples = scorer.domain.sample(
                policy,
                prompts,
                count=settings.samples,
                limit=settings.limit,
                temperature=settings.temperature,
                top_p=settings.top_p,
                seed=seed,
                scored=False,
                sampler=Together(inner, self._accelerator, alone=self._server is not None),
            )
        return samples, self._checked(samples)

    def _checked(self, samples: Samples) -> Agreement | None:
        """The first answers to up to CHECKED prompts, scored as training scores them. None where the sampler says no
        log-probs."""
        if samples.drawn is None:
            return None
        scorer, encoded = self._scorer, samples.encoded
        stride = math.ceil(len(encoded) / CHECKED)
        rows = range(0, len(encoded), stride)
        theirs = samples.drawn.logp[[encoded.places([i])[0] for i in rows]]
        some = replace(encoded, responses=tuple(ys[:1] for ys in encoded.responses), columns={}).select(rows)
        apart: list[Tensor] = []
        for group in scorer.micro_batches(some):
            for i, ours in zip(group, scorer.now(some.select(group)).cpu(), strict=True):
                n = some.lengths[i]
                apart.append((ours[:n] - theirs[i, :n]).abs().double())
        every = torch.cat(apart)
        found = Agreement(float(every.mean()), float(every.max()), len(every))
        own = self._server is None
        said, bound = (found.largest, scorer.precision.tolerance) if own else (found.mean, FOREIGN)
        if not said <= bound:
            raise StoppedRun(
                f"the same {len(every):,} tokens were scored by the sampler and by the trainer, and their log-probs differ by "
                f"{found.mean:.3g} nats a token in the mean, {found.largest:.3g} at most; "
                + (
                    f"in {scorer.precision.name} rounding explains {bound:g} at most. Report this with the model's name."
                    if own
                    else f"a mean of {bound:g} is allowed. The server does not compute with this policy's weights, or says "
                    "log-probs after temperature and top_p (it must run with its default --logprobs-mode raw_logprobs)."
                )
            )
        return found


class Plain:
    """Draws by the domain's own sampler, where responses are no texts. Every process draws all of them; what the first one drew is
    saved and learned from by all."""

    def __init__(self, scorer: Scorer, settings: Settings, keep: Callable[[Samples], None]) -> None:
        """keep: puts what was drawn where a person can look at it."""
        self._scorer, self._settings, self._keep = scorer, settings, keep

    def __call__(self, prompts: Sequence[Prompt], seed: int) -> tuple[Samples, Agreement | None]:
        scorer, settings = self._scorer, self._settings
        with scorer.precision.forward(scorer.device):
            samples = scorer.domain.sample(
                scorer.policy,
                prompts,
                count=settings.samples,
                limit=settings.limit,
                temperature=settings.temperature,
                top_p=settings.top_p,
                seed=seed,
                scored=False,
            )
        self._keep(samples)
        return samples, None


def told(accelerator: Accelerator, problem: Exception | None, what: str) -> None:
    """Raises in every process where one has a problem, so that none waits for what will not come. Every process calls it."""
    failed = reduced(accelerator, torch.tensor(float(problem is not None), device=accelerator.device))
    if problem is not None:
        raise problem
    if failed:
        raise Refusal(f"another process could not {what}, and says why.")


class Together:
    """A sampler whose prompts are shared out over the processes. All get all answers."""

    def __init__(self, sampler: Sampler, accelerator: Accelerator, alone: bool) -> None:
        """alone: only the first process draws, as where a server puts all prompts into one batch."""
        self._sampler, self._accelerator, self._alone = sampler, accelerator, alone

    def __call__(
        self,
        policy: TextPolicy,
        prompts: Sequence[Tensor],
        *,
        stops: Collection[int],
        count: int,
        limit: int,
        temperature: float,
        top_p: float,
        seed: int,
        batch: int,
        numbers: Sequence[int],
    ) -> list[list[Answer]]:
        """What the sampler says. What it raises in one process, every process raises or is told of."""
        accelerator = self._accelerator
        first, world = (0, 1) if self._alone else (accelerator.process_index, accelerator.num_processes)
        mine = range(first, len(prompts), world) if not self._alone or accelerator.is_main_process else range(0)
        drawn: list[list[Answer]] = []
        problem: Exception | None = None
        try:
            if len(mine):
                drawn = self._sampler(
                    policy,
                    [prompts[i] for i in mine],
                    stops=stops,
                    count=count,
                    limit=limit,
                    temperature=temperature,
                    top_p=top_p,
                    seed=seed,
                    batch=batch,
                    numbers=[numbers[i] for i in mine],
                )
        except (Refusal, RuntimeError) as error:  # the others wait below, and must hear of it
            problem = error
        told(accelerator, problem, "draw its answers")
        ids = torch.zeros(len(prompts), count, limit, dtype=torch.long)
        logp, lengths = torch.zeros(ids.shape), torch.zeros(ids.shape[:2], dtype=torch.long)
        for i, answers in zip(mine, drawn, strict=True):
            for k, answer in enumerate(answers):
                n = len(answer.ids)
                ids[i, k, :n], logp[i, k, :n], lengths[i, k] = answer.ids, answer.logp, n
        ids, logp, lengths = (reduced(accelerator, x.to(accelerator.device)).cpu() for x in (ids, logp, lengths))
        return [
            [Answer(ids[i, k, :n].clone(), logp[i, k, :n].clone()) for k, n in enumerate(ns)]
            for i, ns in enumerate(lengths.tolist())
        ]

"""What a run will hold in memory, and the micro-batches that keep it to a limit. How a peak is measured and a budget follows from
it stands in the engine; here is what is measured: the run's own longest row, made two."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

import torch

from penchant.domains.base import Encoded, Want
from penchant.domains.text.chat import Unfit
from penchant.domains.text.extras import SECOND
from penchant.domains.text.models import Loaded
from penchant.domains.text.paths import ScoringPath
from penchant.engine.budget import Budget, fitted
from penchant.engine.precision import Precision
from penchant.engine.settings import Settings
from penchant.objectives.base import Objective
from penchant.objectives.scored import Pairs
from penchant.running.subject import Prepared

SHAPES = 8
"""Rows of different lengths that are scored before memory is measured: a CPU's kernels keep some 20 MiB for each new shape of the
packaged model, up to a few hundred."""


def budget(
    loaded: Loaded,
    prepared: Prepared,
    objective: Objective,
    settings: Settings,
    precision: Precision,
    scoring: ScoringPath,
    device: torch.device,
    processes: int,
) -> Budget | None:
    """The token budget for the limit of memory that was asked for; None where none was."""
    if settings.max_memory is None:
        return None
    policy, domain = loaded.policy, loaded.domain
    policy.follow(scoring)
    rows = _sampled(loaded, prepared, settings.limit) if prepared.train is None else prepared.train
    sizes = domain.cost(policy, rows).sizes
    some = rows.select([max(range(len(sizes)), key=sizes.__getitem__)] * 2)
    first = some.contexts[0]
    other = torch.cat([(first[:1] - 1).abs(), first[1:]])  # responses to one prompt would be read as one row
    some = replace(some, contexts=(first, other))

    def both(encoded: Encoded) -> None:
        with precision.forward(device):
            logp = domain.score(policy, encoded, Want(head=objective.needs.head)).logp
        logp.sum().backward()

    unseen = _spread(sizes, SHAPES)

    def work(times: int) -> None:
        while unseen:  # what kernels keep for every new shape is there before anything is measured
            both(rows.select([unseen.pop()]))
        both(some.select(range(times)))

    def free() -> None:
        policy.zero_grad(set_to_none=True)

    later = held_later(loaded, objective, settings, processes)
    return fitted(settings.max_memory, max(sizes), settings.batch, work, free, later, device)


def _spread(sizes: list[int], count: int) -> list[int]:
    """Places of at most `count` rows from the shortest to the longest, no two of a size."""
    of_size = {size: i for i, size in enumerate(sizes)}
    order = [of_size[size] for size in sorted(of_size)]
    return [order[k * (len(order) - 1) // max(count - 1, 1)] for k in range(count)] if len(order) > count else order


def held_later(loaded: Loaded, objective: Objective, settings: Settings, processes: int) -> int:
    """Bytes that a run will hold besides the model and its gradients: AdamW's two moments, on several ranks the gradients
    that are under way between them, and a copy of a model that trains whole where its start is scored again."""
    policy = loaded.policy
    trained = sum(p.numel() * p.element_size() for _, p in policy.named_trainable())
    whole = sum(p.numel() * p.element_size() for p in policy.parameters())
    again = policy.reference is None and (settings.rounds > 1 or bool(objective.needs.values & SECOND))
    return (3 if processes > 1 else 2) * trained + (whole if again else 0)


def _sampled(loaded: Loaded, prepared: Prepared, limit: int) -> Encoded:
    """A pair as long as any that sampling can make."""
    size = 1
    for context in prepared.prompts:
        with suppress(Unfit):  # it is refused with its number when it is asked
            size = max(size, len(loaded.domain.chat.prompt(context.prompt)))
    row = (torch.ones(limit, dtype=torch.long),) * 2
    return Encoded(Pairs, (torch.ones(size, dtype=torch.long),), (row,), (1,))

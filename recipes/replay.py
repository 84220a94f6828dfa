"""An on-policy run's own stream of pairs, read again in order by the loop that trains on files: online is offline and a sampler.
It samples and judges nothing; the order it reads in can be kept, mixed locally or given up."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import Accelerator
from torch import Tensor

from penchant.domains.base import Encoded
from penchant.domains.text.models import load
from penchant.domains.text.paths import ScoringPath
from penchant.engine.folder import RunFolder
from penchant.engine.loop import Job, train
from penchant.engine.settings import Settings
from penchant.engine.sources import Anchors, Scorer
from penchant.engine.step import Material
from penchant.errors import Refusal
from penchant.feedback import open_source
from penchant.objectives import Objective
from penchant.rollouts.round import Round
from penchant.running.choices import follow

Stream = Literal["ids", "text"]
"""ids: the rounds as they were kept, the sampled ids themselves. text: pairs.jsonl, whose responses are encoded again."""


def order(length: int, share: float, seed: int) -> list[int]:
    """Places of a stream mixed within consecutive blocks of `share` of it: 0 leaves it as it is, 1 is a random order."""
    if not 0 <= share <= 1:
        raise Refusal(f"share={share}: a stream is mixed within blocks of 0 to 1 of its length.")
    block, make = max(1, round(share * length)), torch.Generator().manual_seed(seed)
    starts = range(0, length, block)
    return [at + i for at in starts for i in torch.randperm(min(block, length - at), generator=make).tolist()]


def recorded(run: Path, domain: Any, stream: Stream) -> list[Encoded]:
    """The pairs of every round of a run, in order."""
    folder = RunFolder(run)
    if stream == "ids":
        return [Round.load(path, domain).pairs.encoded for path in sorted(folder.rounds.glob("round-*.jsonl"))]
    rows = [json.loads(line) for line in folder.pairs.read_text(encoding="utf-8").splitlines()]
    rounds: dict[int, list[dict[str, Any]]] = {}
    for row in rows:
        rounds.setdefault(row["round"], []).append(row)
    return [domain.encode(open_source(rounds[number])) for number in sorted(rounds)]


class Recorded:
    """A source of rows for the loop: a phase for each recorded round."""

    annotators: tuple[str, ...] = ()

    def __init__(self, rounds: Sequence[Encoded], anchors: Anchors) -> None:
        self.phases, self._rounds, self._anchors = len(rounds), rounds, anchors

    def material(self, phase: int, step: int, begun: bool = False) -> Material:
        return self._anchors.material(self._rounds[phase], f"recorded round {phase + 1}", self.annotators)


def replayed(
    run: Path, model: str, objective: Objective, settings: Settings, output: Path, rounds: Sequence[Encoded] | None = None
) -> dict[str, Tensor]:
    """The weights that the offline loop comes to on an on-policy run's stream, from the same model, by name. rounds: other
    rows in the place of its own. It computes as the run did: number format, way of reading and token budget are the run's."""
    if objective.needs.anchors - {"ref"} or objective.needs.mismatched:
        raise Refusal(f"{objective!r} is held against more than the run's start, which a stream of pairs does not hold.")
    loaded = load(model, max_length=settings.max_length)
    chosen = RunFolder(run).choices
    precision = follow(chosen)
    loaded.policy.follow(ScoringPath(**chosen["scoring"]))
    settings = settings.model_copy(update={"tokens": chosen["tokens"]})
    accelerator = Accelerator(cpu=True)
    scorer = Scorer(
        loaded.domain,
        loaded.policy,
        precision,
        accelerator.device,
        settings.tokens,
        None,
        lambda: load(model, max_length=settings.max_length).policy,
    )
    anchors = Anchors(scorer, objective, settings, accelerator, output / "reference", lambda title, done, total: None)
    source = Recorded(recorded(run, loaded.domain, "ids") if rounds is None else rounds, anchors)

    def moved(*told: object) -> None:
        scorer.moved = True

    output.mkdir(parents=True, exist_ok=True)
    job = Job(
        *(loaded.policy, loaded.policy, loaded.domain, objective, source, settings, accelerator, precision),
        RunFolder(output),
        report=moved,
    )
    train(job)
    return {name: x.detach().clone() for name, x in loaded.policy.state().items()}


def apart(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """The largest difference of any weight."""
    if one.keys() != other.keys():
        raise Refusal(f"the two models have other weights: {sorted(one.keys() ^ other.keys())[:5]}.")
    return max(float((one[name].float() - other[name].float()).abs().max()) for name in one)


def alike(one: Sequence[Encoded], other: Sequence[Encoded]) -> float:
    """The share of responses that stand in both streams at the same place with the same ids; 0 where a round has another
    number of pairs."""
    if [len(x) for x in one] != [len(x) for x in other]:
        return 0.0
    both = [
        torch.equal(a, b) for x, y in zip(one, other, strict=True) for (_, a), (_, b) in zip(x.flat, y.flat, strict=True)
    ]
    return sum(both) / len(both)

"""From judged samples to pairs the engine can learn from. The pairs are made of the sampled ids themselves: nothing here
encodes a text, since encoding a sampled text again may give other ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from penchant.domains.base import Encoded, Samples
from penchant.errors import Refusal
from penchant.feedback.pairing import How, pair
from penchant.feedback.records import Accounting, Row
from penchant.feedback.writing import as_mapping
from penchant.objectives.scored import Pairs
from penchant.rewards.base import Context, Judgement


@dataclass(frozen=True, eq=False)
class PairSet:
    """The pairs of one round, for the engine and for a file."""

    encoded: Encoded
    """`data` is Pairs; `numbers` are those of the prompts; the column margin is the difference of the two scores."""
    rows: tuple[dict[str, Any], ...]
    """The same pairs as rows of feedback: prompt, chosen, rejected (in the format of the prompt), chosen_score,
    rejected_score, chosen_stopped, rejected_stopped, round. A response that was cut by the length limit did not stop. A
    pair with an empty response has no row: as ids it is the stop token and can be learned from, in a file it is nothing."""
    kept: int
    """Pairs."""
    ties: int
    """Prompts left out because all their responses scored the same."""
    failed: int
    """Prompts left out because a judgement of one of their responses failed."""
    identical: int
    """Prompts left out because their pair would hold one text twice, which a judge of moods scored differently."""


def make_pairs(
    contexts: Sequence[Context], samples: Samples, judgement: Judgement, how: How = "best-worst", round: int = 1
) -> PairSet:
    """Pairs from samples and what a judge said of them. `judgement` has one entry per response, in the order of
    `samples.encoded`; `how` says which of a prompt's responses make pairs: "best-worst", "all" of
    different score, or "ranked" (each with the next best)."""
    encoded, total = samples.encoded, judgement.total
    if len(total) != sum(encoded.counts) or len(contexts) != len(encoded):
        raise Refusal(
            f"{sum(encoded.counts)} responses to {len(encoded)} prompts were sampled, but {len(total)} judgements "
            f"and {len(contexts)} contexts were given; there must be one for each."
        )
    picked: list[tuple[int, int, int, float]] = []  # prompt, winner, loser, difference
    ties = failed = identical = 0
    groups = total.split(encoded.counts)
    for prompt, scores in enumerate(groups):
        if not bool(torch.isfinite(scores).all()):
            failed += 1
            continue
        found = pair(contexts[prompt].prompt, samples.texts[prompt], scores.tolist(), how)
        if not found:
            tied = bool((scores == scores[0]).all())
            ties, identical = ties + tied, identical + (not tied)
        picked += [(prompt, *one) for one in found]
    rows = [
        row(contexts[p], encoded.numbers[p], samples.texts[p][w], samples.texts[p][l])
        | {"chosen_score": decimal(groups[p][w]), "rejected_score": decimal(groups[p][l])}
        | {"chosen_stopped": samples.stopped[p][w], "rejected_stopped": samples.stopped[p][l], "round": round}
        for p, w, l, _ in picked
        if samples.texts[p][w].strip() and samples.texts[p][l].strip()
    ]
    columns: dict[str, Tensor] = {"margin": torch.tensor([margin for *_, margin in picked], dtype=torch.float32)}
    people = tuple(dict.fromkeys(context.annotator for context in contexts if context.annotator is not None))
    if people:  # −1 where a prompt has no annotator, as in encoded files
        place = {None: -1} | {name: i for i, name in enumerate(people)}
        columns["annotator"] = torch.tensor([place[contexts[p].annotator] for p, *_ in picked], dtype=torch.long)
    reasons = {"all scores equal": ties, "judging failed": failed, "identical responses": identical}
    counted = Accounting(
        read=len(picked) + ties + failed + identical,
        kept=len(picked),
        dropped={reason: n for reason, n in reasons.items() if n},
        identical=identical,
    )
    pairs = Encoded(
        Pairs,
        tuple(encoded.contexts[p] for p, *_ in picked),
        tuple((encoded.responses[p][w], encoded.responses[p][l]) for p, w, l, _ in picked),
        tuple(encoded.numbers[p] for p, *_ in picked),
        columns,
        people,
        counted,
    )
    return PairSet(pairs, tuple(rows), len(picked), ties, failed, identical)


def row(context: Context, number: int, chosen: str, rejected: str) -> dict[str, Any]:
    """A pair in the ecosystem's format: strings under a string, chat turns under chat turns."""
    return as_mapping(Row(number, "pairs", context.prompt, (chosen, rejected), annotator=context.annotator))


def decimal(score: Tensor) -> float:
    """A float32 score as the shortest decimal people would write: 0.8316, not 0.8316000103950500."""
    return float(f"{score.item():.7g}")

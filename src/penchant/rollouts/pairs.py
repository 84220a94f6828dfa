"""From judged samples to pairs the engine can learn from. The pairs are made of the sampled ids themselves: nothing here
encodes a text, since encoding a sampled text again may give other ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast, get_args

import torch
from torch import Tensor

from penchant.domains.base import Encoded, Samples
from penchant.errors import Refusal, nearest
from penchant.feedback.pairing import How, pair
from penchant.feedback.ranking import Preferred, Ranking, rank
from penchant.feedback.records import Accounting, Row
from penchant.feedback.writing import as_mapping
from penchant.objectives.scored import Pairs
from penchant.rewards.base import Context, Judgement


@dataclass(frozen=True, eq=False)
class PairSet:
    """The pairs of one round, for the engine and for a file."""

    encoded: Encoded
    """`data` is Pairs; `numbers` are those of the prompts. Scored responses give the column margin, the difference of the
    two scores; compared ones give strength, the probability that the chosen is preferred."""
    rows: tuple[dict[str, Any], ...]
    """The same pairs as rows of feedback: prompt, chosen, rejected (in the format of the prompt), strength (where they were
    compared), chosen_score, rejected_score (where they were scored), chosen_stopped, rejected_stopped, round. A response
    that was cut by the length limit did not stop. A pair with an empty response has no row: as ids it is the stop token and
    can be learned from, in a file it is nothing."""
    kept: int
    """Pairs."""
    ties: int
    """Prompts left out because all their responses scored the same, or no comparison preferred one."""
    failed: int
    """Prompts left out because a judgement of one of their responses failed."""
    identical: int
    """Prompts left out because their pair would hold one text twice, which a judge of moods scored differently."""


Comparisons = Mapping[tuple[int, int], float]
"""P(response i ≻ response j) of one prompt, as far as it was asked; NaN where judging failed."""


def make_pairs(
    contexts: Sequence[Context],
    samples: Samples,
    judgement: Judgement,
    how: How | Ranking = "best-worst",
    round: int = 1,
    compared: Sequence[Comparisons] | None = None,
) -> PairSet:
    """Pairs from samples and what a judge said of them. `judgement` has one entry per response, in the order of
    `samples.encoded`; `how` says which of a prompt's responses make pairs: by score "best-worst", "all" of different score
    or "ranked" (each with the next best); by comparison a Ranking. What a comparer said is in `compared`, one entry per
    prompt; without it scores compare by the Bradley-Terry model, P(i ≻ j) = σ(score i − score j)."""
    encoded, total = samples.encoded, judgement.total
    if len(total) != sum(encoded.counts) or len(contexts) != len(encoded):
        raise Refusal(
            f"{sum(encoded.counts)} responses to {len(encoded)} prompts were sampled, but {len(total)} judgements "
            f"and {len(contexts)} contexts were given; there must be one for each."
        )
    ranking = how in get_args(Ranking)
    if compared is not None and not ranking:
        raise Refusal(f"how = {how!r} pairs by scores, but the responses were compared; {nearest(how, get_args(Ranking))}")
    groups = total.split(encoded.counts)
    if ranking:
        found = _ranked(samples, compared or [_bradley_terry(scores) for scores in groups], cast(Ranking, how))
    else:
        each = zip(contexts, samples.texts, groups, strict=True)
        found = [_scored(context, texts, scores, cast(How, how)) for context, texts, scores in each]
    picked: list[tuple[int, int, int, float]] = []  # prompt, winner, loser, strength or margin
    ties = failed = identical = 0
    for prompt, one in enumerate(found):
        if one is None:
            failed += 1
        elif not one:
            tied = len(set(samples.texts[prompt])) > 1 if ranking else bool((groups[prompt] == groups[prompt][0]).all())
            ties, identical = ties + tied, identical + (not tied)
        picked += [(prompt, *preferred) for preferred in one or ()]
    rows = [
        row(contexts[p], encoded.numbers[p], samples.texts[p][w], samples.texts[p][l], decimal(says) if ranking else None)
        | ({"chosen_score": decimal(groups[p][w]), "rejected_score": decimal(groups[p][l])} if compared is None else {})
        | {"chosen_stopped": samples.stopped[p][w], "rejected_stopped": samples.stopped[p][l], "round": round}
        for p, w, l, says in picked
        if samples.texts[p][w].strip() and samples.texts[p][l].strip()
    ]
    numbers = torch.tensor([says for *_, says in picked], dtype=torch.float32)
    columns: dict[str, Tensor] = {"strength" if ranking else "margin": numbers}
    people = tuple(dict.fromkeys(context.annotator for context in contexts if context.annotator is not None))
    if people:  # −1 where a prompt has no annotator, as in encoded files
        place = {None: -1} | {name: i for i, name in enumerate(people)}
        columns["annotator"] = torch.tensor([place[contexts[p].annotator] for p, *_ in picked], dtype=torch.long)
    tie = "no comparison preferred one" if ranking else "all scores equal"
    reasons = {tie: ties, "judging failed": failed, "identical responses": identical}
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


def _scored(context: Context, texts: Sequence[str], scores: Tensor, how: How) -> list[Preferred] | None:
    """A prompt's pairs by score, with their margins; None where a judgement failed."""
    return pair(context.prompt, texts, scores.tolist(), how) if bool(torch.isfinite(scores).all()) else None


def _ranked(samples: Samples, compared: Sequence[Comparisons], how: Ranking) -> list[list[Preferred] | None]:
    """Every prompt's pairs by comparison, with their strengths; what was asked is asked of the record."""
    return rank(samples.texts, lambda asked: [compared[n][i, j] for n, i, j in asked], how)


def _bradley_terry(scores: Tensor) -> Comparisons:
    beats = torch.sigmoid(scores[:, None].double() - scores[None].double())
    return {(i, j): p for i, row in enumerate(beats.tolist()) for j, p in enumerate(row)}


def row(context: Context, number: int, chosen: str, rejected: str, strength: float | None) -> dict[str, Any]:
    """A pair in the ecosystem's format: strings under a string, chat turns under chat turns."""
    said = (chosen, rejected)
    return as_mapping(Row(number, "pairs", context.prompt, said, annotator=context.annotator, strength=strength))


def decimal(score: float | Tensor) -> float:
    """A float32 score as the shortest decimal people would write: 0.8316, not 0.8316000103950500."""
    return float(f"{float(score):.7g}")

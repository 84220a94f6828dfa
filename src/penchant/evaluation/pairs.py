"""What pairs say of a model: implicit accuracy, margin, and how far either log-prob moved; ranking.py asks how it ranks them
by plain log-probs. It reads scored batches or the evidence made from them; no model or file is known here."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch

from penchant.evaluation.evidence import PairEvidence
from penchant.evaluation.statistics import RESAMPLES, Difference, Estimate, difference, mean, ratio_difference, share
from penchant.objectives.base import Objective
from penchant.objectives.scored import Pairs, Scored


@torch.no_grad()
def pair_evidence(
    objective: Objective,
    batches: Iterable[Pairs],
    numbers: Sequence[int],
    groups: Sequence[int] | None = None,
    lengths: Sequence[int] | None = None,
) -> PairEvidence:
    """The numbers of scored batches, in order. `numbers` are the rows' numbers in their source, `groups` says which
    prompt each pair answers (equal integers, equal prompt). `lengths`: tokens of chosen, rejected, chosen …, where the steps
    that were scored are not the tokens. Padding rows are left out of the batches. A reward model has no log-probs."""
    columns: dict[str, list[float]] = {name: [] for name in _COLUMNS}
    referenced, speaks = True, objective.needs.head == "lm"
    for batch in batches:
        batch = batch.kept()
        for side, y in (("chosen", batch.w), ("rejected", batch.l)):
            columns[f"reward_{side}"] += objective.reward(y).tolist()
            columns[f"logp_{side}"] += _total(y.logp, y) if speaks else []
            columns[f"length_{side}"] += y.mask.sum(-1).tolist()
            if y.ref is None:
                referenced = False
            else:
                columns[f"ref_{side}"] += _total(y.ref, y)
    if len(columns["reward_chosen"]) != len(numbers):
        raise ValueError(f"{len(columns['reward_chosen'])} scored pairs but {len(numbers)} row numbers.")
    if lengths is not None:
        columns |= {"length_chosen": list(lengths[::2]), "length_rejected": list(lengths[1::2])}
    return PairEvidence(
        numbers=list(numbers),
        reward_chosen=columns["reward_chosen"],
        reward_rejected=columns["reward_rejected"],
        logp_chosen=columns["logp_chosen"],
        logp_rejected=columns["logp_rejected"],
        length_chosen=[int(n) for n in columns["length_chosen"]],
        length_rejected=[int(n) for n in columns["length_rejected"]],
        ref_chosen=columns["ref_chosen"] if referenced else None,
        ref_rejected=columns["ref_rejected"] if referenced else None,
        groups=None if groups is None else list(groups),
    )


_COLUMNS = [f"{name}_{side}" for name in ("reward", "logp", "length", "ref") for side in ("chosen", "rejected")]


def _total(x: torch.Tensor, y: Scored) -> list[float]:
    """Σ over the response's steps, each counted once whatever the batch's weights are."""
    return torch.where(y.mask, x.double(), 0.0).sum(-1).tolist()


def margins(evidence: PairEvidence) -> list[float]:
    """Implicit reward of the chosen less that of the rejected, per pair. Where a model has not left its reference, both
    rewards are 0 up to the rounding of a float32 sum, which is read as 0 and not as a preference."""
    found = [w - l for w, l in zip(evidence.reward_chosen, evidence.reward_rejected, strict=True)]
    if evidence.ref_chosen is None or evidence.ref_rejected is None:
        return found
    still = [
        _still(*side)
        for side in (
            (evidence.reward_chosen, evidence.logp_chosen, evidence.ref_chosen),
            (evidence.reward_rejected, evidence.logp_rejected, evidence.ref_rejected),
        )
    ]
    return [0.0 if w and l else m for m, w, l in zip(found, *still, strict=True)]


def _still(reward: Sequence[float], logp: Sequence[float], ref: Sequence[float]) -> list[bool]:
    """Whether log π is the reference's and the reward is 0, both but for rounding. The rewards of methods that read no
    reference (SimPO, ORPO) are not 0 there, and stay what they are."""
    return [abs(p - q) <= 1e-6 * max(abs(p), abs(q)) and abs(r) <= 1e-3 for r, p, q in zip(reward, logp, ref, strict=True)]


def hits(values: Sequence[float]) -> list[float]:
    """1 above 0, 0 below; a tie is half, so a model that has learned nothing has 50 % and not 0 %."""
    return [1.0 if v > 0 else 0.5 if v == 0 else 0.0 for v in values]


def accuracy(evidence: PairEvidence) -> Estimate:
    """Share of pairs whose chosen response has the greater implicit reward; ties count half. Before training a method
    with a reference has margin 0 on every pair: 50 %, the share of a guess."""
    return share(hits(margins(evidence)), evidence.groups)


def margin(evidence: PairEvidence, *, resamples: int = RESAMPLES) -> Estimate:
    """Mean margin, in the objective's own units."""
    return mean(margins(evidence), evidence.groups, resamples=resamples)


def gains(before: PairEvidence, after: PairEvidence) -> list[float]:
    """By how much training moved each pair's margin. For a method whose reference is the model it began with, this is the
    margin itself; for one without reference, it is what was learned rather than what the model began with."""
    _same_rows(before, after)
    return [b - a for a, b in zip(margins(before), margins(after), strict=True)]


def _same_rows(before: PairEvidence, after: PairEvidence) -> None:
    if before.numbers != after.numbers:
        raise ValueError("the pairs before and after training are not the same rows.")


@dataclass(frozen=True)
class Displacement:
    """Change of log π per token (nats), after less before: tokens of all pairs together."""

    chosen: Difference
    rejected: Difference


def displacement(before: PairEvidence, after: PairEvidence, *, resamples: int = RESAMPLES) -> Displacement:
    """How log π of chosen and of rejected moved, each for itself: a margin can grow while both fall."""
    _same_rows(before, after)
    change = lambda a, b, n: ratio_difference((a, n), (b, n), after.groups, resamples=resamples)  # noqa: E731
    return Displacement(
        change(before.logp_chosen, after.logp_chosen, tokens(after.length_chosen)),
        change(before.logp_rejected, after.logp_rejected, tokens(after.length_rejected)),
    )


def tokens(lengths: Sequence[int]) -> list[float]:
    """What to divide by: at least one token."""
    return [max(float(n), 1.0) for n in lengths]


def movement(before: PairEvidence, after: PairEvidence) -> float:
    """Mean |change of log π| of a response, in nats (of a reward model: of its score): 0 for a model that is what it was."""
    _same_rows(before, after)
    said = lambda e: e.logp_chosen + e.logp_rejected if e.speaks else e.reward_chosen + e.reward_rejected  # noqa: E731
    old, new = said(before), said(after)
    return math.fsum(abs(b - a) for a, b in zip(old, new, strict=True)) / len(new)


def lengths(evidence: PairEvidence) -> Difference:
    """Tokens of the rejected (before) against the chosen (after): how much longer the chosen are. A large difference is
    an easy cue that a model may learn in place of the preference."""
    return difference(evidence.length_rejected, evidence.length_chosen, evidence.groups)

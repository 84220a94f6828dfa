"""What pairs say of a model: implicit accuracy, margin, plain ranking, and how far either log-prob moved.
It reads scored batches or the evidence made from them; no model or file is known here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch

from penchant.evaluation.evidence import PairEvidence
from penchant.evaluation.statistics import RESAMPLES, Difference, Estimate, difference, mean, ratio_difference, share
from penchant.objectives.base import Objective
from penchant.objectives.scored import Pairs, Scored


@torch.no_grad()
def pair_evidence(
    objective: Objective, batches: Iterable[Pairs], numbers: Sequence[int], groups: Sequence[int] | None = None
) -> PairEvidence:
    """The numbers of scored batches, in order. `numbers` are the rows' numbers in their source, `groups` says which
    prompt each pair answers (equal integers, equal prompt). Padding rows are left out of the batches."""
    columns: dict[str, list[float]] = {name: [] for name in _COLUMNS}
    referenced = True
    for batch in batches:
        batch = batch.kept()
        for side, y in (("chosen", batch.w), ("rejected", batch.l)):
            columns[f"reward_{side}"] += objective.reward(y).tolist()
            columns[f"logp_{side}"] += _total(y.logp, y)
            columns[f"length_{side}"] += y.mask.sum(-1).tolist()
            if y.ref is None:
                referenced = False
            else:
                columns[f"ref_{side}"] += _total(y.ref, y)
    if len(columns["reward_chosen"]) != len(numbers):
        raise ValueError(f"{len(columns['reward_chosen'])} scored pairs but {len(numbers)} row numbers.")
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
    """Implicit reward of the chosen less that of the rejected, per pair. Where the model gives both responses the very
    log-probs of the reference, up to the rounding of a float32 sum, the margin is 0."""
    found = [w - l for w, l in zip(evidence.reward_chosen, evidence.reward_rejected, strict=True)]
    if evidence.ref_chosen is None or evidence.ref_rejected is None:
        return found
    same = [
        _close(w, rw) and _close(l, rl)
        for w, rw, l, rl in zip(
            evidence.logp_chosen, evidence.ref_chosen, evidence.logp_rejected, evidence.ref_rejected, strict=True
        )
    ]
    return [0.0 if equal else m for m, equal in zip(found, same, strict=True)]


def _close(a: float, b: float) -> bool:
    return abs(a - b) <= 1e-6 * max(abs(a), abs(b))


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


def ranking(evidence: PairEvidence, *, per_token: bool = False) -> Estimate:
    """Plain ranking accuracy, not the implicit one: share of pairs with log π(y_w) ≥ log π(y_l), by sums or by means
    per token. A tie counts as right (arXiv 2405.19534, definition 2.2)."""
    right = []
    for w, l, nw, nl in zip(
        evidence.logp_chosen, evidence.logp_rejected, evidence.length_chosen, evidence.length_rejected, strict=True
    ):
        right.append(float(w / max(nw, 1) >= l / max(nl, 1) if per_token else w >= l))
    return share(right, evidence.groups)


def start(after: PairEvidence, before: PairEvidence | None) -> tuple[list[float], list[float], list[float]] | None:
    """(margins, log π chosen, log π rejected) of the model training began with: from `before`; else from the reference,
    which is where a method with one begins; None where neither is there."""
    if before is not None:
        if before.numbers != after.numbers:
            raise ValueError("the pairs before and after training are not the same rows.")
        return margins(before), before.logp_chosen, before.logp_rejected
    if after.ref_chosen is None or after.ref_rejected is None:
        return None
    return [0.0] * len(after.numbers), after.ref_chosen, after.ref_rejected


def gains(after: PairEvidence, before: PairEvidence | None) -> list[float] | None:
    """By how much training moved each pair's margin. For a method with a reference this is the margin itself; for one
    without, it measures what was learned rather than what the model began with."""
    began = start(after, before)
    return None if began is None else [b - a for a, b in zip(began[0], margins(after), strict=True)]


@dataclass(frozen=True)
class Displacement:
    """Change of log π per token (nats), after less before: tokens of all pairs together."""

    chosen: Difference
    rejected: Difference


def displacement(before: PairEvidence | None, after: PairEvidence, *, resamples: int = RESAMPLES) -> Displacement | None:
    """How log π of chosen and of rejected moved, each for itself: a margin can grow while both fall. Held against the
    reference where `before` was not kept; None where there is neither."""
    began = start(after, before)
    if began is None:
        return None
    change = lambda a, b, n: ratio_difference((a, n), (b, n), after.groups, resamples=resamples)  # noqa: E731
    return Displacement(
        change(began[1], after.logp_chosen, [max(n, 1.0) for n in after.length_chosen]),
        change(began[2], after.logp_rejected, [max(n, 1.0) for n in after.length_rejected]),
    )


def movement(after: PairEvidence, before: PairEvidence | None) -> float | None:
    """Mean |change of log π| of a response, in nats: 0 for a model that is what it was."""
    began = start(after, before)
    if began is None:
        return None
    _, chosen, rejected = began
    moved = [abs(b - a) for a, b in zip(chosen + rejected, after.logp_chosen + after.logp_rejected, strict=True)]
    return sum(moved) / len(moved)


def lengths(evidence: PairEvidence) -> Difference:
    """Tokens of the rejected (before) against the chosen (after): how much longer the chosen are. A large difference is
    an easy cue that a model may learn in place of the preference."""
    return difference(evidence.length_rejected, evidence.length_chosen, evidence.groups)

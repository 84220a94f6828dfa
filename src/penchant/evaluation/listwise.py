"""Does log π put graded lists in order: list by list, and every pair of a list with different grades as a pair of its own. Order
by implicit reward is measured in `lists`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from penchant.evaluation.evidence import ListEvidence, PairEvidence, RunEvidence
from penchant.evaluation.statistics import RESAMPLES, Difference, Estimate, difference, mean, share


def ranks_exactly(logp: Sequence[float], gain: Sequence[float]) -> float:
    """1 where log π puts the whole list in the order of its grades: no better response below a worse one. Equal grades may
    stand either way, and equal log-probs are right, as in pairs. Definition A.8 (which knows no equal grades) of Chen et al. 2024,
    arXiv 2405.19534."""
    return float(all(_right(logp, gain)))


def ranks_pairwise(logp: Sequence[float], gain: Sequence[float]) -> float:
    """Share of the list's pairs of unequal grade that log π ranks right, equal log-probs among them: (1 + τ) / 2 of Kendall's
    τ where no log-probs are equal. NaN for a list whose grades are all equal."""
    right = _right(logp, gain)
    return sum(right) / len(right) if right else float("nan")


def _right(logp: Sequence[float], gain: Sequence[float]) -> list[bool]:
    return [logp[i] >= logp[j] for i, j in _pairs(gain)]


def _pairs(gain: Sequence[float]) -> list[tuple[int, int]]:
    """Places of every two responses of which the first has the better grade."""
    return [(i, j) for i, g in enumerate(gain) for j, h in enumerate(gain) if g > h]


def all_pairs(lists: ListEvidence | None) -> PairEvidence | None:
    """Every two responses of a list that have different grades, the better one as chosen; pairs of one list are of one group.
    None where no log-probs were noted."""
    if lists is None or lists.logp is None or lists.length is None:
        return None
    picked = [(row, i, j) for row, gain in enumerate(lists.gain) for i, j in _pairs(gain)]

    def both(table: Sequence[Sequence[float]]) -> tuple[list[float], list[float]]:
        return [table[row][i] for row, i, _ in picked], [table[row][j] for row, _, j in picked]

    (reward_w, reward_l), (logp_w, logp_l), (n_w, n_l) = map(both, (lists.reward, lists.logp, lists.length))
    ref_w, ref_l = (None, None) if lists.ref is None else both(lists.ref)
    return PairEvidence(
        numbers=[lists.numbers[row] for row, *_ in picked],
        reward_chosen=reward_w,
        reward_rejected=reward_l,
        logp_chosen=logp_w,
        logp_rejected=logp_l,
        length_chosen=[int(n) for n in n_w],
        length_rejected=[int(n) for n in n_l],
        ref_chosen=ref_w,
        ref_rejected=ref_l,
        groups=[row for row, *_ in picked],
    )


@dataclass(frozen=True)
class ListRanking:
    """How often lists stand wholly in order by log π, before and after, and how large a part of their pairs."""

    exact_before: Estimate
    exact: Estimate
    exact_change: Difference
    pairwise_before: Estimate
    """The mean over lists of each list's share: a long list counts no more than a short one."""
    pairwise: Estimate
    pairwise_change: Difference


def list_ranking(evidence: RunEvidence, *, resamples: int = RESAMPLES) -> ListRanking | None:
    """Of a run's held-out lists; None where it noted no log-probs of lists."""
    before, after = evidence.lists_before, evidence.lists_after
    if before is None or after is None or not before.logp or not after.logp or before.numbers != after.numbers:
        return None
    told = {
        measure: [[measure(*one) for one in zip(x, after.gain, strict=True)] for x in (before.logp, after.logp)]
        for measure in (ranks_exactly, ranks_pairwise)
    }
    (exact_then, exact), (some_then, some) = told[ranks_exactly], told[ranks_pairwise]
    return ListRanking(
        share(exact_then),
        share(exact),
        difference(exact_then, exact, resamples=resamples),
        mean(some_then, resamples=resamples),
        mean(some, resamples=resamples),
        difference(some_then, some, resamples=resamples),
    )

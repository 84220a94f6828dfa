"""What sampled responses say of a model: the judge's score, diversity at equal length, repetition, entropy, KL, lengths.
It reads texts and numbers; sampling and judging happen below, and nothing here loads a model."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TypeVar

import torch
from scipy.stats import t as student

from penchant.domains.base import Samples
from penchant.errors import StoppedRun
from penchant.evaluation.evidence import SampleEvidence
from penchant.evaluation.statistics import (
    RESAMPLES,
    Difference,
    Estimate,
    difference,
    mean,
    ratio,
    ratio_difference,
)
from penchant.objectives.scored import Scored
from penchant.rewards.base import Judgement
from penchant.rewards.ngrams import grams, repetition, words

BLOCKS = 20

T = TypeVar("T")


def sample_evidence(
    samples: Samples, ref: Scored | None, judgement: Judgement | None, prompts: list[str], judge: str | None
) -> SampleEvidence:
    """The numbers of sampled responses. `ref` is the reference's scoring of the same ids (its `logp` is log π_ref),
    `judgement` has one row per response, flat in row order; `judge` is its name. Responses that are no texts have none."""
    counts = samples.encoded.counts
    y = samples.logp
    if y is None:
        raise ValueError("these samples were taken without their log-probs; sample with scored=True.")
    if len(prompts) != len(counts) or len(y) != sum(counts):
        raise ValueError(f"{len(prompts)} prompts and {len(y)} scored responses for {len(counts)} rows of {sum(counts)}.")
    total = lambda x: _nested(torch.where(y.mask, x.detach().double(), 0.0).sum(-1).tolist(), counts)  # noqa: E731
    anchor = kl = None
    if ref is not None:
        k = y.logp.detach().double() - ref.logp.detach().double()
        anchor, kl = total(ref.logp), total(torch.exp(-k) - 1 + k)
    logp = total(y.logp)
    for name, values in (("log π", logp), ("log π_ref", anchor), ("the KL", kl)):
        for i, row in enumerate(values or []):
            if not all(math.isfinite(v) for v in row):
                raise StoppedRun(f"{name} of a response to prompt {i + 1} is not a finite number: {row}.")
    scores = None if judgement is None else said_of(judgement, counts)
    return SampleEvidence(
        prompts=list(prompts),
        texts=[list(t) if samples.shown is None else [""] * len(t) for t in samples.texts],
        lengths=_nested([int(n) for n in y.mask.sum(-1).tolist()], counts),
        stopped=[list(s) for s in samples.stopped],
        logp=logp,
        ref=anchor,
        kl=kl,
        scores=scores,
        judge=judge,
    )


def said_of(judgement: Judgement, counts: Sequence[int]) -> list[list[float | None]]:
    """A judgement by prompt; None where judging failed."""
    return _nested([None if math.isnan(v) else float(v) for v in judgement.total.tolist()], counts)


def _nested(flat: Sequence[T], counts: Sequence[int]) -> list[list[T]]:
    rest = iter(flat)
    return [[next(rest) for _ in range(n)] for n in counts]


Cut = list[tuple[list[str], list[str]]]


def equal_length(before: SampleEvidence, after: SampleEvidence) -> list[Cut]:
    """By prompt, the k-th answers before and after as words, both cut to the shorter of the two: equal numbers of words
    on both sides, text by text."""
    out: list[Cut] = []
    for texts_before, texts_after in zip(before.texts, after.texts, strict=True):
        both = [(words(a), words(b)) for a, b in zip(texts_before, texts_after, strict=False)]
        out.append([(a[: len(b)], b[: len(a)]) for a, b in both])
    return out


def diversity(before: SampleEvidence, after: SampleEvidence, n: int = 2) -> tuple[float, float, Estimate] | None:
    """Distinct-n before and after at equal length, and the change of its logarithm. Distinct-n is no mean, and drawing a
    text twice would lower it, so the interval is a jackknife's over blocks of prompts. None below 30 n-grams."""
    cuts = sorted(equal_length(before, after))  # so that the blocks do not depend on the order of the prompts
    if _pooled(cuts, 0, n)[1] < 30:
        return None
    count = min(BLOCKS, len(cuts))
    value, spread = _log_change(cuts, n), math.inf
    left = [[cut for i, cut in enumerate(cuts) if i % count != k] for k in range(count)]
    if count > 1 and all(_pooled(rest, 0, n)[1] for rest in left):
        without = [_log_change(rest, n) for rest in left]
        middle = _mean(without)
        spread = math.sqrt((count - 1) / count * sum((v - middle) ** 2 for v in without))
        spread *= float(student.ppf(0.975, count - 1))
    old, new = (different / every for different, every in (_pooled(cuts, side, n) for side in (0, 1)))
    return old, new, Estimate(value, value - spread, value + spread, len(cuts))


def _pooled(cuts: Iterable[Cut], side: int, n: int) -> tuple[int, int]:
    """Different n-grams and all n-grams of one side's texts together."""
    found = Counter(g for cut in cuts for both in cut for g in grams(both[side], n))
    return len(found), found.total()


def _log_change(cuts: Sequence[Cut], n: int) -> float:
    return math.log(_pooled(cuts, 1, n)[0] / _pooled(cuts, 0, n)[0])


def repetitions(evidence: SampleEvidence) -> list[float]:
    """Each prompt's mean repetition."""
    return [_mean([repetition(t) for t in texts]) for texts in evidence.texts]


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def per_prompt(values: Sequence[Sequence[float]]) -> list[float]:
    return [_mean(row) for row in values]


def summed(values: Sequence[Sequence[float]]) -> list[float]:
    return [math.fsum(row) for row in values]


def entropy(evidence: SampleEvidence, *, resamples: int = RESAMPLES) -> Estimate:
    """−Σ log π / Σ tokens over the model's own samples at temperature 1: nats of choice per token."""
    return ratio(*surprise(evidence), resamples=resamples)


def surprise(evidence: SampleEvidence) -> tuple[list[float], list[float]]:
    """Each prompt's −Σ log π and tokens."""
    return [-v for v in summed(evidence.logp)], _tokens(evidence)


def entropy_change(before: SampleEvidence, after: SampleEvidence, *, resamples: int = RESAMPLES) -> Difference:
    return ratio_difference(surprise(before), surprise(after), resamples=resamples)


def _tokens(evidence: SampleEvidence) -> list[float]:
    """At least one per prompt, so that empty answers divide nothing by zero."""
    return [max(1.0, float(sum(row))) for row in evidence.lengths]


def kl(evidence: SampleEvidence, *, per_token: bool = False, resamples: int = RESAMPLES) -> Estimate | None:
    """KL(π‖π_ref) in nats a response (or a token) by k3, which is never negative; None without a reference."""
    if evidence.kl is None:
        return None
    if per_token:
        return ratio(summed(evidence.kl), _tokens(evidence), resamples=resamples)
    return mean(per_prompt(evidence.kl), resamples=resamples)


def kl_plain(evidence: SampleEvidence, *, resamples: int = RESAMPLES) -> Estimate | None:
    """The same by k1 = log π − log π_ref: unbiased too, noisier near 0, may be negative. Both are reported where they
    disagree, since k3 has a heavy tail far from the reference."""
    if evidence.ref is None:
        return None
    k1 = [[a - b for a, b in zip(p, r, strict=True)] for p, r in zip(evidence.logp, evidence.ref, strict=True)]
    return mean(per_prompt(k1), resamples=resamples)


def stopped(evidence: SampleEvidence, *, resamples: int = RESAMPLES) -> Estimate:
    """Share of responses that ended by themselves."""
    return mean(stopped_by_prompt(evidence), resamples=resamples)


def stopped_by_prompt(evidence: SampleEvidence) -> list[float]:
    return per_prompt([[float(s) for s in row] for row in evidence.stopped])


def length_ratio(before: SampleEvidence, after: SampleEvidence, *, resamples: int = RESAMPLES) -> Estimate:
    """Tokens after for every token before."""
    return ratio(per_prompt_lengths(after), [max(n, 1e-9) for n in per_prompt_lengths(before)], resamples=resamples)


def per_prompt_lengths(evidence: SampleEvidence) -> list[float]:
    return [_mean([float(n) for n in row]) for row in evidence.lengths]


def score_by_prompt(evidence: SampleEvidence) -> list[float | None]:
    """Each prompt's mean score over the responses that could be judged; None where none could."""
    out: list[float | None] = []
    for row in evidence.scores or []:
        valid = [s for s in row if s is not None]
        out.append(_mean(valid) if valid else None)
    return out


def score(evidence: SampleEvidence, *, resamples: int = RESAMPLES) -> Estimate | None:
    """The judge's mean score, every prompt weighing the same; None without a judge or without a judged response."""
    valid = [s for s in score_by_prompt(evidence) if s is not None]
    return mean(valid, resamples=resamples) if valid else None


def guard_by_prompt(evidence: SampleEvidence) -> list[float | None]:
    """Each prompt's mean score by the guard; None where it could judge none."""
    return [_mean(known) if (known := [s for s in row if s is not None]) else None for row in evidence.guard or []]


def guard_change(
    before: SampleEvidence, after: SampleEvidence, *, resamples: int = RESAMPLES
) -> tuple[Estimate, Estimate, Difference] | None:
    """The guard's mean score before and after, and the change prompt by prompt; None without a guard."""
    both = [
        (a, b)
        for a, b in zip(guard_by_prompt(before), guard_by_prompt(after), strict=False)
        if a is not None and b is not None
    ]
    if not both:
        return None
    old, new = map(list, zip(*both, strict=True))
    return mean(old, resamples=resamples), mean(new, resamples=resamples), difference(old, new, resamples=resamples)


def judged(evidence: SampleEvidence) -> float:
    """Share of responses the judge could judge."""
    flat = [s is not None for row in evidence.scores or [] for s in row]
    return sum(flat) / len(flat) if flat else 0.0


def score_change(before: SampleEvidence, after: SampleEvidence, *, resamples: int = RESAMPLES) -> Difference | None:
    """Score after less before, prompt by prompt, over the prompts judged both times."""
    same_prompts(before, after)
    both = [
        (a, b)
        for a, b in zip(score_by_prompt(before), score_by_prompt(after), strict=False)
        if a is not None and b is not None
    ]
    return difference(*map(list, zip(*both, strict=True)), resamples=resamples) if both else None


def same_prompts(before: SampleEvidence, after: SampleEvidence) -> None:
    if before.prompts != after.prompts:
        raise ValueError("the samples before and after training do not answer the same prompts.")

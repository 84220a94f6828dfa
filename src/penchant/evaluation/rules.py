"""The thresholds of the verdict, each with its reason, and what a finding is. No rule is applied here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from penchant.evaluation.statistics import RESAMPLES, Estimate

SEVERITY = (
    "stopped",
    "interrupted",
    "unstable",
    "collapsed",
    "memorised",
    "nothing learned",
    "over-optimised",
    "chosen falling",
    "length drift",
    "not measured",
    "learned",
    "likelihood over-optimised",
)
"""The words a run can get, the most serious first. "not measured" is said where too little was held out to tell. The last is
information: beside it one of the others always holds, so it is never the headline."""

BY = ("score", "wins", "wins-chosen", "accuracy", "change", "ranking")
"""The measures that a comparison can name its winner by."""

FAILED = frozenset({"stopped", "interrupted", "unstable", "collapsed", "nothing learned"})
"""Words that make a run's exit code other than 0."""


@dataclass(frozen=True)
class Rules:
    """When a word holds. The values are conventions, chosen so that a healthy run sets none of them off; each says why.
    Intervals are at 95 %, so a run that learns nothing is called "learned" in about 2.5 % of cases."""

    resamples: int = RESAMPLES
    least_pairs: int = 20
    """Held-out pairs below which nothing is said: with 20, even a true 75 % is missed more often than found."""
    least_prompts: int = 8
    """Prompts below which scores and texts are not compared: from 8 on a 95 % interval covers 93 to 95 % of cases, with 5
    only 92 %."""
    moved: float = 0.01
    """Nats a response's log-prob must change by on average for the model to count as another one: a hundredth of its
    probability. Float32 noise on a few hundred tokens is a hundred times smaller."""
    gradient: float = 1e-7
    """Gradient norms all below it move no parameter of float32."""
    flat: float = 1e-6
    """A loss whose values over all steps lie this close (relative) is a constant; a learning rate that does anything
    changes it in the fourth digit within a few steps."""
    gap: float = 0.10
    """Points of accuracy by which seen pairs must be surely better than unseen ones to speak of memory. A gap of a few
    points is the usual price of fitting; one epoch of full fine-tuning stays below it."""
    diversity_lost: float = 0.5
    """Distinct-2 at equal length, after / before, below which the texts have collapsed whatever else is measured: every
    second different word pair is gone. Between the answers of five different 7B models (PandaLM's test set) it is
    0.87 to 1.15; the habit of one opening phrase costs a fifth to a third."""
    diversity_low: float = 0.7
    """The same, below which a second sign is asked for."""
    repeating: float = 0.15
    """Rise of the share of 3-grams a text has said before. Answers of 7B models have 6 to 12 % (PandaLM's test set); "I'm
    thrilled to share that I'm thrilled to share that" has half."""
    entropy_lost: float = 1 / 3
    """Nats of choice per token, after / before, that count as a sign of collapse. Sampling an untouched SmolLM2-135M at
    temperature 0.7 leaves a half of it, at 0.4 a third, and neither has collapsed (distinct-2 × 0.87 and × 0.79)."""
    kl_token: float = 0.5
    """Nats of KL to the reference per token that count as a sign. Choosing the best of 1,000 samples costs 5.9 nats in
    all (ln n − (n − 1) / n); at 0.5 a token a 12-token answer has spent as much."""
    empty: float = 0.5
    """Share of answers without any text, where there were fewer before, that is a collapse by itself."""
    falling: float = 0.25
    """Nats per token by which the chosen responses may become less probable: perplexity up by 28 %. DPO and its kin lower
    both log-probs as a rule (typically some hundredths of a nat per token); this is ten times that."""
    drift: float = 0.25
    """Relative change of length. Below a quarter a reader hardly sees it, and judges' length bias is small."""
    drift_tokens: float = 3.0
    """Tokens a drift must come to: "Yes." instead of "Yes" is none."""
    stopping: float = 0.25
    """Change of the share of answers that end by themselves: hides a drift of length behind the limit."""
    spike: float = 10.0
    """A gradient norm this many times the usual one of the first quarter is a spike. The beginning is the measure, since
    norms fall towards 0 as pairs are learned, and what is usual then is no measure of anything."""
    spikes: float = 0.05
    """Share of steps (at least 3) that may be spikes: clipping takes care of a few."""
    rising: float = 0.05
    """Relative rise of the loss, last quarter over first, that counts where it is also significant."""
    rebound: float = 0.5
    """Rise of the loss in the last quarter as a share of what had been won before, counting where the trend is sure."""
    sure: float = 0.001
    """p of the trend tests on the loss: they look at many steps, which are not quite independent."""
    swing: float = 3.0
    """Losses this many times what the run began with are swings: the model is surely wrong on what it is trained on."""
    swings: float = 0.10
    """Share of the second half's steps that may be swings."""
    least_steps: int = 20
    """Steps below which no trend is looked for."""


@dataclass(frozen=True)
class Finding:
    """One word, whether it holds, and why."""

    word: str
    holds: bool
    sentence: str
    """In plain words, with the numbers."""
    evidence: Mapping[str, Any] = field(default_factory=dict)
    """The numbers behind the sentence, JSON values only; an interval is {"value", "low", "high", "n"}."""


def numbers(**values: float | int | str | bool | Estimate | None) -> dict[str, Any]:
    """Evidence as JSON values; what was not measured is left out."""
    return {k: v.to_json() if isinstance(v, Estimate) else v for k, v in values.items() if v is not None}

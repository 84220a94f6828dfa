"""What a run leaves to be judged: plain numbers and texts, as JSON. The verdict, the report and the model card read this
and nothing else, so a finished run can be judged again without its model."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

IN_PYTHON = "rows given in Python"
"""What stands for data or unseen of a run that was handed its rows."""


@dataclass(frozen=True)
class PairEvidence:
    """A model's numbers on a set of pairs, one entry per pair."""

    numbers: list[int]
    """Row numbers in the source."""
    reward_chosen: list[float]
    reward_rejected: list[float]
    """The objective's own rewards: implicit, or a reward model's scores."""
    logp_chosen: list[float]
    logp_rejected: list[float]
    """log π of the whole response, in nats; empty for a reward model, which has none."""
    length_chosen: list[int]
    length_rejected: list[int]
    """Tokens of the responses."""
    ref_chosen: list[float] | None = None
    ref_rejected: list[float] | None = None
    """log π_ref of the whole response; None for an objective without reference."""
    groups: list[int] | None = None
    """Which prompt each pair answers: equal integers, equal prompt. Intervals resample prompts, since pairs of one prompt
    are not independent; None takes every pair for itself."""

    @property
    def speaks(self) -> bool:
        """Whether it is a model's that makes text and so has log-probs; a reward model only scores."""
        return len(self.logp_chosen) == len(self.numbers)


@dataclass(frozen=True)
class ListEvidence:
    """A model's rewards on graded lists, one entry per list that prefers something."""

    numbers: list[int]
    """Row numbers in the source."""
    reward: list[list[float]]
    """The objective's own implicit reward of each response."""
    gain: list[list[float]]
    """The grade that the data gives it."""
    logp: list[list[float]] | None = None
    """log π of each whole response, in nats; None of a reward model, which has none, and of runs that did not note it."""
    ref: list[list[float]] | None = None
    """log π_ref of the same; None without a reference."""
    length: list[list[int]] | None = None
    """Tokens of the responses, where log π is noted."""


@dataclass(frozen=True)
class SampleEvidence:
    """Responses a model gave to a fixed set of prompts, [prompts][samples]."""

    prompts: list[str]
    texts: list[list[str]]
    lengths: list[list[int]]
    """Tokens."""
    stopped: list[list[bool]]
    """Whether the response ended by itself rather than at the length limit."""
    logp: list[list[float]]
    """log π of the response under the model that gave it, at temperature 1."""
    ref: list[list[float]] | None = None
    """log π_ref of the same response; None where there is no reference."""
    kl: list[list[float]] | None = None
    """Σ over tokens of k3 = exp(−k) − 1 + k with k = log π − log π_ref: estimates KL(π‖π_ref), never negative."""
    scores: list[list[float | None]] | None = None
    """The judge's scores; None where judging failed. `scores` itself is None without a judge."""
    judge: str | None = None
    against_start: bool = False
    """Whether the scores are probabilities of being better than the start model's greedy answer, as a comparer gives them."""
    guard: list[list[float | None]] | None = None
    """What an independent judge says, by which nothing was chosen or trained; None without one."""
    guarded_by: str | None = None
    shown: list[list[str]] | None = None
    """Responses that are no texts, as pictures to look at: data:image/… URIs. Then `texts` are empty."""
    against_chosen: list[list[float | None]] | None = None
    """The probability, by the same judge, that the response is better than the answer which the data prefers; by a judge of
    scores 1, ½ or 0. None without a judge or without such answers."""


@dataclass(frozen=True)
class StanceEvidence:
    """What checkpoints of a run answered to the same probes, measured after the run."""

    probes: str
    """Where the probes came from, as it was written."""
    fingerprint: str
    """Of the probes."""
    names: list[str]
    """Of the stances."""
    topics: list[str]
    """Of each probe."""
    steps: list[int]
    """Of the checkpoints that were still there, rising; 0 is the start."""
    p: list[list[list[float]]]
    """[checkpoints][probes][stances]: P(stance), adding up to 1."""
    mass: list[float]
    """How probable the probes' answers are together at each checkpoint: the mean over probes. Where it is small, the model would
    mostly have said something else."""


@dataclass(frozen=True)
class RunEvidence:
    """Everything a run leaves behind."""

    settings: Mapping[str, Any]
    """What was asked: model, data, unseen, objective, judge (as written), and every setting."""
    choices: Mapping[str, Any]
    """What was found at start-up: precision, device, threads, versions, revisions, trained parameters."""
    data: Mapping[str, Any]
    """{"source", "fingerprint", "format", "accounting": {...}, "train": n, "held_out": n}"""
    history: list[dict[str, Any]] = field(default_factory=list)
    """The lines of metrics.jsonl. Every line has "kind" and "step".
    kind "start": drift (largest |log π − log π_ref| of a token before the first update), tolerance.
    kind "step": epoch, round (from 1; 0 in a run on a file), loss, lr, grad_norm, tokens, seconds, units, and where they
    exist loss/<Term>, reward/chosen, reward/rejected, reward/margin, reward/accuracy, logp/chosen, logp/rejected (means per token),
    length/chosen, length/rejected; of an objective with memory state/<name>, or state/<name>/<category>.
    kind "state", the last: what such an objective remembers in the end, by name; "name/column" by category.
    kind "eval": accuracy, accuracy/low, accuracy/high, margin, logp/chosen, logp/rejected, and of the ten most probable tokens
    mass/10/chosen, mass/10/rejected, entropy/10/chosen, entropy/10/rejected, renormalised/10/chosen, renormalised/10/rejected
    (bits); where held-out prompts are answered, of one answer to each distinct/1 to distinct/5, distinct (their mean) and ead.
    kind "round" (on-policy): round (from 1), score (mean over this round's samples) and score/<dimension> where a judge
    has several, kept, ties, failed, identical, distinct2, the same seven, length, stopped, sampling (share of the round's time),
    seconds/sample, seconds/judge, seconds/pair, and where sampler and trainer were compared mismatch and mismatch/largest
    (|Δ log π| of a token)."""
    train_pairs: PairEvidence | None = None
    """The final model on (at most 256 of) the pairs it was trained on."""
    pairs_before: PairEvidence | None = None
    pairs_after: PairEvidence | None = None
    """Held-out pairs, whose prompts were never trained on."""
    lists_before: ListEvidence | None = None
    lists_after: ListEvidence | None = None
    """Held-out lists whole, where the data has lists; pairs_before and pairs_after hold their best against their worst."""
    samples_before: SampleEvidence | None = None
    samples_after: SampleEvidence | None = None
    """Held-out prompts, same settings and seed before and after."""
    judging: Mapping[str, Any] = field(default_factory=dict)
    """What was asked of endpoints, by the judge's name: asked, kept (from the cache), retried, prompt_tokens, completion_tokens,
    uncounted, soft, cost (None without prices), failed. Of a run that was resumed: since it was."""
    factors: dict[str, list[float]] | None = None
    """By factor, how much more of it the chosen of each held-out pair has than the rejected; counted, so no text is in it."""
    stances: StanceEvidence | None = None
    """Where the run was probed afterwards."""
    seconds: float = 0.0
    stopped_by: str | None = None
    """None for a run that ended by itself; else the sentence it was stopped with, or "interrupted"."""

    @property
    def makes(self) -> str:
        """What the trained model makes: text, pictures or policies (behaviour), by the domain's name; scores: a reward model."""
        pairs = [x for x in (self.pairs_before, self.pairs_after, self.train_pairs) if x is not None and x.numbers]
        scores = self.choices.get("head", "lm") != "lm" or not all(x.speaks for x in pairs)
        return "scores" if scores else str(self.choices.get("domain", "text"))

    @property
    def speaks(self) -> bool:
        """Whether the run trained a model that makes text."""
        return self.makes == "text"

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> RunEvidence:
        pair = lambda v: None if v is None else PairEvidence(**v)  # noqa: E731
        listed = lambda v: None if v is None else ListEvidence(**v)  # noqa: E731
        sample = lambda v: None if v is None else SampleEvidence(**v)  # noqa: E731
        return cls(
            **{
                **value,
                **{name: pair(value.get(name)) for name in ("train_pairs", "pairs_before", "pairs_after")},
                **{name: listed(value.get(name)) for name in ("lists_before", "lists_after")},
                **{name: sample(value.get(name)) for name in ("samples_before", "samples_after")},
                "stances": None if value.get("stances") is None else StanceEvidence(**value["stances"]),
            }
        )


def without_texts(evidence: RunEvidence) -> RunEvidence:
    """The evidence with every prompt and response left out; numbers stay."""

    def bare(samples: SampleEvidence | None) -> SampleEvidence | None:
        if samples is None:
            return None
        return dataclasses.replace(
            samples,
            prompts=[f"prompt {i + 1}" for i in range(len(samples.prompts))],
            texts=[["" for _ in t] for t in samples.texts],
            shown=None,
        )

    return dataclasses.replace(
        evidence, samples_before=bare(evidence.samples_before), samples_after=bare(evidence.samples_after)
    )

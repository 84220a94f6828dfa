"""One turn of the ring: sample, judge, pair. It trains nothing; the engine takes the pairs it makes."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast, get_args

import torch
from torch import nn

from penchant.domains.base import Domain, Samples
from penchant.errors import Refusal
from penchant.feedback.pairing import How
from penchant.feedback.ranking import Ranking, rank
from penchant.feedback.records import Prompt, Row
from penchant.rewards.account import why
from penchant.rewards.base import Comparer, Context, Judge, Judgement
from penchant.rewards.compare import both_ways
from penchant.rewards.ngrams import across, distinct
from penchant.rollouts import storage
from penchant.rollouts.pairs import Comparisons, PairSet, make_pairs


@dataclass(frozen=True)
class Sampling:
    """How a round was sampled and paired. Where temperature is not 1 or top_p below 1 the samples do not come from π
    itself: fine for making pairs, wrong for estimating an expectation under π, and so always on record."""

    count: int
    """Responses to each prompt."""
    limit: int
    """Most tokens of a response."""
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int = 0
    how: How | Ranking = "best-worst"
    engine: str = "own"
    """Who drew: the run's own model, or a server with its weights."""

    def __post_init__(self) -> None:
        if self.count < 2:
            raise Refusal(f"count={self.count}: a pair needs at least 2 responses to each prompt.")
        if not self.temperature > 0:
            raise Refusal(
                f"temperature={self.temperature:g}: greedy responses to one prompt are all the same, so no pair can be "
                "made of them; it must be larger than 0."
            )

    @property
    def biased(self) -> bool:
        """Whether samples come from another distribution than the model's own."""
        return self.temperature != 1 or self.top_p < 1


@dataclass(frozen=True)
class Agreement:
    """How far the log-probs of sampled tokens, as the sampler saw them, lie from what the trainer says of the same tokens."""

    mean: float
    """Mean |Δ log π| of a token, in nats."""
    largest: float
    tokens: int
    """How many tokens were compared."""


@dataclass(frozen=True, eq=False)
class Round:
    """What one round made, and what it was made with."""

    number: int
    """From 1."""
    contexts: tuple[Context, ...]
    samples: Samples
    judgement: Judgement
    """One entry per response, in the order of `samples.encoded`. Where they were compared: the mean probability with which
    a response won its comparisons, NaN where it was in none or one failed."""
    judge: str
    """The judge's name."""
    sampling: Sampling
    seconds: Mapping[str, float]
    """Wall time by part: sample, judge, pair."""
    pairs: PairSet
    compared: tuple[Comparisons, ...] | None = None
    """What a comparer said, one entry per prompt; None where a judge scored the responses."""
    agreement: Agreement | None = None
    """Of sampler and trainer; None where nobody compared."""

    @property
    def sampling_share(self) -> float:
        """The share of this round's time that went into sampling."""
        return self.seconds["sample"] / max(sum(self.seconds.values()), 1e-9)

    @property
    def statistics(self) -> dict[str, Any]:
        """One line of the run's history: round, score (mean; not where responses were only compared), score/<dimension>
        where there are several, strength (mean of the pairs') and comparisons where they were compared, kept, ties, failed,
        identical, distinct2, what `rewards.ngrams.across` counts, length (mean, in tokens), stopped (share), sampling (share of
        the time), seconds/sample, seconds/judge, seconds/pair; mismatch and mismatch/largest (|Δ log π| of a token) where sampler
        and trainer were compared."""
        valid = torch.isfinite(self.judgement.total)
        reward = self.judgement.reward[valid].double()
        parts = zip(self.judgement.names, reward.mean(0).tolist(), strict=True) if len(self.judgement.names) > 1 else ()
        lengths = self.samples.encoded.lengths
        strength = self.pairs.encoded.columns.get("strength") if self.pairs.kept else None
        stopped = [ended for group in self.samples.stopped for ended in group]
        return {
            "round": self.number,
            **({} if self.compared is not None else {"score": reward.sum(-1).mean().item()}),
            **{f"score/{name}": mean for name, mean in parts},
            **({} if strength is None else {"strength": strength.double().mean().item()}),
            **({} if self.compared is None else {"comparisons": sum(map(len, self.compared))}),
            "kept": self.pairs.kept,
            "ties": self.pairs.ties,
            "failed": self.pairs.failed,
            "identical": self.pairs.identical,
            "distinct2": distinct((text for group in self.samples.texts for text in group), 2),
            **across(self.samples.texts),
            "length": sum(lengths) / len(lengths),
            "stopped": sum(stopped) / len(stopped),
            "sampling": self.sampling_share,
            **{f"seconds/{part}": seconds for part, seconds in self.seconds.items()},
            **(
                {}
                if self.agreement is None
                else {"mismatch": self.agreement.mean, "mismatch/largest": self.agreement.largest}
            ),
        }

    def save(self, path: Path) -> None:
        """Writes the round as JSON Lines, whole or not at all. The pairs are not written: they follow from the rest."""
        about = {
            "number": self.number,
            "judge": self.judge,
            "sampling": asdict(self.sampling),
            "seconds": dict(self.seconds),
            "agreement": None if self.agreement is None else asdict(self.agreement),
            "compared": None
            if self.compared is None
            else [[[i, j, p if math.isfinite(p) else None] for (i, j), p in one.items()] for one in self.compared],
        }
        storage.write(path, about, self.contexts, self.samples, self.judgement)

    @classmethod
    def load(cls, path: Path, domain: Domain) -> Round:
        """The round as it was: ids, log-probs and rewards are equal to the last bit. Refuses a round whose prompts this
        domain encodes otherwise, since its ids would mean other texts."""
        about, contexts, samples, judgement = storage.read(path)
        prompts = [Row(n, "prompts", c.prompt) for n, c in zip(samples.encoded.numbers, contexts, strict=True)]
        now = domain.encode(prompts)
        same = len(now) == len(prompts) and all(map(torch.equal, now.contexts, samples.encoded.contexts))
        if not same:
            raise Refusal(
                f"{path} was sampled with prompts that this model encodes otherwise (another tokenizer, chat template or "
                "length limit), so its ids would mean other texts. Continue it with the model and settings it was made "
                "with, or remove it and sample again."
            )
        sampling = Sampling(**about["sampling"])
        said = about["compared"]
        compared = (
            tuple({(i, j): math.nan if p is None else p for i, j, p in one} for one in said) if said is not None else None
        )
        pairs = make_pairs(contexts, samples, judgement, sampling.how, about["number"], compared)
        agreement = Agreement(**about["agreement"]) if about.get("agreement") is not None else None
        return cls(
            *(about["number"], contexts, samples, judgement, about["judge"], sampling, about["seconds"], pairs, compared),
            agreement,
        )


def rollout(
    domain: Domain,
    policy: nn.Module,
    contexts: Sequence[Context | Prompt],
    judge: Judge | Comparer,
    *,
    count: int = 4,
    limit: int = 64,
    temperature: float = 1.0,
    top_p: float = 1.0,
    seed: int = 0,
    how: How | Ranking = "best-worst",
    number: int = 1,
    scored: bool = False,
) -> Round:
    """Samples `count` responses to each context, has them judged (scored by a Judge, or compared by a Comparer as the ranking
    `how` asks), makes pairs. The same seed, policy and contexts give the
    same round. `scored`: whether the samples' log-probs are wanted, for methods that compare with them. Refuses where not
    one judgement succeeded."""
    sampling = Sampling(count, limit, float(temperature), float(top_p), seed, how)
    asked = as_contexts(contexts)
    fits(judge, how)
    start = time.perf_counter()
    samples = domain.sample(
        policy,
        [context.prompt for context in asked],
        count=count,
        limit=limit,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        seed=seed,
        scored=scored,
    )
    return concluded(asked, samples, judge, sampling, number, time.perf_counter() - start)


def as_contexts(contexts: Sequence[Context | Prompt]) -> tuple[Context, ...]:
    """The contexts, of which there must be one."""
    asked = tuple(context if isinstance(context, Context) else Context(context) for context in contexts)
    if not asked:
        raise Refusal("there is no prompt to sample from; give at least one.")
    return asked


def fits(judge: Judge | Comparer, how: How | Ranking) -> None:
    """Refuses a pairing by scores of a judge that gives none."""
    if isinstance(judge, Comparer) and how not in get_args(Ranking):
        raise Refusal(
            f"{judge.name!r} compares responses and gives no scores, so they cannot be paired by {how!r}; choose one of "
            f"{', '.join(get_args(Ranking))}."
        )


def concluded(
    asked: tuple[Context, ...],
    samples: Samples,
    judge: Judge | Comparer,
    sampling: Sampling,
    number: int,
    seconds: float,
    agreement: Agreement | None = None,
) -> Round:
    """The round that samples make once they are judged and paired. seconds: what sampling took."""
    start = time.perf_counter()
    compared = None
    if isinstance(judge, Comparer):
        judgement, compared = compare(judge, asked, samples, cast(Ranking, sampling.how))
    else:
        judgement = judged(judge, asked, samples)
    done = time.perf_counter()
    pairs = make_pairs(asked, samples, judgement, sampling.how, number, compared)
    took = {"sample": seconds, "judge": done - start, "pair": time.perf_counter() - done}
    return Round(number, asked, samples, judgement, judge.name, sampling, took, pairs, compared, agreement)


def compare(
    comparer: Comparer, contexts: Sequence[Context], samples: Samples, how: Ranking
) -> tuple[Judgement, tuple[Comparisons, ...]]:
    """What the comparer says of the comparisons that the ranking asks for, in both orders where it is not symmetric."""
    found: tuple[dict[tuple[int, int], float], ...] = tuple({} for _ in contexts)

    def ask(asked: list[tuple[int, int, int]]) -> list[float]:
        seen = samples.seen
        said = both_ways(
            comparer,
            [contexts[n] for n, _, _ in asked],
            [seen[n][i] for n, i, _ in asked],
            [seen[n][j] for n, _, j in asked],
        ).tolist()
        for (n, i, j), p in zip(asked, said, strict=True):
            found[n][i, j] = p
        return said

    rank(samples.texts, ask, how)
    if any(found) and not any(math.isfinite(p) for one in found for p in one.values()):
        raise Refusal(
            f"the comparer {comparer.name!r} failed on every comparison of this round, so there is nothing to learn from: "
            f"{why(comparer)}"
        )
    shares = []
    for one, count in zip(found, samples.encoded.counts, strict=True):
        won = [[p if i == k else 1 - p for (i, j), p in one.items() if k in (i, j)] for k in range(count)]
        shares += [sum(ps) / len(ps) if ps else math.nan for ps in won]
    reward = torch.tensor(shares, dtype=torch.float32).reshape(len(shares), 1)
    return Judgement(reward, torch.isfinite(reward[:, 0]), (comparer.name,)), found


def judged(judge: Judge, contexts: Sequence[Context], samples: Samples) -> Judgement:
    """What the judge says of every sampled response, flat, in row order."""
    flat = [(context, text) for context, texts in zip(contexts, samples.seen, strict=True) for text in texts]
    judgement = judge([context for context, _ in flat], [text for _, text in flat])
    if not len(judgement.valid) == len(judgement.reward) == len(flat):
        raise Refusal(f"the judge {judge.name!r} said {len(judgement.valid)} things of {len(flat)} responses.")
    if not bool(torch.isfinite(judgement.total).any()):
        raise Refusal(
            f"the judge {judge.name!r} failed on all {len(flat)} responses of this round, so there is nothing to learn "
            f"from: {why(judge)}"
        )
    return judgement

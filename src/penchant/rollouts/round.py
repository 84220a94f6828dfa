"""One turn of the ring: sample, judge, pair. It trains nothing; the engine takes the pairs it makes."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from penchant.domains.base import Domain, Samples
from penchant.errors import Refusal
from penchant.feedback.pairing import How
from penchant.feedback.records import Prompt, Row
from penchant.rewards.base import Context, Judge, Judgement
from penchant.rewards.function import why
from penchant.rewards.ngrams import distinct
from penchant.rollouts import storage
from penchant.rollouts.pairs import PairSet, make_pairs


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
    how: How = "best-worst"

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


@dataclass(frozen=True, eq=False)
class Round:
    """What one round made, and what it was made with."""

    number: int
    """From 1."""
    contexts: tuple[Context, ...]
    samples: Samples
    judgement: Judgement
    """One entry per response, in the order of `samples.encoded`."""
    judge: str
    """The judge's name."""
    sampling: Sampling
    seconds: Mapping[str, float]
    """Wall time by part: sample, judge, pair."""
    pairs: PairSet

    @property
    def sampling_share(self) -> float:
        """The share of this round's time that went into sampling."""
        return self.seconds["sample"] / max(sum(self.seconds.values()), 1e-9)

    @property
    def statistics(self) -> dict[str, Any]:
        """One line of the run's history: round, score (mean), score/<dimension> where there are several, kept, ties,
        failed, identical, distinct2, length (mean, in tokens), stopped (share), sampling (share of the time)."""
        valid = torch.isfinite(self.judgement.total)
        reward = self.judgement.reward[valid].double()
        parts = zip(self.judgement.names, reward.mean(0).tolist(), strict=True) if len(self.judgement.names) > 1 else ()
        lengths = self.samples.encoded.lengths
        stopped = [ended for group in self.samples.stopped for ended in group]
        return {
            "round": self.number,
            "score": reward.sum(-1).mean().item(),
            **{f"score/{name}": mean for name, mean in parts},
            "kept": self.pairs.kept,
            "ties": self.pairs.ties,
            "failed": self.pairs.failed,
            "identical": self.pairs.identical,
            "distinct2": distinct((text for group in self.samples.texts for text in group), 2),
            "length": sum(lengths) / len(lengths),
            "stopped": sum(stopped) / len(stopped),
            "sampling": self.sampling_share,
        }

    def save(self, path: Path) -> None:
        """Writes the round as JSON Lines, whole or not at all. The pairs are not written: they follow from the rest."""
        about = {
            "number": self.number,
            "judge": self.judge,
            "sampling": asdict(self.sampling),
            "seconds": dict(self.seconds),
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
        pairs = make_pairs(contexts, samples, judgement, sampling.how, about["number"])
        return cls(about["number"], contexts, samples, judgement, about["judge"], sampling, about["seconds"], pairs)


def rollout(
    domain: Domain,
    policy: nn.Module,
    contexts: Sequence[Context | Prompt],
    judge: Judge,
    *,
    count: int = 4,
    limit: int = 64,
    temperature: float = 1.0,
    top_p: float = 1.0,
    seed: int = 0,
    how: How = "best-worst",
    number: int = 1,
    scored: bool = False,
) -> Round:
    """Samples `count` responses to each context, has them judged, makes pairs. The same seed, policy and contexts give the
    same round. `scored`: whether the samples' log-probs are wanted, for methods that compare with them. Refuses where not
    one judgement succeeded."""
    sampling = Sampling(count, limit, float(temperature), float(top_p), seed, how)
    asked = tuple(context if isinstance(context, Context) else Context(context) for context in contexts)
    if not asked:
        raise Refusal("there is no prompt to sample from; give at least one.")
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
    sampled = time.perf_counter()
    judgement = judged(judge, asked, samples)
    done = time.perf_counter()
    pairs = make_pairs(asked, samples, judgement, how, number)
    seconds = {"sample": sampled - start, "judge": done - sampled, "pair": time.perf_counter() - done}
    return Round(number, asked, samples, judgement, judge.name, sampling, seconds, pairs)


def judged(judge: Judge, contexts: Sequence[Context], samples: Samples) -> Judgement:
    """What the judge says of every sampled response, flat, in row order."""
    flat = [(context, text) for context, texts in zip(contexts, samples.texts, strict=True) for text in texts]
    judgement = judge([context for context, _ in flat], [text for _, text in flat])
    if not len(judgement.valid) == len(judgement.reward) == len(flat):
        raise Refusal(f"the judge {judge.name!r} said {len(judgement.valid)} things of {len(flat)} responses.")
    if not bool(torch.isfinite(judgement.total).any()):
        raise Refusal(
            f"the judge {judge.name!r} failed on all {len(flat)} responses of this round, so there is nothing to learn "
            f"from: {why(judge)}"
        )
    return judgement

"""A model's numbers as evidence: held-out pairs scored, prompts answered and judged. The same function measures before and
after, so the two differ by the model alone."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from penchant.domains.base import Encoded, Samples
from penchant.domains.sharding import gathered
from penchant.domains.text import blocks, logits, merging, paths, policy, tree, trunk
from penchant.domains.text.paths import ScoringPath
from penchant.engine.precision import Precision
from penchant.engine.settings import Settings
from penchant.engine.sources import Anchors
from penchant.evaluation.evidence import ListEvidence, PairEvidence, SampleEvidence
from penchant.evaluation.likelihood import TopK
from penchant.evaluation.lists import list_evidence
from penchant.evaluation.pairs import accuracy, margin, pair_evidence
from penchant.evaluation.samples import said_of, sample_evidence
from penchant.feedback.goals import Goals
from penchant.feedback.records import Prompt, as_text
from penchant.files import cache_folder, fingerprint, read_json, write_json
from penchant.objectives.base import Objective, rewards, weighs
from penchant.objectives.scored import Batch, Lists, Pairs, Scored, masks
from penchant.references.store import Store
from penchant.rewards.base import Comparer, Context, Judge, Judgement
from penchant.rewards.compare import WinAgainst
from penchant.rewards.ngrams import across
from penchant.rollouts.round import judged
from penchant.version import __version__

WATCHED = TopK(renormalise=True)
"""What is followed of held-out pairs besides what the objective reads."""


class Measure:
    """Scores pairs and samples of one run, always in the same way."""

    def __init__(
        self,
        anchors: Anchors,
        objective: Objective,
        settings: Settings,
        judge: Judge | Comparer | None,
        goals: Goals | None = None,
        preferred: Mapping[str, str] | None = None,
        answers: Path | None = None,
        guard: Judge | None = None,
        pictured: Callable[[Any], str] | None = None,
    ) -> None:
        """preferred: the data's own best answers, by prompt. answers: a folder that runs with one start keep its answers in.
        guard: judges besides, and nothing else is done with what it says. pictured: makes what a judge is shown a picture, as a
        data:image/… URI; None where responses are texts."""
        self.anchors, self.objective, self.settings, self.judge, self.goals = anchors, objective, settings, judge, goals
        self.guard, self.pictured = guard, pictured
        self.preferred, self.answers = preferred or {}, answers
        self._stores: dict[int, dict[str, Store]] = {}
        self._at_start: dict[str, str] = {}

    @property
    def _head(self) -> str:
        """What of the policy is read."""
        return self.objective.needs.head

    def pairs(self, rows: Encoded | None, title: str) -> PairEvidence | None:
        """The policy's rewards and log-probs on pairs; None where there are none, or the objective has no reward."""
        batch = self._batch(rows, title)
        return None if rows is None or batch is None else self._pairs(rows, batch)

    def line(self, rows: Encoded, title: str) -> dict[str, float]:
        """What is followed of held-out pairs during a run, with the monitors' numbers of chosen and rejected."""
        speaks = self._head == "lm"
        texts = speaks and self.pictured is None
        batch = self._batch(rows, title, WATCHED.values if texts else frozenset())
        assert isinstance(batch, Pairs)
        found = self._pairs(rows, batch)
        right = accuracy(found)
        line = {
            "accuracy": right.value,
            "accuracy/low": right.low,
            "accuracy/high": right.high,
            "margin": margin(found).value,
        }
        if not speaks:
            return line
        watched = {
            f"{name}/{side}": x
            for side, y in (("chosen", batch.w), ("rejected", batch.l))
            for name, x in (WATCHED(y).items() if texts else ())
        }
        return {
            **line,
            "logp/chosen": sum(found.logp_chosen) / sum(found.length_chosen),
            "logp/rejected": sum(found.logp_rejected) / sum(found.length_rejected),
            **watched,
        }

    def variety(self, contexts: Sequence[Context]) -> dict[str, float]:
        """How different the policy's answers to different prompts are, one to each, with the same seed at every call; empty
        without prompts, and of responses that are no texts."""
        return across(self._answered(contexts, 1).texts) if contexts and self.pictured is None else {}

    def _answered(self, contexts: Sequence[Context], count: int) -> Samples:
        scorer, settings = self.anchors.scorer, self.settings
        with gathered(scorer.policy):
            return scorer.domain.sample(
                scorer.policy,
                self._asked(contexts),
                count=count,
                limit=settings.limit,
                temperature=settings.temperature,
                top_p=settings.top_p,
                seed=settings.seed + 7,
                scored=False,
            )

    def _pairs(self, rows: Encoded, batch: Batch) -> PairEvidence:
        assert isinstance(batch, Pairs)
        seen: dict[bytes, int] = {}
        groups = [seen.setdefault(c.numpy().tobytes(), len(seen)) for c in rows.contexts]
        if self.settings.split == "row":  # the prompts are those trained on: what is new is each row
            groups = list(range(len(rows)))
        return pair_evidence(self.objective, [batch], rows.numbers, groups, rows.lengths)

    def lists(self, rows: Encoded | None, title: str) -> ListEvidence | None:
        """The policy's rewards of graded lists, as for pairs."""
        batch = self._batch(rows, title)
        if rows is None or batch is None:
            return None
        assert isinstance(batch, Lists)
        return list_evidence(self.objective, [batch], rows.numbers)

    def _batch(self, rows: Encoded | None, title: str, watched: frozenset[str] = frozenset()) -> Batch | None:
        """All rows scored, with the values a monitor needs; None where there is nothing to measure. They are held against the
        start of the run, which is every phase's start too here, so that before and after are alike."""
        if rows is None or not rewards(self.objective):
            return None
        values = sorted(self.objective.needs.scoring | watched)
        if self.anchors.scorer.domain.noisy:
            values = sorted({*values, *self.objective.needs.anchors})
            logp, *beside = self._all(rows, lambda some: self._said(some, values))
            anchors = {name: x for name, x in zip(values, beside, strict=True) if name in self.objective.needs.anchors}
        else:
            anchors = self._anchored(rows, title)
            if self.anchors.scorer.moved or values or "ref" not in anchors:
                logp, *beside = self._all(rows, lambda some: self._said(some, values))
            else:  # A policy that has not moved is its own reference: what is stored is what it would say.
                logp, beside = anchors["ref"], []
        weight = rows.weight if weighs(self.objective) else None
        y = Scored(logp, masks(rows.steps(self._head)), None, anchors, dict(zip(values, beside, strict=True)), weight)
        return rows.batch(y)

    def _anchored(self, rows: Encoded, title: str) -> dict[str, Tensor]:
        """What is kept of the anchors' log-probs of all rows."""
        stores = self._stores.get(id(rows))
        if stores is None:
            also = ("ref",) if self._head == "lm" else ()
            stores = self._stores[id(rows)] = self.anchors.anchors(rows, title, also=also)
        return {name: store(range(len(rows))) for name, store in stores.items()}

    def samples(self, contexts: Sequence[Context]) -> SampleEvidence | None:
        """The policy's answers to prompts, judged; the seed is the same at every call."""
        if not contexts:
            return None
        if self.answers is None or self.anchors.scorer.moved:
            return self._samples(contexts)
        kept = self.answers / f"{self._name(contexts)}.json"
        if kept.exists():
            return SampleEvidence(**read_json(kept))
        found = self._samples(contexts)
        write_json(kept, asdict(found))
        return found

    def _name(self, contexts: Sequence[Context]) -> str:
        """By content: what the start is asked, how, and who judges it."""
        settings = self.settings
        how = (settings.sample_count, settings.limit, settings.temperature, settings.top_p, settings.seed, settings.goals)
        who = [None if x is None else x.name for x in (self.judge, self.guard)]
        asked = [[context.prompt, context.annotator, self.preferred.get(WinAgainst.key(context))] for context in contexts]
        return fingerprint(json.dumps([how, who, asked]))

    def _samples(self, contexts: Sequence[Context]) -> SampleEvidence:
        scorer, settings, judge = self.anchors.scorer, self.settings, self._judge(contexts)
        self.anchors.progress("answering held-out prompts", 0, 1)
        samples = self._answered(contexts, settings.sample_count)
        # Both are scored here, in the run's own precision: a KL must not measure the difference of two number formats.
        mask = masks(samples.encoded.lengths)
        all_of = lambda score: self._all(samples.encoded, lambda some: [score(some)])[0]  # noqa: E731
        noisy = scorer.domain.noisy  # of log π that is itself an estimate in noise no KL can be told
        ref = None if noisy else Scored(all_of(scorer.at_start), mask)
        now = Scored(all_of(scorer.now), mask) if ref is None or scorer.moved else ref
        samples = replace(samples, logp=now)
        judgement = judged(judge, contexts, samples) if judge is not None else None
        guarded = judged(self.guard, contexts, samples) if self.guard is not None else None
        self.anchors.progress("answering held-out prompts", 1, 1)
        prompts = [as_text(context.prompt) for context in contexts]
        found = sample_evidence(samples, ref, judgement, prompts, judge.name if judge is not None else None)
        if self.guard is not None and guarded is not None:
            found = replace(found, guard=said_of(guarded, samples.encoded.counts), guarded_by=self.guard.name)
        if self.pictured is not None and settings.report_samples:
            found = replace(found, shown=[[self.pictured(x) for x in row] for row in samples.seen])
        if judge is None or judgement is None:
            return found
        against = self._against_chosen(contexts, samples.texts, judgement)
        return replace(found, against_start=isinstance(judge, WinAgainst), against_chosen=against)

    def _against_chosen(
        self, contexts: Sequence[Context], texts: Sequence[Sequence[str]], judgement: Judgement
    ) -> list[list[float | None]] | None:
        """How probably each sample is better than the answer that the data prefers, [prompts][samples]."""
        asked = [(i, context, text) for i, (context, row) in enumerate(zip(contexts, texts, strict=True)) for text in row]
        some = [n for n, (_, context, _) in enumerate(asked) if WinAgainst.key(context) in self.preferred]
        if not some or self.judge is None:
            return None
        whom, said = [asked[n][1] for n in some], [asked[n][2] for n in some]
        if isinstance(self.judge, Comparer):
            better = WinAgainst(self.judge, self.preferred)(whom, said).total
        else:
            chosen = self.judge(whom, [self.preferred[WinAgainst.key(context)] for context in whom]).total
            gap = judgement.total[torch.tensor(some)] - chosen
            better = torch.where(gap.isnan(), gap, torch.heaviside(gap, gap.new_tensor(0.5)))
        out: list[list[float | None]] = [[] for _ in contexts]
        known = dict(zip(some, better.tolist(), strict=True))
        for n, (i, _, _) in enumerate(asked):
            value = known.get(n, math.nan)
            out[i].append(None if math.isnan(value) else value)
        return out

    def _asked(self, contexts: Sequence[Context]) -> list[Prompt]:
        """The prompts as the model gets them: a model trained towards goals is asked for the highest score."""
        goals = self.goals
        return [context.prompt if goals is None else goals.ask(context.prompt, goals.high) for context in contexts]

    def _judge(self, contexts: Sequence[Context]) -> Judge | None:
        """Who scores single answers: the judge; for a comparer, how probably it prefers them to the start's greedy ones."""
        if not isinstance(self.judge, Comparer):
            return self.judge
        new = [context for context in contexts if WinAgainst.key(context) not in self._at_start]
        if new:
            scorer = self.anchors.scorer
            with scorer.start() as policy, gathered(policy):
                greedy = scorer.domain.sample(
                    policy, self._asked(new), limit=self.settings.limit, temperature=0.0, scored=False
                )
            self._at_start |= {WinAgainst.key(context): texts[0] for context, texts in zip(new, greedy.texts, strict=True)}
        return WinAgainst(self.judge, self._at_start)

    def _said(self, rows: Encoded, values: list[str]) -> list[Tensor]:
        """log π and the values, in that order."""
        y = self.anchors.scorer.by(self.anchors.scorer.policy, rows, frozenset(values))
        return [y.logp, *(y.value(name) for name in values)]

    def _all(self, rows: Encoded, score: Callable[[Encoded], list[Tensor]]) -> list[Tensor]:
        """Tables of all responses, [n, steps] each, scored in micro-batches."""
        out: list[Tensor] = []
        for group in self.anchors.scorer.micro_batches(rows):
            tables = score(rows.select(group))
            out = out or [torch.zeros(len(rows.lengths), max(rows.steps(self._head))) for _ in tables]
            for whole, part in zip(out, tables, strict=True):
                whole[rows.places(group), : part.shape[1]] = part.cpu()
        return out


def text_cache(model: str, precision: Precision, device: torch.device, path: ScoringPath) -> Path:
    """The same of a language model. `model`: its fingerprint, which covers weights, tokenizer, template, options and the code that
    makes ids. `path`: how it reads responses."""
    code = (policy, paths, tree, blocks, merging, trunk, logits)
    return reference_cache(model, precision, device, replace(path, said="").to_json(), code)


def reference_cache(
    model: str, precision: Precision, device: torch.device, how: Any, modules: Sequence[ModuleType]
) -> Path:
    """Where log π of a model that stays as it is is kept: a folder named by everything it depends on but the rows, which are
    named by their content. how: as JSON, whatever else of its settings it hangs on. modules: the code that computes it."""
    code = "".join(Path(str(module.__file__)).read_text(encoding="utf-8") for module in modules)
    made = (
        __version__,
        torch.__version__,
        version("transformers"),
        device.type,
        precision.name,
        precision.matmul,
        how,
    )
    return cache_folder() / "references" / fingerprint(model, code, json.dumps(made))

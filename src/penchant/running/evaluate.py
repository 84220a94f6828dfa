"""A model against the one it came from, on data neither was trained on: measured and judged as a run measures and judges
itself. It trains nothing and writes nothing but caches."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from penchant.domains.text.models import Loaded
from penchant.domains.text.paths import ScoringPath, probe
from penchant.engine.precision import Precision, choose
from penchant.engine.settings import Settings
from penchant.engine.sources import Anchors, Scorer
from penchant.errors import Refusal
from penchant.evaluation.evidence import RunEvidence
from penchant.evaluation.verdict import Verdict, judge_run
from penchant.feedback import Goals, convert, open_source
from penchant.objectives.base import Objective
from penchant.rewards.account import failures, spent
from penchant.rewards.naming import Named
from penchant.rollouts import contexts_of
from penchant.running.judging import ready
from penchant.running.measure import Measure, text_cache
from penchant.running.models import Models
from penchant.running.prepare import factors_of, held_lists_of
from penchant.running.voice import Voice


def evaluate(
    model: str,
    reference: str,
    data: str | Path,
    objective: Objective,
    judge: Named | None,
    settings: Settings,
    voice: Voice,
) -> tuple[RunEvidence, Verdict]:
    """The reference's numbers as before, the model's as after. data: pairs or lists, whose implicit rewards are measured by
    the objective, or prompts, whose answers a judge scores. Raises Refusal where the two models do not read text alike."""
    started = time.perf_counter()
    torch.set_num_threads(settings.thread_count)
    accelerator = Accelerator()
    source = open_source(data, bad_rows=settings.bad_rows)
    if source.kind == "prompts" and judge is None:
        raise Refusal(f"{source.name} holds prompts only, and somebody must judge the answers: give --judge.")
    voice.say(f"loading {model} and {reference}")
    new, old = (_load(name, settings, accelerator.device, objective) for name in (model, reference))
    if new.domain.fingerprint != old.domain.fingerprint:
        raise Refusal(
            f"{model} and {reference} write text differently (tokenizer, template or length), so their log-probs cannot be "
            "compared; give the model this one was trained from."
        )
    rows = list(source)
    pairs = None
    if source.kind in ("pairs", "lists"):
        pairs = new.domain.encode(rows if source.kind == "pairs" else convert(rows, "pairs"))
        voice.say(f"{source.name}: {pairs.accounting}")
        if not len(pairs):
            raise Refusal(f"no row of {source.name} is left to measure: {pairs.accounting}.")
    lists = held_lists_of(rows, new.domain)
    speaks = objective.needs.head == "lm"
    prompts = contexts_of(rows)[: settings.sample_prompts] if speaks else []

    precision = choose(settings.precision, accelerator.device)
    precision.apply()
    with precision.forward(accelerator.device):
        found = {probe(one.policy) for one in (old, new)}
    scoring = found.pop() if len(found) == 1 else ScoringPath("padded", "logits", said="the two models differ")
    for one in (old, new):
        one.policy.follow(scoring)
    before = _measure(old, old, precision, objective, judge, settings, accelerator, voice, new.domain.goals)
    after = _measure(new, old, precision, objective, judge, settings, accelerator, voice, new.domain.goals)
    evidence = RunEvidence(
        settings={"model": model, "reference": reference, "data": str(data), "objective": repr(objective)},
        choices={
            "precision": precision.to_json(),
            "scoring": scoring.to_json(),
            "device": str(accelerator.device),
            "head": objective.needs.head,
        },
        data={"source": source.name, "fingerprint": source.fingerprint, "held_out": len(source)},
        pairs_before=before.pairs(pairs, "pairs"),
        lists_before=before.lists(lists, "lists"),
        samples_before=before.samples(prompts),
        pairs_after=after.pairs(pairs, "pairs"),
        lists_after=after.lists(lists, "lists"),
        samples_after=after.samples(prompts),
        factors=None if pairs is None else factors_of(rows, pairs.numbers),
        seconds=time.perf_counter() - started,
    )
    if after.judge is not None:
        evidence = replace(evidence, judging=spent(after.judge))
        for said in failures(after.judge):
            voice.say(said)
    return evidence, judge_run(evidence)


def _load(name: str, settings: Settings, device: torch.device, objective: Objective) -> Loaded:
    return Models(name, settings, lambda policy: policy.to(device), objective.needs.head).load()


def _measure(
    loaded: Loaded,
    reference: Loaded,
    precision: Precision,
    objective: Objective,
    judge: Named | None,
    settings: Settings,
    accelerator: Accelerator,
    voice: Voice,
    goals: Goals | None,
) -> Measure:
    """What measures a model, held against the reference."""
    start: Any = lambda: reference.policy  # noqa: E731
    about = (precision, accelerator.device, settings.tokens)
    scorer = Scorer(loaded.domain, loaded.policy, *about, None, start, objective.needs.head)
    scorer.moved = loaded is not reference
    if "kl" in objective.needs.values:
        loaded.policy.hold(reference.policy)
    cache = text_cache(reference.source["fingerprint"], precision, accelerator.device, reference.policy.scoring_path)
    anchors = Anchors(scorer, objective, settings, accelerator, cache, voice.progress)
    return Measure(anchors, objective, settings, ready(judge, scorer, settings), goals)

"""One run from start to end: claim the folder, load, prepare, measure, train, measure again, judge, save, report. Each stage
is a few lines; the work is done in the rooms below."""

from __future__ import annotations

import importlib.util
import os
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import nn

from penchant.domains.models import Loaded, LoRA, identity_of, load
from penchant.domains.paths import ScoringPath, probe
from penchant.domains.policy import reference_of
from penchant.engine import checkpoint
from penchant.engine.checkpoint import Position
from penchant.engine.folder import RunFolder
from penchant.engine.loop import Job, train
from penchant.engine.precision import Precision, choose
from penchant.engine.rounds import FromRounds
from penchant.engine.settings import Settings
from penchant.engine.sources import Anchors, FromFile, Past, Scorer
from penchant.engine.step import Outcome
from penchant.errors import Refusal, StoppedRun
from penchant.evaluation.evidence import IN_PYTHON, RunEvidence, without_texts
from penchant.evaluation.pairs import accuracy, margin
from penchant.evaluation.verdict import Verdict, judge_run
from penchant.feedback.goals import Goals
from penchant.files import read_json, whole_folder, write, write_json
from penchant.objectives.base import Objective, rewards, weighs
from penchant.objectives.scored import Pairs
from penchant.report.card import model_card
from penchant.report.page import render
from penchant.rewards.asking import Asking
from penchant.rewards.base import Comparer, Judge
from penchant.running.judging import paired_by, ready
from penchant.running.measure import Measure, reference_cache
from penchant.running.prepare import Prepared, prepare
from penchant.running.voice import Voice
from penchant.version import versions

TRAIN_PAIRS = 256
"""Trained pairs that are scored again at the end, to see what was memorised."""


class Alignment:
    """A run under way."""

    def __init__(
        self,
        model: str,
        data: Any,
        objective: Objective,
        output: Path,
        judge: Judge | Comparer | Asking | None,
        unseen: Any,
        settings: Settings,
        voice: Voice,
    ) -> None:
        self.model, self.data, self.objective, self.judge, self.unseen = model, data, objective, judge, unseen
        self.settings, self.voice, self.folder = settings, voice, RunFolder(output)
        self.started = time.perf_counter()
        self.scoring: ScoringPath | None = None
        """How the run's models read responses, once that is chosen."""
        consistent(objective, settings, judge)
        torch.set_num_threads(settings.thread_count)
        self.accelerator = Accelerator(log_with=list(settings.trackers) or None, project_dir=str(output))
        launched = int(os.environ.get("WORLD_SIZE", "1"))
        if launched != self.accelerator.num_processes:
            raise Refusal(
                f"{launched} processes were launched, but each would run alone and write into the same folder. Launch them "
                "with `accelerate launch`, on machines without an accelerator with `accelerate launch --cpu`."
            )

    def run(self) -> tuple[RunEvidence, Verdict]:
        """Everything, in order. A run that was finished already is only judged again."""
        try:
            return self._run()
        finally:
            self.accelerator.end_training()  # closes the trackers, and what joins the processes
            self.folder.release()

    def _run(self) -> tuple[RunEvidence, Verdict]:
        self.voice.say(f"loading {self.model}")
        loaded = self._load()
        loaded.policy.to(self.accelerator.device)
        self.past = {name: identity_of(name, loaded.domain, self.settings.allow_bin) for name in self.settings.history}
        goals = self._goals(loaded)
        prepared = prepare(self.data, self.unseen, loaded.domain, self.objective, self.settings, goals)
        for note in prepared.notes:
            self.voice.say(note)
        self.voice.account(prepared.about)

        if self.settings.evaluate_every and (prepared.held_pairs is None or not rewards(self.objective)):
            raise Refusal(
                f"evaluate_every={self.settings.evaluate_every} measures {self.objective!r} on held-out pairs, but "
                f"{'none are held out' if rewards(self.objective) else 'it has no reward'}. Leave --evaluate-every out."
            )
        self._claim(loaded, prepared)
        if self.folder.finished:
            self.voice.say(f"{self.folder.path} holds this run, finished: nothing is left to do.")
            evidence = RunEvidence.from_json(read_json(self.folder.evidence))
            return evidence, judge_run(evidence)
        precision, choices = self._choices(loaded)
        if "kl" in self.objective.needs.values and not loaded.policy.knows_reference:
            loaded.policy.hold(self._load().policy)

        scorer = self._scorer(loaded, precision)
        scorer.moved = checkpoint.latest(self.folder.checkpoints) is not None
        cache = reference_cache(loaded.source["fingerprint"], precision, self.accelerator.device)
        history = self._history(loaded, precision)
        anchors = Anchors(scorer, self.objective, self.settings, self.accelerator, cache, self.voice.progress, history)
        judge = ready(self.judge, scorer, self.settings)
        measure = Measure(anchors, self.objective, self.settings, judge, goals)
        before = self._before(measure, prepared)

        if prepared.train is not None:
            source = FromFile(prepared.train, anchors)
        else:
            assert judge is not None
            source = FromRounds(prepared.prompts, judge, anchors, self.settings, self.folder)
        begun = replace(before, settings=self._asked(), choices=choices, data=prepared.about)
        try:
            stopped = self._train(loaded, source, scorer, measure, prepared, precision)
        except StoppedRun as error:
            self._leave(loaded, self._so_far(begun, str(error)))
            raise
        evidence = self._so_far(begun, stopped)
        if stopped is None:
            trained = (
                prepared.train if prepared.train is not None else source.material(source.phases - 1, 0, begun=True).rows
            )
            some = trained.select(range(min(len(trained), TRAIN_PAIRS))) if trained.data is Pairs else None
            evidence = replace(
                evidence,
                train_pairs=measure.pairs(some, "trained pairs"),
                pairs_after=measure.pairs(prepared.held_pairs, "held-out pairs"),
                lists_after=measure.lists(prepared.held_lists, "held-out lists"),
                samples_after=measure.samples(prepared.held_prompts),
                seconds=time.perf_counter() - self.started,
            )
        return evidence, self._leave(loaded, evidence)

    def _so_far(self, evidence: RunEvidence, stopped: str | None) -> RunEvidence:
        seconds = time.perf_counter() - self.started
        return replace(evidence, history=self.folder.history(), seconds=seconds, stopped_by=stopped)

    # --- stages

    def _load(self) -> Loaded:
        settings = self.settings
        set_seed(settings.seed)  # a new adapter's first values
        lora = None
        if settings.lora:
            names = tuple(name.strip() for name in settings.lora_targets.split(","))
            # peft reads a single string as a regular expression, or as its own word all-linear
            targets = names if len(names) > 1 else settings.lora_targets
            lora = LoRA(settings.lora, settings.lora_alpha or 2 * settings.lora, targets)
        loaded = load(
            self.model,
            lora=lora,
            revision=settings.revision,
            allow_bin=settings.allow_bin,
            template=settings.template,
            max_length=settings.max_length,
            too_long=settings.too_long,
        )
        if self.scoring is not None:  # a copy says what the policy says only if it reads as the policy does
            loaded.policy.follow(self.scoring)
        return loaded

    def _goals(self, loaded: Loaded) -> Goals | None:
        """The scale of goals this run trains towards, put as the model's template can."""
        scale = self.settings.goals
        return None if scale is None else Goals(*scale, system=loaded.domain.chat.takes_system)

    def _asked(self) -> dict[str, Any]:
        """What was asked, as it is written."""
        return {
            "model": self.model,
            "data": source_name(self.data),
            "unseen": source_name(self.unseen) if self.unseen is not None else None,
            "objective": repr(self.objective),
            "judge": self.judge.name if self.judge is not None else None,
            "output": str(self.folder.path),
            **self.settings.model_dump(mode="json"),
        }

    def _claim(self, loaded: Loaded, prepared: Prepared) -> None:
        """Takes the folder, or goes on with the run it holds."""
        self.identity = {
            "model": loaded.source["fingerprint"],
            "data": prepared.about["fingerprint"],
            "unseen": prepared.about["unseen"],
            "objective": repr(self.objective),
            "judge": self.judge.name if self.judge is not None else None,
            "settings": self.settings.identity(),
            **({"history": list(self.past.values())} if self.past else {}),
        }
        if self.accelerator.is_main_process:
            resumed = self.folder.claim(self.identity, self.settings.overwrite)
            if resumed and not self.folder.finished:
                self.voice.say(f"{self.folder.path} holds this run, unfinished: going on from its last checkpoint.")
        self.accelerator.wait_for_everyone()

    def _choices(self, loaded: Loaded) -> tuple[Precision, dict[str, Any]]:
        """How this run computes: measured by the first process at the first start, the same ever after and everywhere."""
        if self.accelerator.is_main_process and not self.folder.choices:
            precision = choose(self.settings.precision, self.accelerator.device)
            precision.apply()
            with precision.forward(self.accelerator.device):
                scoring = probe(loaded.policy)
            choices = {
                "precision": precision.to_json(),
                "scoring": scoring.to_json(),
                "device": str(self.accelerator.device),
                "processes": self.accelerator.num_processes,
                "threads": torch.get_num_threads(),
                "model": loaded.source,
                "parameters": sum(p.numel() for p in loaded.policy.parameters()),
                "trained_parameters": sum(p.numel() for _, p in loaded.policy.named_trainable()),
                "versions": versions(),
            }
            self.folder.record(self.identity, choices)
        self.accelerator.wait_for_everyone()
        choices = self.folder.choices
        precision = Precision(**choices["precision"])
        precision.apply()
        torch.set_num_threads(choices["threads"])
        self.scoring = loaded.policy.follow(ScoringPath(**choices["scoring"]))
        self.voice.say(
            f"precision {precision}; {choices['trained_parameters']:,} of {choices['parameters']:,} parameters train; "
            f"device {choices['device']}, {choices['threads']} threads; {self.scoring}"
        )
        return precision, choices

    def _scorer(self, loaded: Loaded, precision: Precision) -> Scorer:
        return Scorer(
            loaded.domain,
            loaded.policy,
            precision,
            self.accelerator.device,
            self.settings.tokens,
            reference_of(loaded.policy),
            lambda: self._load().policy,
        )

    def _history(self, loaded: Loaded, precision: Precision) -> list[Past]:
        """The saved models the objective is held against, loaded only when something is to be scored."""

        def opened(name: str) -> nn.Module:
            settings, ours = self.settings, loaded.domain
            past = load(
                name,
                allow_bin=settings.allow_bin,
                template=settings.template,
                max_length=settings.max_length,
                too_long=settings.too_long,
            )
            if past.domain.fingerprint != ours.fingerprint:
                raise Refusal(
                    f"history: {name!r} makes other tokens of a text than {self.model!r} does (its tokenizer, its template or "
                    "its length differ), so their log-probs cannot be compared."
                )
            return past.policy.requires_grad_(False).to(self.accelerator.device)

        device = self.accelerator.device
        return [
            Past(Path(name).name, reference_cache(made, precision, device), partial(opened, name))
            for name, made in self.past.items()
        ]

    def _before(self, measure: Measure, prepared: Prepared) -> RunEvidence:
        """The start model's numbers, measured once and kept for a resumed run."""
        if self.folder.before.exists():
            return RunEvidence.from_json(read_json(self.folder.before))
        if measure.anchors.scorer.moved:
            raise Refusal(f"{self.folder.path} has checkpoints but no before.json; start it anew with --overwrite.")
        pairs = measure.pairs(prepared.held_pairs, "held-out pairs")
        lists = measure.lists(prepared.held_lists, "held-out lists")
        samples = measure.samples(prepared.held_prompts)
        there = RunEvidence({}, {}, {}, pairs_before=pairs, lists_before=lists, samples_before=samples)
        if self.accelerator.is_main_process:
            write_json(self.folder.before, (there if self.settings.report_samples else without_texts(there)).to_json())
        return there

    def _train(
        self,
        loaded: Loaded,
        source: FromFile | FromRounds,
        scorer: Scorer,
        measure: Measure,
        prepared: Prepared,
        precision: Precision,
    ) -> str | None:
        """The loop. None, or "interrupted"; raises StoppedRun."""
        wrapped: Any = self.accelerator.prepare(loaded.policy) if self.accelerator.num_processes > 1 else loaded.policy
        if self.settings.trackers:
            self.accelerator.init_trackers("penchant", config={"objective": repr(self.objective)})

        def report(position: Position, planned: int, outcome: Outcome, seconds: float) -> None:
            scorer.moved = True
            self.voice.step(position, planned, source.phases, outcome, seconds)

        def evaluate(step: int) -> dict[str, float]:
            found = measure.pairs(prepared.held_pairs, "held-out pairs")
            assert found is not None
            right = accuracy(found)
            return {
                "accuracy": right.value,
                "accuracy/low": right.low,
                "accuracy/high": right.high,
                "margin": margin(found).value,
                "logp/chosen": sum(found.logp_chosen) / sum(found.length_chosen),
                "logp/rejected": sum(found.logp_rejected) / sum(found.length_rejected),
            }

        job = Job(
            wrapped,
            loaded.policy,
            loaded.domain,
            self.objective,
            source,
            self.settings,
            self.accelerator,
            precision,
            self.folder,
            evaluate=evaluate if self.settings.evaluate_every else None,
            report=report,
        )
        stopped = train(job)
        scorer.moved = True
        return stopped

    def _leave(self, loaded: Loaded, evidence: RunEvidence) -> Verdict:
        """What the run leaves: the model with its card, the report, the verdict and the evidence. A run whose numbers could
        not be trusted leaves its report and verdict, an interrupted one its checkpoint alone."""
        if not self.settings.report_samples:
            evidence = without_texts(evidence)
        verdict = judge_run(evidence)
        if evidence.stopped_by == "interrupted" or not self.accelerator.is_main_process:
            return verdict
        if evidence.stopped_by is None:
            with whole_folder(self.folder.model) as draft:
                loaded.policy.save(draft)
                if (goals := self._goals(loaded)) is not None:
                    goals.save(draft)
                (draft / "README.md").write_text(model_card(evidence, verdict), encoding="utf-8")
        write(self.folder.report, render(evidence, verdict, samples=self.settings.report_samples))
        write_json(self.folder.verdict, verdict.to_json())
        if evidence.stopped_by is None:
            write_json(self.folder.evidence, evidence.to_json())  # last: it marks the run as finished
        return verdict


def consistent(objective: Objective, settings: Settings, judge: Judge | Comparer | Asking | None) -> None:
    """Refuses settings that contradict each other before anything is loaded."""
    if settings.rounds and judge is None:
        raise Refusal(f"rounds={settings.rounds} samples responses, and somebody must judge them: give --judge.")
    if settings.rounds:
        paired_by(objective, settings, judge)
    idle = {
        "without lora": () if settings.lora else ("lora_alpha", "lora_targets"),
        "without rounds": () if settings.rounds else ("prompts_per_round", "samples", "pairing"),
    }
    for why, names in idle.items():
        for name in sorted(settings.model_fields_set.intersection(names)):
            raise Refusal(f"{name}={getattr(settings, name)!r} does nothing {why}; leave one out or give the other.")
    if settings.history and "history" not in objective.needs.anchors:
        raise Refusal(f"history={settings.history!r} is not read by {objective!r}; leave one out or take the other.")
    if len(set(settings.history)) < len(settings.history):
        raise Refusal(f"history={settings.history!r} names a model twice.")
    if settings.rounds and weighs(objective):
        raise Refusal(f"{objective!r} reads the data's weights of single tokens, which sampled responses do not have.")
    if settings.goals is not None:
        Goals(*settings.goals)  # a scale that is none is refused now
    if settings.rounds and settings.goals is not None:
        raise Refusal("goals are put over scores that the data holds; an on-policy run samples its own. Leave --goals out.")
    for tracker in settings.trackers:
        if importlib.util.find_spec(tracker) is None:
            raise Refusal(f"the tracker {tracker!r} is not installed: pip install {tracker}.")
    if settings.rounds and settings.steps is not None:
        raise Refusal("steps counts steps over a file; on-policy runs are counted in rounds and epochs. Leave --steps out.")
    if objective.needs.mismatched and settings.batch < 2:
        raise Refusal(
            f"batch={settings.batch}: {objective!r} estimates a KL from other rows' responses in the step, so it needs at "
            "least 2 rows; KTO's authors use 32."
        )


def source_name(data: Any) -> str:
    """Where rows came from, as it is written."""
    return str(data) if isinstance(data, str | Path) else IN_PYTHON

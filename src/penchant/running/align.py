"""One run from start to end: claim the folder, load, prepare, measure, train, measure again, judge, save, report. Each stage
is a few lines; the work is done in the rooms below."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from penchant.engine import checkpoint
from penchant.engine.budget import returning
from penchant.engine.checkpoint import Position
from penchant.engine.folder import RunFolder
from penchant.engine.loop import Job, train
from penchant.engine.precision import Precision
from penchant.engine.ranks import Ranks, first, told
from penchant.engine.rounds import FromRounds
from penchant.engine.settings import Settings
from penchant.engine.sources import Anchors, FromFile, Scorer
from penchant.engine.spread import Spread
from penchant.engine.step import Outcome, reads_reference
from penchant.errors import Refusal, StoppedRun
from penchant.evaluation.evidence import IN_PYTHON, RunEvidence, without_texts
from penchant.evaluation.verdict import Verdict, judge_run
from penchant.files import read_json, whole_folder, write, write_json
from penchant.objectives.base import Objective, rewards
from penchant.objectives.scored import Pairs
from penchant.report.card import model_card
from penchant.report.page import render
from penchant.rewards.account import failures, spent
from penchant.rewards.base import Comparer, Judge
from penchant.rewards.naming import Named
from penchant.running.consistent import consistent
from penchant.running.measure import Measure
from penchant.running.subject import Prepared, Ready
from penchant.running.subjects import subject_of
from penchant.running.voice import Voice
from penchant.words import brief

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
        judge: Named | None,
        unseen: Any,
        settings: Settings,
        voice: Voice,
        answers: Path | None = None,
        guard: Named | None = None,
    ) -> None:
        """answers: a folder in which runs that begin alike, in one process each, keep what their start answers. guard: judges
        before and after besides the judge, and nothing is chosen by it."""
        self.model, self.data, self.objective, self.judge, self.unseen = model, data, objective, judge, unseen
        self.guard = guard
        self.settings, self.voice, self.folder = settings, voice, RunFolder(output)
        self.started, self.earlier = time.perf_counter(), 0.0
        self._judging: Judge | Comparer | None = None
        consistent(objective, settings, judge)
        torch.set_num_threads(settings.thread_count)
        if settings.max_memory is not None:
            returning()
        self.spread = Spread(settings.timeout, list(settings.trackers), str(output))
        self.accelerator = self.spread.accelerator
        self.subject = subject_of(model, objective, settings, judge, self.spread, answers)
        self.ranks = Ranks(self.accelerator, output, settings.timeout)

    def run(self) -> tuple[RunEvidence, Verdict]:
        """Everything, in order. A run that was finished already is only judged again."""
        try:
            with self.ranks.minded():
                return self._run()
        except torch.OutOfMemoryError as error:
            raise Refusal(
                f"the device has no memory left outside a step ({brief(str(error), 200)}). Give --max-memory, or lower "
                "--max-length."
            ) from None
        finally:
            self.accelerator.end_training()  # closes the trackers, and what joins the processes
            self.folder.release()

    def _run(self) -> tuple[RunEvidence, Verdict]:
        self.voice.say(f"loading {self.model}")
        self.ranks.phase("loading")
        loaded = self.subject.load()
        self.ranks.phase("reading the data")
        own = self.subject.identity(loaded)
        prepared = self.subject.prepare(loaded, self.data, self.unseen)
        for note in prepared.notes:
            self.voice.say(note)
        self.voice.account(prepared.about)

        if self.settings.evaluate_every and (prepared.held_pairs is None or not rewards(self.objective)):
            raise Refusal(
                f"evaluate_every={self.settings.evaluate_every} measures {self.objective!r} on held-out pairs, but "
                f"{'none are held out' if rewards(self.objective) else 'it has no reward'}. Leave --evaluate-every out."
            )
        self._claim(loaded, prepared, own)
        if told(self.accelerator, self.folder.finished):
            self.voice.say(f"{self.folder.path} holds this run, finished: nothing is left to do.")
            evidence = RunEvidence.from_json(read_json(self.folder.evidence))
            return evidence, judge_run(evidence)
        asked = self._asked()
        precision, chosen = self._choices(loaded, prepared)
        self.settings = self.settings.model_copy(update={"tokens": chosen["tokens"]})
        if reads_reference(self.objective, loaded.domain) and not loaded.policy.knows_reference:
            loaded.policy.hold(self.subject.load().policy)

        scorer = self._scorer(loaded, precision)
        scorer.moved = checkpoint.latest(self.folder.checkpoints) is not None
        cache = self.subject.cache(loaded, precision, self.accelerator.device)
        history = self.subject.history(chosen, loaded, precision, self.accelerator.device)
        anchors = Anchors(scorer, self.objective, self.settings, self.accelerator, cache, self._progress, history)
        judge = self._judging = self.subject.judge(scorer, self.judge)
        guard = self.subject.judge(scorer, self.guard)
        if isinstance(guard, Comparer):
            raise Refusal(f"guard={guard.name!r} compares responses; a guard gives each a score, before and after alike.")
        measure = self.subject.measure(anchors, judge, guard, loaded, prepared)
        before = self._before(measure, prepared)

        if prepared.train is not None:
            source = FromFile(prepared.train, anchors)
        else:
            assert judge is not None
            drawing = self.subject.drawing(scorer, self.folder.path)
            source = FromRounds(prepared.prompts, judge, anchors, self.settings, self.folder, drawing)
        begun = replace(before, settings=asked, choices=chosen, data=prepared.about, factors=prepared.held_factors)
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
                judging=spent(judge),
                seconds=self._seconds(),
            )
        for said in failures(judge) if judge is not None else ():
            self.voice.say(said)
        return evidence, self._leave(loaded, evidence)

    def _so_far(self, evidence: RunEvidence, stopped: str | None) -> RunEvidence:
        so_far = {"history": self.folder.history(), "judging": spent(self._judging), "seconds": self._seconds()}
        return replace(evidence, **so_far, stopped_by=stopped)

    def _seconds(self) -> float:
        """Since this process began, with the steps that were taken before it."""
        return self.earlier + time.perf_counter() - self.started

    def _progress(self, title: str, done: int, total: int) -> None:
        self.ranks.phase(title)
        self.voice.progress(title, done, total)

    # --- stages

    def _asked(self) -> dict[str, Any]:
        """What was asked, as it is written."""
        return {
            "model": self.model,
            "data": source_name(self.data),
            "unseen": source_name(self.unseen) if self.unseen is not None else None,
            "objective": repr(self.objective),
            "judge": self.judge.name if self.judge is not None else None,
            "guard": self.guard.name if self.guard is not None else None,
            "output": str(self.folder.path),
            **self.settings.model_dump(mode="json"),
        }

    def _claim(self, loaded: Ready, prepared: Prepared, own: dict[str, Any]) -> None:
        """Takes the folder, or goes on with the run it holds."""
        self.identity = {
            "model": loaded.source["fingerprint"],
            "data": prepared.about["fingerprint"],
            "unseen": prepared.about["unseen"],
            "objective": repr(self.objective),
            "judge": self.judge.name if self.judge is not None else None,
            "settings": self.settings.identity(),
            **({} if self.guard is None else {"guard": self.guard.name}),
            **own,
        }

        def claim() -> None:
            resumed = self.folder.claim(self.identity, self.settings.overwrite)
            if resumed and not self.folder.finished:
                self.voice.say(f"{self.folder.path} holds this run, unfinished: going on from its last checkpoint.")
                for damage in checkpoint.settle(self.folder.checkpoints):
                    self.voice.say(damage)
                reached = checkpoint.reached(self.folder.checkpoints)
                steps = (line for line in self.folder.history() if line["kind"] == "step" and line["step"] <= reached)
                self.earlier = sum(line["seconds"] for line in steps)

        first(self.accelerator, claim)

    def _choices(self, loaded: Ready, prepared: Prepared) -> tuple[Precision, dict[str, Any]]:
        """How this run computes: chosen at the first start, the same ever after and everywhere."""
        self.ranks.phase("choosing how to compute")
        if told(self.accelerator, not self.folder.choices):
            made = self.subject.choose(loaded, prepared, self.spread)
            first(self.accelerator, lambda: self.folder.record(self.identity, made))
        else:
            reached = checkpoint.reached(self.folder.checkpoints)
            still, changed = self.subject.still(self.folder.choices, loaded, self.spread, reached)
            if changed and self.accelerator.is_main_process:
                self.voice.say(f"not all is as it was, and last digits may differ from here on: {changed}")
                self.folder.record(self.identity, still)
        self.accelerator.wait_for_everyone()
        chosen = self.folder.choices
        precision, said = self.subject.follow(chosen, loaded)
        self.voice.say(said)
        return precision, chosen

    def _scorer(self, loaded: Ready, precision: Precision) -> Scorer:
        return Scorer(
            loaded.domain,
            loaded.policy,
            precision,
            self.accelerator.device,
            self.settings.tokens,
            self.subject.reference(loaded),
            lambda: self.subject.load().policy,
            self.objective.needs.head,
        )

    def _before(self, measure: Measure, prepared: Prepared) -> RunEvidence:
        """The start model's numbers, measured once and kept for a resumed run."""
        if told(self.accelerator, self.folder.before.exists()):
            return RunEvidence.from_json(read_json(self.folder.before))
        if measure.anchors.scorer.moved:
            raise Refusal(f"{self.folder.path} has checkpoints but no before.json; start it anew with --overwrite.")
        pairs = measure.pairs(prepared.held_pairs, "held-out pairs")
        lists = measure.lists(prepared.held_lists, "held-out lists")
        samples = measure.samples(prepared.held_prompts)
        there = RunEvidence({}, {}, {}, pairs_before=pairs, lists_before=lists, samples_before=samples)
        kept = there if self.settings.report_samples else without_texts(there)
        first(self.accelerator, lambda: write_json(self.folder.before, kept.to_json()))
        return there

    def _train(
        self,
        loaded: Ready,
        source: FromFile | FromRounds,
        scorer: Scorer,
        measure: Measure,
        prepared: Prepared,
        precision: Precision,
    ) -> str | None:
        """The loop. None, or "interrupted"; raises StoppedRun."""
        wrapped = self.spread.wrap(loaded.policy)
        if self.settings.trackers:
            self.accelerator.init_trackers("penchant", config={"objective": repr(self.objective)})

        def report(position: Position, planned: int, outcome: Outcome, seconds: float) -> None:
            scorer.moved = True
            self.voice.step(position, planned, source.phases, outcome, seconds)

        def evaluate(step: int) -> dict[str, float]:
            assert prepared.held_pairs is not None
            return measure.line(prepared.held_pairs, "held-out pairs") | measure.variety(prepared.held_prompts)

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
            say=self.voice.say,
            phase=self.ranks.phase,
        )
        stopped = train(job)
        scorer.moved = True
        return stopped

    def _leave(self, loaded: Ready, evidence: RunEvidence) -> Verdict:
        """What the run leaves: the model with its card, the report, the verdict and the evidence. A run whose numbers could
        not be trusted leaves its report and verdict, an interrupted one its checkpoint alone."""
        if not self.settings.report_samples:
            evidence = without_texts(evidence)
        verdict = judge_run(evidence)
        if evidence.stopped_by != "interrupted":
            self.ranks.phase("saving the model")
            tensors = loaded.policy.tensors(keep=self.accelerator.is_main_process)
            first(self.accelerator, lambda: self._write(loaded, evidence, verdict, tensors))
        return verdict

    def _write(self, loaded: Ready, evidence: RunEvidence, verdict: Verdict, tensors: Mapping[str, Tensor] | None) -> None:
        if evidence.stopped_by is None:
            with whole_folder(self.folder.model) as draft:
                loaded.policy.save(draft, tensors)
                self.subject.leave(loaded, draft)
                (draft / "README.md").write_text(model_card(evidence, verdict), encoding="utf-8")
        write(self.folder.report, render(evidence, verdict, samples=self.settings.report_samples))
        write_json(self.folder.verdict, verdict.to_json())
        if evidence.stopped_by is None:
            write_json(self.folder.evidence, evidence.to_json())  # last: it marks the run as finished


def source_name(data: Any) -> str:
    """Where rows came from, as it is written."""
    return str(data) if isinstance(data, str | Path) else IN_PYTHON

"""A comparison from start to end: what is trained is settled and written down, every run is made in a process and a folder of
its own, and what they left is held against each other. The runs are ordinary ones; the statistics are done below."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from penchant.engine.folder import RunFolder, differences
from penchant.engine.settings import Settings
from penchant.errors import Refusal
from penchant.evaluation.areas import areas
from penchant.evaluation.compared import Cell, Compared, Cost, Failure
from penchant.evaluation.evidence import IN_PYTHON, RunEvidence
from penchant.evaluation.rules import BY
from penchant.evaluation.verdict import Verdict
from penchant.feedback import Source, open_source, write_rows
from penchant.files import LOCKS, cache_folder, fingerprint, read_json, remove, write, write_json
from penchant.objectives.base import Objective
from penchant.report.compare import render
from penchant.rewards.naming import load_judge
from penchant.running.consistent import consistent
from penchant.running.crew import Crew, Ended, Job, cores, was_interrupted
from penchant.running.grid import Grid, Point, points
from penchant.running.voice import Voice
from penchant.words import brief

ROWS = {"data": "rows.jsonl", "unseen": "unseen.jsonl"}
"""Where rows given in Python are put, for the processes to read."""

PATIENCE = 300.0
"""Seconds that are waited for runs of a comparison that was killed; one that goes on longer is somebody else's, and is refused."""


@dataclass(frozen=True)
class Plan:
    """What is asked of a comparison."""

    model: str
    data: Any
    objectives: Sequence[Objective]
    output: Path
    judge: str | None
    unseen: Any
    seeds: int
    grid: Grid
    at_once: int | None
    by: str | None
    models: bool
    """Whether finished runs keep their weights."""
    settings: Settings


class Comparison:
    """A comparison under way."""

    def __init__(self, plan: Plan, voice: Voice) -> None:
        self.plan, self.voice, self.output = plan, voice, plan.output
        if not plan.objectives:
            raise Refusal("there is nothing to compare; give --objective at least twice, or one with a --grid.")
        if plan.seeds < 1 or (plan.at_once is not None and plan.at_once < 1):
            raise Refusal(f"seeds = {plan.seeds}, at_once = {plan.at_once}: both must be whole numbers of at least 1.")
        if plan.by is not None and plan.by not in BY:
            raise Refusal(f"by = {brief(plan.by)}: the winner can be named by {', '.join(BY)}.")
        for name in ("overwrite", "trackers", "split_seed"):
            if getattr(plan.settings, name):
                raise Refusal(
                    f"{name}: a comparison has runs of its own and takes none; give another output folder instead."
                )
        self._lock = FileLock(cache_folder() / LOCKS / f"{fingerprint(str(self.output.resolve()), 'compare')}.lock")

    def run(self) -> Compared:
        """Trains what is missing, and reports. Raises KeyboardInterrupt when interrupted; the same call then goes on."""
        Path(self._lock.lock_file).parent.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise Refusal(f"another process is at work on the comparison in {str(self.output)!r}; wait for it.") from None
        try:
            return self._run()
        finally:
            self._lock.release()

    def _run(self) -> Compared:
        plan = self.plan
        source = open_source(plan.data, bad_rows=plan.settings.bad_rows)
        unseen = None if plan.unseen is None else open_source(plan.unseen, bad_rows=plan.settings.bad_rows)
        self.points = points(plan.objectives, plan.grid, plan.settings, source.kind)
        judge = None if plan.judge is None else load_judge(plan.judge)
        for objective in plan.objectives:
            consistent(objective, plan.settings, judge)
        if plan.by in ("score", "wins", "wins-chosen") and judge is None:
            raise Refusal(f"by = {plan.by!r} needs somebody who judges: give --judge.")
        self._claim(source, unseen)
        cells = [(point, seed) for point in self.points for seed in self.seeds]
        todo = [cell for cell in cells if not self._folder(*cell).finished]
        self.voice.say(
            f"{len(self.points)} {'objective' if len(self.points) == 1 else 'objectives and grid points'} × {plan.seeds} "
            f"seeds = {len(cells)} runs, {len(cells) - len(todo)} of them finished; at most {self.most} at once, "
            f"{self.threads} threads each"
        )
        self.failed: dict[Path, str] = {}
        self._train(cells, todo)
        return self._report(cells)

    @property
    def seeds(self) -> range:
        return range(self.plan.settings.seed, self.plan.settings.seed + self.plan.seeds)

    def _folder(self, point: Point, seed: int) -> RunFolder:
        return RunFolder(self.output / point.folder / f"seed-{seed}")

    # --- what it is

    def _claim(self, source: Source, unseen: Source | None) -> None:
        """Writes down what all runs have in common, or goes on with what is written. More objectives, points and seeds may be
        asked for later; everything else must stay, or the runs could not be compared."""
        plan, kept = self.plan, self.output / "asked.json"
        common = {
            "model": plan.model,
            "data": source.fingerprint,
            "unseen": None if unseen is None else unseen.fingerprint,
            "judge": plan.judge,
            "settings": plan.settings.identity(),
        }
        there = read_json(kept) if kept.exists() else None
        if there is None and self.output.is_dir() and any(self.output.iterdir()):
            raise Refusal(f"output {str(self.output)!r} is not empty and holds no comparison; give a new folder.")
        if there is not None and there["common"] != common:
            raise Refusal(
                f"output {str(self.output)!r} holds another comparison ({differences(there['common'], common)}). Give another "
                "folder."
            )
        self._share(there)
        self.places = {"data": plan.data, "unseen": plan.unseen}
        for name, rows in (("data", source), ("unseen", unseen)):
            if rows is not None and not isinstance(self.places[name], str | Path):
                self.places[name] = self.output / ROWS[name]
                write_rows(self.places[name], rows)
        write_json(kept, {"common": common, "threads": self.threads, "asked": self.asked()})

    def _share(self, there: Any) -> None:
        """How many runs at once, of how many threads: kept, since the last digits of a run may hang on its threads."""
        import torch

        plan = self.plan
        self.devices = _devices(torch.cuda.device_count()) if torch.cuda.is_available() else []
        wanted = len(self.devices) or max(1, cores() // (plan.settings.threads or 1))
        self.most = min(plan.at_once or wanted, len(self.points) * plan.seeds)
        self.threads = plan.settings.threads or (there["threads"] if there else max(1, cores() // self.most))

    def asked(self) -> dict[str, Any]:
        """What was asked, as it is written."""
        plan = self.plan
        name = lambda data: str(data) if isinstance(data, str | Path) else IN_PYTHON  # noqa: E731
        return {
            "model": plan.model,
            "data": name(plan.data),
            "unseen": None if plan.unseen is None else name(plan.unseen),
            "objectives": [repr(objective) for objective in plan.objectives],
            "grid": {axis: list(values) for axis, values in plan.grid.items()},
            "seeds": plan.seeds,
            "judge": plan.judge,
            "by": plan.by,
            "at_once": plan.at_once,
            "models": plan.models,
            "output": str(self.output),
            **plan.settings.model_dump(mode="json"),
        }

    # --- training

    def _train(self, cells: list[tuple[Point, int]], todo: list[tuple[Point, int]]) -> None:
        known = {self._folder(*cell).path: cell for cell in todo}
        done = len(cells) - len(todo)

        def ended(job: Job, told: Ended) -> None:
            nonlocal done
            folder = RunFolder(job.task["output"])
            self._cost(folder.path, told)
            point, seed = known[folder.path]
            if folder.finished:
                done += 1
                self._tidy(folder)
                said = f"finished in {told.wall:,.0f} s"
            elif was_interrupted(told):
                said = "interrupted"
                self.failed[folder.path] = said
            else:
                self.failed[folder.path] = told.reason(job.log)
                said = f"failed: {self.failed[folder.path]}"
            self.voice.say(f"{point.name}, seed {seed}: {said}")
            self.voice.progress("runs", done, len(cells))

        self._outlive([self._folder(*cell) for cell in todo])
        self.voice.progress("runs", done, len(cells))
        Crew(self.most, self.plan.at_once, self.threads, self.devices).run([self._job(*cell) for cell in todo], ended)

    def _outlive(self, folders: list[RunFolder]) -> None:
        """Waits for the runs of a comparison that was killed: they end by themselves, as soon as they have saved a checkpoint."""
        if busy := [folder for folder in folders if not folder.idle()]:
            self.voice.say(f"{len(busy)} runs are still saving what they have; waiting for them")
        until = time.monotonic() + PATIENCE
        for folder in busy:
            folder.idle(max(0.0, until - time.monotonic()))

    def _job(self, point: Point, seed: int) -> Job:
        plan, folder = self.plan, self._folder(point, seed)
        asked = plan.settings.model_dump(mode="json", exclude_unset=True) | point.settings
        split = plan.settings.seed if plan.unseen is None else None
        asked |= {"seed": seed, "split_seed": split, "threads": self.threads}
        # texts are kept beside the runs only where a report may show them
        answers = str(self.output / "start") if plan.settings.report_samples else None
        task = {
            "model": plan.model,
            "data": str(self.places["data"]),
            "unseen": None if self.places["unseen"] is None else str(self.places["unseen"]),
            "objective": point.objective,
            "judge": plan.judge,
            "output": str(folder.path),
            "answers": answers,
            "settings": asked,
        }
        return Job(point.name, task, folder.path.parent / f"seed-{seed}.log", folder.metrics)

    def _cost(self, folder: Path, told: Ended) -> None:
        """Adds an attempt to what a run has cost."""
        kept = folder.parent / f"{folder.name}.cost.json"
        cost = read_json(kept) if kept.exists() else {"cpu": 0.0, "wall": 0.0, "memory": 0.0}
        total = {"cpu": cost["cpu"] + told.cpu, "wall": cost["wall"] + told.wall}
        write_json(kept, {**total, "memory": max(cost["memory"], told.memory)})

    def _tidy(self, folder: RunFolder) -> None:
        """A finished run does not go on, so it needs no checkpoints; they would fill the disk many times over."""
        remove(folder.checkpoints)
        if not self.plan.models:
            remove(folder.model)

    # --- reporting

    def _report(self, cells: list[tuple[Point, int]]) -> Compared:
        finished, failures = [], []
        for point, seed in cells:
            folder = self._folder(point, seed)
            where = str(folder.path.relative_to(self.output))
            if folder.finished:
                finished.append(self._cell(point, seed, folder, where))
            else:
                reason = self.failed.get(folder.path, "it was not run")
                failures.append(Failure(point.name, seed, where, reason))
        if not finished:
            raise Refusal(f"none of the {len(cells)} runs finished; the first said: {failures[0].reason}")
        found = Compared(tuple(finished), tuple(failures), self.plan.by, self.asked())
        won = areas(found)
        write_json(self.output / "compare.json", {**found.to_json(), "areas": won and won.to_json()})
        write(self.output / "compare.html", render(found, samples=self.plan.settings.report_samples))
        return found

    def _cell(self, point: Point, seed: int, folder: RunFolder, where: str) -> Cell:
        evidence = RunEvidence.from_json(read_json(folder.evidence))
        verdict = Verdict.from_json(read_json(folder.verdict))
        kept = folder.path.parent / f"{folder.path.name}.cost.json"
        # a run that ended as the comparison itself was killed has told its own time alone
        cost = Cost(**read_json(kept)) if kept.exists() else Cost(evidence.seconds, evidence.seconds)
        return Cell(point.contender, point.name, point.place, seed, where, evidence, verdict.word, cost)


def _devices(count: int) -> list[str]:
    """The GPUs that runs are spread over, as the system numbers them."""
    said = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return said or [str(k) for k in range(count)]

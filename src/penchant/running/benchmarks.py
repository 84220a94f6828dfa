"""A model on standard benchmarks, through lm-eval's own interface: its tasks, its metrics, its model class around a model loaded
here. What is added are intervals from its rows, and a reference on the same rows; no benchmark is written here."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from penchant.domains.text.models import load
from penchant.engine.precision import choose
from penchant.engine.settings import Settings
from penchant.errors import Refusal, nearest
from penchant.evaluation.statistics import Difference, Estimate, difference, mean, share
from penchant.running.voice import Voice
from penchant.words import plain

BATCH = 8
"""Requests that the model reads together."""
_NORMAL = 1.959964  # 97.5 % of a normal law lie below


@dataclass(frozen=True)
class Figure:
    """One metric of one task."""

    task: str
    metric: str
    """As lm-eval names it; with its filter behind a comma where it has one."""
    shots: int | None
    """Worked examples before each question; None of a group of tasks."""
    higher: bool | None
    """Whether more is better, where lm-eval says so."""
    value: Estimate
    """lm-eval's number. Its interval: Wilson's for shares, drawn by row for other means, ±1.96 of lm-eval's standard error for
    what is no mean of rows, such as a group's; not known where lm-eval gives none."""
    reference: Estimate | None = None
    change: Difference | None = None
    """Model − reference, paired by row; None without a reference, or where the metric is no mean of rows."""

    def to_json(self) -> dict[str, Any]:
        said = {"task": self.task, "metric": self.metric, "shots": self.shots, "higher_is_better": self.higher}
        numbers = {"value": self.value, "reference": self.reference, "change": self.change}
        return {**said, **{name: None if x is None else x.to_json() for name, x in numbers.items()}}


def benchmarks(
    model: str,
    tasks: Sequence[str],
    reference: str | None,
    settings: Settings,
    voice: Voice,
    *,
    shots: int | None = None,
    rows: int | None = None,
) -> list[Figure]:
    """model, reference: what `load` takes, read at full length and without a chat template, as lm-eval does by default. tasks:
    lm-eval's names, or paths of task files; their data is downloaded unless it lies here, and Python that stands beside a task
    file of yours is run by it. shots: in place of each task's own. rows: of each task at most, to try something out.
    Raises Refusal where lm-eval is not installed, a task is not known or its data cannot be had."""
    torch.set_num_threads(settings.thread_count)
    with _quietly():
        asked: dict[str, Any] = {"tasks": list(tasks), "task_manager": _manager(tasks), "num_fewshot": shots, "limit": rows}
        after = _measured(model, asked, settings, voice)
        before = None if reference is None else _measured(reference, asked, settings, voice)
    return figures(after, before)


def figures(after: dict[str, Any], before: dict[str, Any] | None = None) -> list[Figure]:
    """What `lm_eval.simple_evaluate` returned, of the model and of its reference, as rows of numbers."""
    out = []
    for task, found in after["results"].items():
        for key in [k for k in found if "," in k and "_stderr," not in k]:
            metric, _, kind = key.partition(",")
            value, per_row = _estimate(after, task, key)
            old = change = None
            if before is not None:
                old, then = _estimate(before, task, key)
                if per_row and len(per_row) == len(then):
                    change = difference(then, per_row)
            name = metric if kind == "none" else key
            better = after["higher_is_better"].get(task, {}).get(metric)
            out.append(Figure(task, name, after["n-shot"].get(task), better, value, old, change))
    return out


def _estimate(found: dict[str, Any], task: str, key: str) -> tuple[Estimate, list[float]]:
    """lm-eval's number with an interval, and the values by row of which it is the mean, if it is."""
    metric, _, kind = key.partition(",")
    told = found["results"][task]
    value = float(told[key])
    rows = [row for row in found.get("samples", {}).get(task, []) if row["filter"] == kind and metric in row]
    raw = [row[metric] for row in sorted(rows, key=lambda row: row["doc_id"])]
    if raw and all(isinstance(x, int | float) for x in raw):
        values = [float(x) for x in raw]
        if math.isclose(math.fsum(values) / len(values), value, abs_tol=1e-9):
            return (share if set(values) <= {0.0, 1.0} else mean)(values), values
    error = told.get(f"{metric}_stderr,{kind}")
    half = _NORMAL * error if isinstance(error, float) else math.inf
    return Estimate(value, value - half, value + half, int(told.get("sample_len", len(rows)))), []


def _manager(names: Sequence[str]) -> Any:
    """What knows lm-eval's tasks, after these were loaded once, so that their data is known to be there."""
    try:
        from lm_eval.tasks import TaskManager
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "lm_eval":
            raise
        raise Refusal(
            "benchmarks are run by lm-eval, which is not installed: pip install 'penchant[benchmarks]'."
        ) from None
    ours = [name for name in names if Path(name).suffix in (".yaml", ".yml")]
    missing = next((name for name in ours if not Path(name).is_file()), None)
    if missing is not None:
        raise Refusal(f"there is no task file {plain(missing)!r}.")
    manager = TaskManager(include_defaults=len(ours) < len(names))  # to index its thousands of tasks takes seconds
    for name in names:
        if name not in ours and name not in manager.all_tasks:
            raise Refusal(f"lm-eval has no task {plain(name, 60)!r}; {nearest(name, manager.all_tasks)}")
    try:
        manager.load(list(names))
    except Exception as error:  # whatever a task, its data set's library or the network raises: none of it is ours
        said = " ".join(plain(error).split())
        raise Refusal(
            f"the tasks {plain(', '.join(names), 200)} cannot be loaded ({type(error).__name__}: {said[:400]}). Tasks of lm-eval "
            "download their data from the hub the first time."
        ) from error
    return manager


def _measured(name: str, asked: dict[str, Any], settings: Settings, voice: Voice) -> dict[str, Any]:
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM

    voice.say(f"loading {name}")
    loaded = load(name, allow_bin=settings.allow_bin)
    device = Accelerator().device
    policy = loaded.policy.to(device).requires_grad_(False)
    precision = choose(settings.precision, device)
    precision.apply()
    wrap: Any = HFLM  # its decorators hide from type checkers what it and the next take
    evaluate: Any = simple_evaluate
    wrapped = wrap(
        pretrained=policy.plain_model,
        tokenizer=policy.tokenizer,
        backend="causal",
        batch_size=BATCH,
        trust_remote_code=False,
    )
    with precision.forward(device):
        found = evaluate(
            wrapped,
            **asked,
            bootstrap_iters=1000,
            random_seed=settings.seed,
            numpy_random_seed=settings.seed,
            torch_random_seed=settings.seed,
            fewshot_random_seed=settings.seed,
        )
    assert found is not None, "one process, which is the first"
    return dict(found)


@contextmanager
def _quietly() -> Iterator[None]:
    """lm-eval warns of its own defaults; what is wrong is raised."""
    log = logging.getLogger("lm_eval")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)

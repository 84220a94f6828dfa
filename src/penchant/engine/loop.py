"""The one loop: phase after phase, step after step, until the plan is done, a person interrupts it or a number cannot be
trusted. It names no method and no domain; what a phase's rows are is the source's business."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from safetensors.torch import save_file
from torch import Tensor, nn

from penchant.domains.base import Domain
from penchant.domains.sharding import collected
from penchant.engine import checkpoint
from penchant.engine.batching import steps as plan_steps
from penchant.engine.checkpoint import Position
from penchant.engine.folder import RunFolder
from penchant.engine.memory import followed, whole
from penchant.engine.metrics import reduced
from penchant.engine.precision import Precision
from penchant.engine.ranks import first, told
from penchant.engine.settings import Settings
from penchant.engine.step import BrokenStep, Material, Outcome, Step
from penchant.errors import Refusal, StoppedRun
from penchant.files import whole_folder, write_json
from penchant.objectives.base import Objective, zeros


class Source(Protocol):
    """Where a run's rows come from: a file (one phase) or rounds of sampling (a phase each)."""

    phases: int
    annotators: tuple[str, ...]
    """Names behind the integers of the annotator column, the same in every phase."""

    def material(self, phase: int, step: int, begun: bool = False) -> Material:
        """The phase's rows with their anchors. Asked again after a kill, it gives the same rows and the same numbers; `begun`
        says that the policy has left the phase's start, so that what was scored there can only be read."""
        ...


@dataclass
class Job:
    """Everything the loop needs, made by the caller."""

    policy: nn.Module
    """The module that is trained, as wrapped for its devices."""
    bare: Any
    """The same without wrapping: named_trainable, state, load_state."""
    domain: Domain
    objective: Objective
    source: Source
    settings: Settings
    accelerator: Accelerator
    precision: Precision
    folder: RunFolder
    anchored: bool = True
    """Whether the reference is the policy as it starts, so that the step-zero check applies."""
    evaluate: Callable[[int], Mapping[str, float]] | None = None
    """Metrics on held-out rows; "margin", where given, decides which checkpoint is the best."""
    report: Callable[[Position, int, Outcome, float], None] = field(
        default=lambda position, planned, outcome, seconds: None
    )
    """Called after every step with the steps planned in this phase and the seconds it took, for progress bars."""
    say: Callable[[str], None] = field(default=lambda line: None)
    """Called with a line for the person who waits."""
    phase: Callable[[str], None] = field(default=lambda title: None)
    """Told what is about to be done, for whoever waits for this process."""


def train(job: Job) -> str | None:
    """Runs the plan to its end, resuming from the newest checkpoint. None, or "interrupted" if a person stopped it; then a
    checkpoint was saved. Raises StoppedRun where a number cannot be trusted."""
    settings, accelerator = job.settings, job.accelerator
    names = dict(job.bare.named_trainable())
    optimiser = torch.optim.AdamW(names.values(), lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True)
    step = Step(
        job.policy,
        job.domain,
        job.objective,
        optimiser,
        accelerator,
        job.precision,
        tokens=settings.tokens,
        shrunk=lambda tokens, said: _shrunk(job, position, tokens, said),
        clip=settings.clip,
    )
    levels = {"annotator": job.source.annotators}
    position, best = Position(), {}
    memory = zeros(job.objective, {column: len(names) for column, names in levels.items()})
    found = _newest(job)
    if found is not None:
        position, memory, best = checkpoint.restore(found, job.bare, optimiser, names)
    memory = {name: x.to(accelerator.device) for name, x in memory.items()}
    if accelerator.is_main_process:
        job.folder.rewind(position.step)
    saved = position.step if found is not None else -1
    accelerator.wait_for_everyone()
    step.budget = min([step.budget, *(line["tokens"] for line in job.folder.history() if line["kind"] == "memory")])

    def save() -> None:
        nonlocal saved
        if position.step == saved:
            return  # to write it once more would put away the whole one first
        job.phase(f"saving step {position.step}")
        writes = accelerator.is_main_process
        weights = collected(job.bare.state(), writes)
        moments = collected(checkpoint.moments(optimiser, names), writes)

        def write() -> None:
            job.folder.flush()
            checkpoint.save(job.folder.checkpoints, position, weights, moments, memory, best)
            checkpoint.prune(job.folder.checkpoints, settings.keep, best.get("step"))

        first(accelerator, write)
        saved = position.step

    def evaluate() -> None:
        nonlocal best
        if job.evaluate is None:
            return
        job.phase(f"evaluating after step {position.step}")
        line = {"kind": "eval", "step": position.step, **job.evaluate(position.step)}
        _note(job, line)
        if told(accelerator, line.get("margin", -math.inf) > best.get("margin", -math.inf)):
            best = {"step": position.step, "margin": line["margin"]}
            save()

    with _Interrupt(accelerator) as interrupt:
        try:
            for phase in range(position.phase, job.source.phases):
                job.phase(f"rows of round {phase + 1}" if settings.rounds else "rows")
                material = job.source.material(phase, position.step, begun=position.place > 0)
                plan = plan_steps(
                    len(material.rows), settings.batch, settings.epochs, settings.seed + phase, settings.steps
                )
                starts = job.anchored and position == Position() and bool(plan)
                if starts and "ref" in job.objective.needs.anchors:
                    _check_start(job, step, material, plan[0])
                for place in range(position.place, len(plan)):
                    started = time.perf_counter()
                    job.phase(f"step {position.step + 1}")
                    rate = settings.learning_rate * schedule(settings, phase, place, len(plan), job.source.phases)
                    for group in optimiser.param_groups:
                        group["lr"] = rate
                    with interrupt.deferred():
                        outcome = _taken(job, step, material, plan[place], memory, noise(settings.seed, position.step))
                        memory = outcome.state
                        optimiser.zero_grad(set_to_none=True)  # what follows a step needs the room
                        position = Position(position.step + 1, phase, place + 1)
                        seconds = time.perf_counter() - started
                        state = followed(job.objective.shown(memory), levels)
                        _note(job, _line(position, settings, outcome, rate, seconds, len(plan)) | state)
                    job.report(position, len(plan), outcome, seconds)
                    with interrupt.deferred():  # what is measured after a step is in the checkpoint after that step
                        if settings.evaluate_every and position.step % settings.evaluate_every == 0:
                            evaluate()
                        if settings.save_every and position.step % settings.save_every == 0:
                            save()
                    interrupt.agree()
                position = Position(position.step, phase + 1, 0)
        except KeyboardInterrupt:
            if not interrupt.torn:
                with interrupt.deferred():
                    save()
            return "interrupted"
        save()
        if memory:
            _note(job, {"kind": "state", "step": position.step, **whole(job.objective.shown(memory), levels)})
    return None


def schedule(settings: Settings, phase: int, place: int, planned: int, phases: int) -> float:
    """Share of the peak learning rate: up over the warm-up, then down to 0 just after the last step."""
    whole = phases * planned
    done = phase * planned + place
    warm = settings.warmup * whole
    up = min((done + 1) / warm, 1.0) if warm > 0 else 1.0
    left = (whole - done) / max(whole - warm, 1e-12)
    down = {"constant": 1.0, "linear": min(left, 1.0), "cosine": 0.5 - 0.5 * math.cos(math.pi * min(left, 1.0))}
    return min(up, down[settings.schedule])


def _newest(job: Job) -> Path | None:
    """The newest checkpoint, which must be the same for every process: each reads its own part of it."""
    found = checkpoint.latest(job.folder.checkpoints)
    step = -1 if found is None else int(found.name.rpartition("-")[2])
    theirs = told(job.accelerator, step)
    apart = reduced(job.accelerator, torch.tensor(float(theirs != step), device=job.accelerator.device))
    if float(apart):
        raise Refusal(
            f"the processes of this run see different checkpoints in {job.folder.checkpoints}: put the output on a disk that "
            "all machines share."
        )
    return found


def _check_start(job: Job, step: Step, material: Material, rows: Sequence[int]) -> None:
    """Before the first update the policy is its reference: every log-ratio is 0 but for rounding, or the run stops."""
    job.phase("comparing policy and reference before the first step")
    drift = step.drift(material, rows)
    _note(job, {"kind": "start", "step": 0, "drift": drift, "tolerance": job.precision.tolerance})
    if told(job.accelerator, not drift <= job.precision.tolerance):
        raise StoppedRun(
            f"before the first update the policy and its reference differ by up to {drift:.3g} nats on a token; in "
            f"{job.precision.name} rounding explains {job.precision.tolerance:g}. The reference is not the model the run "
            "starts from: clear its cache with `penchant cache clear`, or check the adapter you continue."
        )


def noise(seed: int, step: int) -> int:
    """The seed of a step's noise: its own in every step of a run, and the same when the run is resumed."""
    return (step + 1) * 2**32 + seed


def _taken(
    job: Job, step: Step, material: Material, rows: Sequence[int], memory: Mapping[str, Tensor], seed: int
) -> Outcome:
    """The step, or a stop that leaves the rows concerned in a folder."""
    try:
        return step(material, rows, memory, seed)
    except BrokenStep as broken:
        if job.accelerator.is_main_process:
            encoded = material.rows.select(broken.rows)
            with whole_folder(job.folder.stopped) as draft:
                tensors = {f"context/{i}": x for i, x in enumerate(encoded.contexts)}
                tensors |= {f"response/{i}/{k}": y for i, ys in enumerate(encoded.responses) for k, y in enumerate(ys)}
                save_file({name: x.clone().contiguous() for name, x in tensors.items()}, draft / "rows.safetensors")
                write_json(draft / "rows.json", {"said": str(broken), "numbers": list(encoded.numbers)})
        raise BrokenStep(f"{broken} The rows are saved in {job.folder.stopped}.", broken.rows) from None


def _shrunk(job: Job, position: Position, tokens: int, said: str) -> None:
    """A smaller token budget from this step on: said, and noted, so that a resumed run begins its steps with it."""
    job.say(said)
    _note(job, {"kind": "memory", "step": position.step, "tokens": tokens})


def _line(
    position: Position, settings: Settings, outcome: Outcome, rate: float, seconds: float, planned: int
) -> dict[str, Any]:
    return {
        "kind": "step",
        "step": position.step,
        "round": position.phase + 1 if settings.rounds else 0,
        "epoch": settings.epochs * position.place / planned if settings.steps is None else None,
        "loss": outcome.loss,
        "lr": rate,
        "grad_norm": outcome.grad_norm,
        "tokens": outcome.tokens,
        "seconds": seconds,
        "units": sum(outcome.units.values()),
        **outcome.metrics,
    }


def _note(job: Job, line: Mapping[str, Any]) -> None:
    """One line of metrics, to the folder and to the trackers. JSON has no infinities: such a metric stands as null."""
    if job.accelerator.is_main_process:
        job.folder.add({k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in line.items()})
        numbers = {f"{line['kind']}/{k}": v for k, v in line.items() if isinstance(v, float)}
        job.accelerator.log(numbers, step=line["step"])


class _Interrupt:
    """Ctrl-C and SIGTERM between two steps, never within one or what is measured after it: half an update is no state to
    save. A second Ctrl-C is obeyed at once; the last checkpoint is then what the run goes on from."""

    def __init__(self, accelerator: Accelerator) -> None:
        self._accelerator = accelerator
        # Of several processes none may leave by itself, wherever it is: the others would wait for it in the next step.
        self._several = accelerator.num_processes > 1
        self._busy = self._asked = False
        self.torn = False
        """Whether a step was broken off within."""
        self._old: dict[int, Any] = {}

    def __enter__(self) -> _Interrupt:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._old[number] = signal.signal(number, self._heard)
        return self

    def __exit__(self, *exc: object) -> None:
        for number, old in self._old.items():
            signal.signal(number, old)

    def _heard(self, number: int, frame: Any) -> None:
        if (self._busy or self._several) and not self._asked:
            self._asked = True
            return
        raise KeyboardInterrupt

    @contextmanager
    def deferred(self) -> Iterator[None]:
        self._busy = True
        try:
            yield
        except KeyboardInterrupt:
            self.torn = True
            raise
        finally:
            self._busy = False

    def agree(self) -> None:
        """Raises on every rank once any rank was asked, so that none waits for one that has gone."""
        asked = torch.tensor(float(self._asked), device=self._accelerator.device)
        if float(reduced(self._accelerator, asked)) > 0:
            raise KeyboardInterrupt

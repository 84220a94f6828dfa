"""Processes side by side: as many as cores, GPUs and memory allow, each with its own log, and what each of them took. What they
do is theirs; one that fails stops no other."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from penchant.running.cell import INTERRUPTED

POLL = 0.2
"""Seconds between looks."""


@dataclass(frozen=True)
class Job:
    """One process to be."""

    name: str
    task: Mapping[str, Any]
    log: Path
    begun: Path
    """A file that is there, with something in it, as soon as the work which others share with it is done."""


@dataclass(frozen=True)
class Ended:
    """What became of it."""

    code: int
    """Its exit code; −n where signal n ended it."""
    cpu: float
    wall: float
    memory: float
    """Bytes at the most."""

    def reason(self, log: Path) -> str:
        """Why it did not finish, in its own last words."""
        said = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() if log.exists() else []
        if self.code < 0:
            killed = f"ended by signal {-self.code} ({signal.Signals(-self.code).name})"
            return killed + (", as the system does where memory is used up" if self.code == -signal.SIGKILL else "")
        return said[-1].strip() if said else f"exit code {self.code}, without a word"


class Crew:
    """at_once: how many may run; None as many as memory has room for, up to `most`. devices: the GPUs they are spread over."""

    def __init__(self, most: int, at_once: int | None, threads: int, devices: Sequence[str] = ()) -> None:
        self.most, self.at_once, self.threads, self.devices = most, at_once, threads, list(devices)
        self.largest = 0.0
        """Bytes of the largest process so far."""

    def run(self, jobs: Sequence[Job], ended: Callable[[Job, Ended], None]) -> None:
        """Runs all of them; the first goes ahead alone until what it shares with the others is done. When this process is
        interrupted, those under way save a checkpoint first."""
        waiting, running = deque(jobs), list[_Running]()
        lead: _Running | None = None
        try:
            while waiting or running:
                alone = lead is not None and lead in running and not lead.begun
                while waiting and not alone and len(running) < self._room(len(running)):
                    running.append(self._start(waiting.popleft(), running))
                    lead, alone = (running[-1], True) if lead is None else (lead, alone)
                time.sleep(POLL)
                for one in list(running):
                    self.largest = max(self.largest, one.memory())
                    if (told := one.over()) is not None:
                        running.remove(one)
                        self.largest = max(self.largest, told.memory)
                        ended(one.job, told)
        finally:
            for one in running:
                one.stop()
            for one in running:
                ended(one.job, one.wait())

    def _room(self, running: int) -> int:
        if self.at_once is not None:
            return self.at_once
        free = _available()
        if not running or free is None or not self.largest:
            return self.most
        return min(self.most, running + int(0.9 * free // self.largest))

    def _start(self, job: Job, running: Sequence[_Running]) -> _Running:
        # modules are found as this process finds them: penchant itself, and judges of one's own
        found = os.pathsep.join(path for path in sys.path if path)
        environment = {
            **os.environ,
            "PYTHONPATH": found,
            "OMP_NUM_THREADS": str(self.threads),
            "OMP_WAIT_POLICY": "PASSIVE",
        }
        environment.setdefault("TOKENIZERS_PARALLELISM", "false")
        device = None
        if self.devices:
            device = min(self.devices, key=lambda name: sum(one.device == name for one in running))
            environment["CUDA_VISIBLE_DEVICES"] = device
        job.log.parent.mkdir(parents=True, exist_ok=True)
        with job.log.open("w", encoding="utf-8") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "penchant.running.cell", json.dumps(job.task)],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,  # an interrupt from the terminal comes to this process, which passes it on once
            )
        return _Running(job, process, time.perf_counter(), device)


@dataclass(eq=False)
class _Running:
    job: Job
    process: subprocess.Popen[bytes]
    started: float
    device: str | None

    @property
    def begun(self) -> bool:
        return self.job.begun.exists() and self.job.begun.stat().st_size > 0

    def over(self) -> Ended | None:
        """What became of it; None while it runs."""
        pid, status, usage = os.wait4(self.process.pid, os.WNOHANG)
        return self._ended(status, usage) if pid else None

    def stop(self) -> None:
        if self.process.stdin is not None:
            self.process.stdin.close()

    def wait(self) -> Ended:
        _, status, usage = os.wait4(self.process.pid, 0)
        return self._ended(status, usage)

    def _ended(self, status: int, usage: resource.struct_rusage) -> Ended:
        self.stop()
        self.process.returncode = os.waitstatus_to_exitcode(status)
        kilo = 1 if sys.platform == "darwin" else 1024  # what ru_maxrss counts in
        cpu = usage.ru_utime + usage.ru_stime
        return Ended(self.process.returncode, cpu, time.perf_counter() - self.started, usage.ru_maxrss * kilo)

    def memory(self) -> float:
        """Bytes it has held at the most; 0 where the system does not say."""
        return _kilobytes(Path(f"/proc/{self.process.pid}/status"), "VmHWM:") or 0.0


def _available() -> float | None:
    """Bytes of memory that are free to take; None where the system does not say."""
    return _kilobytes(Path("/proc/meminfo"), "MemAvailable:")


def _kilobytes(file: Path, name: str) -> float | None:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except OSError:  # no such file on this system, or the process has just ended
        return None
    return next((1024.0 * float(line.split()[1]) for line in lines if line.startswith(name)), None)


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def was_interrupted(told: Ended) -> bool:
    return told.code in (INTERRUPTED, -signal.SIGTERM, -signal.SIGINT)

"""What the processes of a run know of each other: who is there, in which phase, and who has gone. A lost one becomes a sentence
on all others, within a bounded time. Tensors are none of its business."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator

from penchant.engine.metrics import reduced
from penchant.errors import LostRank, Refusal, StoppedRun

BEAT = 0.5
"""Seconds between two signs of life."""
SURE = 3.0
"""Seconds without one after which a process counts as gone, once something has failed."""
SIZE = 4096
"""Bytes of a sign of life: it is written over in place, so that a full disk makes nobody look dead."""


@dataclass(frozen=True)
class Sign:
    """What a process last said of itself."""

    beat: int
    phase: str
    ended: str | None = None
    """Why it failed; None while it runs."""


class Ranks:
    """This process among the others of its run. Each leaves signs of life in a folder that all see, beside the run's own."""

    def __init__(self, accelerator: Accelerator, output: Path, timeout: float) -> None:
        """All processes come here together. timeout: seconds without a sign of life after which a process is given up."""
        self.rank, self.world, self.timeout = accelerator.process_index, accelerator.num_processes, timeout
        self._others = [rank for rank in range(self.world) if rank != self.rank]
        self._folder = output.parent / f".{output.name}.processes"
        self._phase, self._beat, self._ended = "starting", 0, None
        self._lock, self._over = threading.Lock(), threading.Event()
        self._seen: dict[int, Sign] = {}
        self._accelerator = accelerator
        self._watching = threading.Thread(target=self._watch, name="signs of life", daemon=True)
        if self.world == 1:
            return
        if accelerator.is_main_process:
            self._folder.mkdir(parents=True, exist_ok=True)
            for path in self._folder.iterdir():  # of processes before these
                path.unlink()
        accelerator.wait_for_everyone()
        self._sign()
        accelerator.wait_for_everyone()
        self._watching.start()

    def phase(self, title: str) -> None:
        """Says what this process is about to do."""
        self._phase = title
        self._sign()

    @contextmanager
    def minded(self) -> Iterator[None]:
        """What runs in here is waited for: the others learn how it ends, and where it fails because one of them has gone, that
        is what it fails with. Raises LostRank."""
        if self.world == 1:
            yield
            return
        try:
            yield
            self._accelerator.wait_for_everyone()
        except (Refusal, StoppedRun, LostRank) as error:
            self._end(str(error))
            raise
        except (RuntimeError, KeyboardInterrupt) as error:
            lost = self._lost() or (self._waited() if "imed out" in str(error) else None)
            self._end(str(lost or error) or "interrupted")
            if lost is None:
                raise
            raise lost from error
        except BaseException as error:
            self._end(str(error) or type(error).__name__)
            raise
        self._part()

    def _part(self) -> None:
        """The end of all: nobody is waited for any more, and no sign of life is left behind."""
        self._over.set()
        self._watching.join()
        self._accelerator.wait_for_everyone()
        if self._accelerator.is_main_process:
            shutil.rmtree(self._folder)

    def _end(self, why: str) -> None:
        """Says that this process ends, and why."""
        self._over.set()
        self._ended = why
        self._sign()

    # --- what became of the others

    def _lost(self) -> LostRank | None:
        """Who has gone, in a sentence; None where nobody has. It takes a few seconds to be sure."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):  # a launcher ends the rest at once: let them say why
                signal.signal(number, signal.SIG_IGN)
        before = {rank: self._read(rank) for rank in self._others}
        time.sleep(SURE)
        gone = [rank for rank in self._others if _gone(before[rank], self._read(rank))]
        return LostRank(self._sentence(gone)) if gone else None

    def _waited(self) -> LostRank:
        """Said where nobody has gone, but somebody did not come in time to where all meet."""
        told = "; ".join(f"rank {rank} is in phase {self._last(rank)!r}" for rank in self._others)
        return LostRank(
            f"rank {self.rank} of {self.world} waited in vain in phase {self._phase!r}: {told}. The same command goes on from "
            "the last checkpoint; --timeout allows for longer waits."
        )

    def _sentence(self, gone: list[int]) -> str:
        said = []
        for rank in gone:
            sign = self._read(rank)
            if sign is None:
                said.append(f"rank {rank} of {self.world} was lost before it had begun")
            elif sign.ended:
                said.append(f"rank {rank} of {self.world} ended in phase {sign.phase!r}: {sign.ended.rstrip('.')}")
            else:
                said.append(f"rank {rank} of {self.world} was lost in phase {sign.phase!r}")
        return (
            f"{'; '.join(said)}. Rank {self.rank} was in phase {self._phase!r}. What was saved is whole, and the same command "
            "goes on from the last checkpoint."
        )

    def _last(self, rank: int) -> str:
        sign = self._read(rank)
        return "none" if sign is None else sign.phase

    def _watch(self) -> None:
        """Where a device waits in a collective that never ends, no error reaches Python. So a process that was silent for the
        whole timeout, or that said it has failed while this one still waits for it, ends this one from here."""
        since = dict.fromkeys(self._others, time.monotonic())
        last: dict[int, Sign | None] = dict.fromkeys(self._others)
        while not self._over.wait(BEAT):
            self._sign()
            for rank in self._others:
                sign = self._read(rank)
                if sign != last[rank]:
                    last[rank], since[rank] = sign, time.monotonic()
                silent = time.monotonic() - since[rank]
                failed = sign is not None and bool(sign.ended)
                if silent > (min(self.timeout, 10 * SURE) if failed else self.timeout):
                    print(f"penchant: {self._sentence([rank])}", file=sys.stderr, flush=True)
                    os._exit(LostRank.exit_code)

    # --- signs of life

    def _sign(self) -> None:
        if self.world == 1:
            return
        with self._lock:
            self._beat += 1
            said = {"beat": self._beat, "phase": self._phase[:200], "ended": self._ended and self._ended[:400]}
            handle = os.open(self._path(self.rank), os.O_WRONLY | os.O_CREAT)
            try:
                os.pwrite(handle, json.dumps(said).encode().ljust(SIZE), 0)
            finally:
                os.close(handle)

    def _read(self, rank: int) -> Sign | None:
        """The last sign of a process; the one before, where this one is just being written."""
        try:
            self._seen[rank] = Sign(**json.loads(self._path(rank).read_bytes()))
        except (FileNotFoundError, ValueError):
            return self._seen.get(rank)
        return self._seen[rank]

    def _path(self, rank: int) -> Path:
        return self._folder / f"rank-{rank:05d}.json"


def _gone(before: Sign | None, now: Sign | None) -> bool:
    if before is None or now is None:
        return now is None
    return now.ended is not None or now.beat == before.beat


# --- one for all


def first(accelerator: Accelerator, act: Callable[[], object]) -> None:
    """The first process does something while the others wait. Where it fails, all end with its words: none waits for it."""
    failed: Exception | None = None
    if accelerator.is_main_process:
        try:
            act()
        except Exception as error:
            if accelerator.num_processes == 1:
                raise
            failed = error
    if accelerator.num_processes == 1:
        return
    kind = 0 if failed is None else 1 if isinstance(failed, Refusal) else 2 if isinstance(failed, StoppedRun) else 3
    kind, said = told(accelerator, kind), shared(accelerator, str(failed))
    if failed is not None:
        raise failed
    if kind:
        raise (Refusal(said), StoppedRun(said), LostRank(f"rank 0 ended: {said}"))[kind - 1]


def shared(accelerator: Accelerator, text: str) -> str:
    """The first process's words, on all."""
    mine = text.encode() if accelerator.is_main_process else b""
    words = torch.zeros(told(accelerator, len(mine)), dtype=torch.int64, device=accelerator.device)
    if accelerator.is_main_process:
        words += torch.tensor(list(mine), dtype=torch.int64, device=accelerator.device)
    return bytes(reduced(accelerator, words).tolist()).decode()


def told(accelerator: Accelerator, number: int) -> int:
    """The first process's number, on all. What it stands for may differ from process to process (what a disk shows, how a sum
    was rounded), but what all do next must not, or they would wait for each other for ever."""
    mine = torch.tensor(int(number) if accelerator.is_main_process else 0, device=accelerator.device)
    return int(reduced(accelerator, mine))

"""Real runs of the command, forked from one parent that has imported everything, killed with SIGKILL at a chosen moment or after
a chosen time. It judges nothing: what a run left is for the tests to compare.

A moment is the k-th time a run is about to do one thing to one kind of file ("os.rename checkpoints/step"): Python tells an
audit hook of it before it happens. A parent of a single thread may fork; it says so, and does no arithmetic of its own."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

Moment = tuple[str, int]
"""What is about to be done to which kind of file, and for the how many-th time."""

EVENTS = {"open": 0, "os.mkdir": 0, "os.remove": 0, "os.rmdir": 0, "os.rename": 1, "shutil.rmtree": 0}
"""What changes a file system, and which argument names the file."""


def kind_of(event: str, args: Sequence[Any], places: Sequence[str]) -> str | None:
    """What is about to happen, with the numbers and random letters of names left out; None for what changes nothing here."""
    path = str(args[EVENTS[event]])
    inside = next((os.path.relpath(path, place) for place in places if path.startswith(place)), None)
    if inside is None or (event == "open" and not int(args[2] or 0) & (os.O_WRONLY | os.O_RDWR)):
        return None
    return f"{event} {re.sub(r'[-.][a-z0-9_]{8}(?=/|$)|-[0-9a-f]{32}|[0-9a-f]{32}/|-[0-9]+', '', inside)}"


def child(order: dict[str, Any]) -> int:
    """One run, as the shell would start it. `counts` receives how often each thing was done."""
    from penchant import cli

    for stream in (1, 2):
        os.dup2(os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)
    os.environ |= order["environment"]
    seen: Counter[str] = Counter()

    def heard(event: str, args: tuple[Any, ...]) -> None:
        if event in EVENTS and (kind := kind_of(event, args, order["places"])) is not None:
            seen[kind] += 1
            if [kind, seen[kind]] == order["moment"]:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(heard)
    code = cli.main(order["words"])
    sys.stdout.flush()
    sys.stderr.flush()
    Path(order["counts"]).write_text(json.dumps(seen))
    return code


def parent() -> None:
    """Imports everything once, then forks a run for every line that comes in, and says how it ended."""
    import matplotlib.backends.backend_svg
    import matplotlib.figure  # noqa: F401
    import peft  # noqa: F401
    import transformers.generation.utils
    import transformers.models.llama.modeling_llama  # noqa: F401
    from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast  # noqa: F401

    import penchant.report.charts
    import penchant.report.terminal
    import penchant.rewards.naming
    import penchant.run
    import penchant.running.align  # noqa: F401

    threads = len(os.listdir("/proc/self/task"))
    print(json.dumps({"threads": threads}), flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        started = time.monotonic()
        run = os.fork()
        if not run:
            try:
                os._exit(child(order))
            except BaseException:
                import traceback

                traceback.print_exc()
                os._exit(70)
        ended, status = os.waitpid(run, os.WNOHANG) if order["after"] is not None else os.waitpid(run, 0)
        while not ended:
            if time.monotonic() - started >= order["after"]:
                os.kill(run, signal.SIGKILL)
            time.sleep(0.001)
            ended, status = os.waitpid(run, os.WNOHANG)
        seconds = time.monotonic() - started
        print(json.dumps({"code": os.waitstatus_to_exitcode(status), "seconds": seconds}), flush=True)


@dataclass(frozen=True)
class Ended:
    """How a run ended."""

    code: int
    """Its exit code; −9 where it was killed."""
    seconds: float
    said: str
    """All it printed."""
    counts: dict[str, int]
    """How often it did what to which kind of file; empty where it was killed."""

    @property
    def killed(self) -> bool:
        return self.code == -signal.SIGKILL


class Runs:
    """The parent, and runs asked of it one after the other."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        self._parent = subprocess.Popen(
            [sys.executable, __file__], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.threads: int | None = None
        """Threads of the parent, once it is ready; one that has more must not fork."""

    def __enter__(self) -> Runs:
        self.threads = self._heard()["threads"]
        return self

    def __exit__(self, *exc: object) -> None:
        self._pipe(self._parent.stdin).close()
        self._parent.wait()
        self._pipe(self._parent.stdout).close()

    def __call__(
        self, words: Sequence[str], cache: Path, moment: Moment | None = None, after: float | None = None
    ) -> Ended:
        """Runs `penchant` with these words. It dies at the moment, or after so many seconds, if it has not ended before."""
        log, counts = self._folder / "log", self._folder / "counts"
        for path in (log, counts):
            path.unlink(missing_ok=True)
        output = words[words.index("--output") + 1]
        order = {
            "words": list(words),
            "environment": {"PENCHANT_CACHE": str(cache)},
            "places": [output, str(cache)],
            "moment": moment,
            "after": after,
            "log": str(log),
            "counts": str(counts),
        }
        pipe = self._pipe(self._parent.stdin)
        pipe.write(json.dumps(order) + "\n")
        pipe.flush()
        end = self._heard()
        done = json.loads(counts.read_text()) if counts.exists() else {}
        return Ended(end["code"], end["seconds"], log.read_text() if log.exists() else "", done)

    def _heard(self) -> dict[str, Any]:
        line = self._pipe(self._parent.stdout).readline()
        assert line, "the parent of the runs has died"
        return json.loads(line)

    @staticmethod
    def _pipe(pipe: IO[str] | None) -> IO[str]:
        assert pipe is not None
        return pipe


if __name__ == "__main__":
    parent()

"""One run of a comparison, in a process of its own: `python -m penchant.running.cell TASK`, the task as JSON. It is an ordinary
run into its own folder, which ends, with a checkpoint, when the process that began it is gone."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from penchant.errors import Refusal, StoppedRun
from penchant.words import plain

INTERRUPTED = 130


def follow_parent() -> None:
    """Ends this process, as SIGTERM does, when the other end of its standard input is closed: by a comparison that is
    interrupted, or by the system where it was killed."""

    def wait() -> None:
        while os.read(0, 1):  # not sys.stdin, whose lock a thread must not hold when Python ends
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, daemon=True).start()


def run(task: dict[str, Any]) -> int:
    """0: finished, whatever its verdict; 130: interrupted."""
    from penchant.engine.settings import Settings
    from penchant.objectives.reader import read
    from penchant.rewards.naming import load_judge
    from penchant.running.align import Alignment
    from penchant.running.voice import Voice

    judge = load_judge(task["judge"]) if task["judge"] else None
    answers = Path(task["answers"]) if task["answers"] else None
    places = (Path(task["output"]), judge, task["unseen"], Settings.of(task["settings"]))
    with Voice() as voice:
        evidence, _ = Alignment(task["model"], task["data"], read(task["objective"]), *places, voice, answers).run()
    return INTERRUPTED if evidence.stopped_by == "interrupted" else 0


def main() -> int:
    follow_parent()
    try:
        return run(json.loads(sys.argv[1]))
    except (Refusal, StoppedRun) as error:
        print(plain(error), file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())

"""The folder a run lives in: what it is, how far it got, what it left. A folder that holds another run is not touched."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from penchant.errors import Refusal
from penchant.files import LOCKS, cache_folder, drafts, fingerprint, flush, named, read_json, remove, write, write_json
from penchant.words import brief

OURS = (
    *("metrics.jsonl", "checkpoints", "rounds", "pairs.jsonl", "stopped"),
    *("before.json", "evidence.json", "verdict.json", "report.html", "drift.json", "model"),
    "run.json",
)
"""What a run leaves, in the order it is cleared: a folder that was cleared half way is still known as a run's."""

FORMAT = 2
"""Of run.json: 2 keeps how responses are read (choices.scoring); before, the format had no number."""


class RunFolder:
    """Paths and small files of one run."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.checkpoints = self.path / "checkpoints"
        self.rounds = self.path / "rounds"
        self.model = self.path / "model"
        self.metrics = self.path / "metrics.jsonl"
        self.pairs = self.path / "pairs.jsonl"
        self.evidence = self.path / "evidence.json"
        self.verdict = self.path / "verdict.json"
        self.report = self.path / "report.html"
        self.stopped = self.path / "stopped"
        self.before = self.path / "before.json"
        self._run = self.path / "run.json"
        # not in the folder itself, which would no longer be empty; a process that dies gives it back
        self._lock = FileLock(cache_folder() / LOCKS / f"{fingerprint(str(self.path.resolve()))}.lock")

    @property
    def finished(self) -> bool:
        return self.evidence.exists()

    def claim(self, identity: Mapping[str, Any], overwrite: bool) -> bool:
        """Takes the folder for this run. True if it holds the same run already, which then goes on; a different run is
        refused, with what differs, unless it may be overwritten; so is a folder that another process is writing into."""
        if self.path.exists() and not self.path.is_dir():
            raise Refusal(f"output {str(self.path)!r} is a file; give a folder.")
        try:
            Path(self._lock.lock_file).parent.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(timeout=0)
        except Timeout:
            raise Refusal(
                f"another process is writing into output {str(self.path)!r}; wait for it, stop it, or give another folder."
            ) from None
        except OSError as error:
            raise Refusal(
                f"the cache folder {str(cache_folder())!r} cannot be written into ({error.strerror}); set PENCHANT_CACHE to one "
                "that can."
            ) from error
        for draft in [*drafts(self.path, OURS), *self.rounds.rglob(".*")]:
            remove(draft)
        if self._run.exists() and not overwrite:
            there = self.identity
            if there == dict(identity):
                return True
            raise Refusal(
                f"output {str(self.path)!r} holds a different run ({differences(there, identity)}). "
                "Give another folder, or --overwrite to replace it."
            )
        if overwrite:
            self._clear()
        elif self.path.is_dir() and any(self.path.iterdir()):
            raise Refusal(
                f"output {str(self.path)!r} is not empty and holds no run of penchant. Give a new folder, or "
                "--overwrite to use this one (files of other names are left alone)."
            )
        self.path.mkdir(parents=True, exist_ok=True)
        self.record(identity, {})
        return False

    def idle(self, seconds: float = 0.0) -> bool:
        """Whether no process writes into the folder, now or after so many seconds at the most."""
        Path(self._lock.lock_file).parent.mkdir(parents=True, exist_ok=True)
        try:
            with self._lock.acquire(timeout=seconds):
                return True
        except Timeout:
            return False

    def release(self) -> None:
        """Lets other processes write into the folder again."""
        self._lock.release()

    def _clear(self) -> None:
        for name in OURS:
            remove(self.path / name)

    def record(self, identity: Mapping[str, Any], choices: Mapping[str, Any]) -> None:
        """Writes what this run is and what was found at start-up."""
        write_json(self._run, {"format": FORMAT, "identity": dict(identity), "choices": dict(choices)})

    @property
    def identity(self) -> dict[str, Any]:
        """What this run is: its model, data, objective and settings, by content."""
        return self._told()["identity"]

    @property
    def choices(self) -> dict[str, Any]:
        """What was found at start-up, kept so that a resumed run computes as it began."""
        return self._told()["choices"]

    def _told(self) -> dict[str, Any]:
        told = read_json(self._run)
        if told.get("format", 1) != FORMAT:
            raise Refusal(
                f"output {str(self.path)!r} holds a run that another version of penchant began (format {told.get('format', 1)}; "
                f"this one goes on with {FORMAT}). Finish it with that version, give another folder, or --overwrite to replace "
                "it."
            )
        return told

    def add(self, line: Mapping[str, Any]) -> None:
        """Appends one line to metrics.jsonl."""
        with named(self.metrics), self.metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, allow_nan=False) + "\n")

    def history(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl; a last line cut short by a kill is left out."""
        if not self.metrics.exists():
            return []
        lines = []
        for text in self.metrics.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                lines.append(json.loads(text))
            except json.JSONDecodeError:
                break
        return lines

    def rewind(self, step: int) -> None:
        """Takes out of metrics.jsonl what will be told again by a run that goes on from this step: later steps, its end, and
        everything where it begins anew. Refuses a file that does not tell of every step before."""
        lines = [line for line in self.history() if line["step"] <= step and line["kind"] != "state"] if step else []
        told = [line["step"] for line in lines if line["kind"] == "step"]
        if told != list(range(1, step + 1)):
            raise Refusal(
                f"{self.metrics} tells of {len(told):,} steps where the checkpoint has taken {step:,}: it was cut or changed. "
                f"Put the whole file back, or remove {self.checkpoints} to take all steps again."
            )
        write(self.metrics, "".join(json.dumps(line) + "\n" for line in lines))

    def flush(self) -> None:
        """Sees to it that metrics.jsonl is on the disk before a checkpoint that counts on it."""
        flush(self.metrics)


def differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    """What differs between two runs' identities, in words."""
    said = []
    for name in sorted(set(there) | set(here)):
        a, b = there.get(name), here.get(name)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            inner = differences(a, b)
            said += [inner] if inner else []
        elif a != b:
            said.append(f"{name}: {brief(a)} there, {brief(b)} here")
    return "; ".join(said)

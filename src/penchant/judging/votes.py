"""A person's votes as a file of preferences: one row a vote, added whole, taken back whole. Sides are drawn from a seed that is
written down with every vote; who shows the answers is not its business."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any, Literal

from penchant.errors import Refusal
from penchant.feedback.lines import strict_json
from penchant.feedback.records import Problem, Row
from penchant.feedback.writing import as_mapping
from penchant.judging.answers import Question
from penchant.words import plain

Vote = Literal["left", "right", "tie"]


class Votes:
    """The votes of one person. A tie is written with a strength of ½: it prefers nobody, so `penchant align` leaves it out, and
    counts it, for an objective that does not read strengths."""

    def __init__(self, path: Path, questions: list[Question], seed: int, annotator: str) -> None:
        """Goes on with a file that is there: what was asked there is not asked again, and a line that was cut off is dropped."""
        self.path, self.seed, self.annotator = path, seed, annotator
        self.dropped = False
        """Whether the file ended in half a line."""
        chance = lambda q: hashlib.sha256(f"{seed}/{q.identity}".encode()).digest()  # noqa: E731
        self.questions = sorted(questions, key=chance)
        self._flip = {q.identity: chance(q)[-1] % 2 == 1 for q in questions}
        self._skipped: list[str] = []
        self._acts: list[Literal["vote", "skip"]] = []
        """What was done since the file was opened, in order."""
        self._mine: list[tuple[str, int, Vote]] = []
        """Question, where its row begins, vote; of the rows of this person."""
        self._read()

    def sides(self, question: Question) -> tuple[str, str]:
        """What stands on the left and on the right."""
        return (question.b, question.a) if self._flip[question.identity] else (question.a, question.b)

    @property
    def done(self) -> int:
        known = {q.identity for q in self.questions}
        return len({name for name, *_ in self._mine} & known)

    def next(self) -> Question | None:
        """The next question that was neither answered nor passed over since the file was opened."""
        passed = {name for name, *_ in self._mine} | set(self._skipped)
        return next((q for q in self.questions if q.identity not in passed), None)

    def add(self, question: Question, vote: Vote) -> None:
        """Writes a row: one write to the end of the file, flushed to disk."""
        left, right = self.sides(question)
        better = (right, left) if vote == "right" else (left, right)
        first = "rejected" if vote == "right" else "chosen"
        extra = {"question": question.identity, "vote": vote, "seed": self.seed, "shown_first": first}
        row = Row(0, "pairs", question.prompt, better, annotator=self.annotator, extra=extra)
        line = {**as_mapping(row), "strength": 0.5 if vote == "tie" else 1.0}
        data = (json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n").encode()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            begin = os.fstat(handle).st_size
            try:
                written = os.write(handle, data)
                if written != len(data):
                    raise OSError(28, "No space left on device", str(self.path))
                os.fsync(handle)
            except OSError:
                os.ftruncate(handle, begin)  # a row is there whole or not at all
                raise
        finally:
            os.close(handle)
        self._mine.append((question.identity, begin, vote))
        self._acts.append("vote")

    def skip(self, question: Question) -> None:
        """Leaves a question for the next time the file is opened."""
        self._skipped.append(question.identity)
        self._acts.append("skip")

    def undo(self) -> bool:
        """Takes back the last skip or vote of this person; whether there was one."""
        if not self._acts and not self._mine:
            return False
        if self._acts and self._acts.pop() == "skip":
            self._skipped.pop()
            return True
        lines = self.path.read_bytes()
        _, begin, _ = self._mine[-1]
        if lines[begin:].count(b"\n") != 1:
            raise Refusal(
                f"{plain(self.path)} has been added to by somebody else since; the last vote is not its last line."
            )
        with self.path.open("r+b") as file:
            file.truncate(begin)
            os.fsync(file.fileno())
        self._mine.pop()
        return True

    def counts(self) -> dict[str, int]:
        """Votes by side, ties, and how many were passed over."""
        said = [vote for *_, vote in self._mine]
        return {name: said.count(name) for name in ("left", "right", "tie")} | {"skipped": len(self._skipped)}

    def _read(self) -> None:
        if not self.path.exists():
            return
        data = self.path.read_bytes()
        whole = data[: data.rfind(b"\n") + 1]
        if whole != data:
            with self.path.open("r+b") as file:
                file.truncate(len(whole))
            self.dropped = True
        place = 0
        for number, line in enumerate(whole.splitlines(keepends=True), 1):
            value: Any = strict_json(line, number)
            if isinstance(value, Problem) or not isinstance(value, dict) or "question" not in value:
                raise Refusal(f"row {number} of {plain(self.path)} is no vote; name a file of its own for the votes.")
            if value.get("annotator") == self.annotator and value.get("vote") in ("left", "right", "tie"):
                self._mine.append((str(value["question"]), place, value["vote"]))
            place += len(line)

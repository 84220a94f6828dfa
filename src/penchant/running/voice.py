"""What a run says while it works: one line per decision, one bar per long thing, the summary at the end. Texts of data and
models are neutralised; nothing is printed by a quiet run or by any process but the first."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from penchant.words import plain

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

    from penchant.engine.checkpoint import Position
    from penchant.engine.step import Outcome
    from penchant.evaluation.compared import Compared
    from penchant.evaluation.evidence import RunEvidence
    from penchant.evaluation.verdict import Verdict


class Voice:
    """The run's terminal. Use it as a context; bars live as long."""

    def __init__(self, quiet: bool = False) -> None:
        self.quiet = quiet or int(os.environ.get("RANK", "0")) > 0
        self._bars: dict[str, TaskID] = {}
        self._console: Console | None = None
        self._progress: Progress | None = None
        self._recent = [0.0] * 4
        """Steps, and the sums of their loss, tokens and seconds; a step's weight falls by a tenth with each that follows."""

    def __enter__(self) -> Voice:
        if not self.quiet:
            from rich.console import Console

            from penchant.report.terminal import progress

            self._console = Console(highlight=False, emoji=False)
            self._progress = progress(self._console)
            self._progress.start()
        return self

    def __exit__(self, *exc: Any) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    def say(self, line: str) -> None:
        if self._console is not None:
            self._console.print(plain(line), markup=False)

    def account(self, about: Mapping[str, Any]) -> None:
        """What is in the data and what became of it."""
        said, lost = about["accounting"], sum(about["accounting"]["dropped"].values())
        why = ", ".join(f"{n:,} {reason}" for reason, n in said["dropped"].items())
        self.say(
            f"data {about['source']}: {about['format']}; {about['train']:,} rows to train on, {about['held_out']:,} held out"
        )
        self.say(
            f"kept {said['kept']:,} of {said['read']:,} / dropped {lost:,}{f' ({why})' if why else ''} / truncated "
            f"{said['truncated']:,} / identical after truncation {said['identical']:,}"
        )
        if said["unfinished"]:
            self.say(f"{said['unfinished']:,} rows hold a response that was cut when it was sampled; it gets no stop token")
        if said["template_differs"]:
            self.say(
                f"{said['template_differs']:,} rows are rendered otherwise by the chat template as a whole (trimmed text)"
            )

    def progress(self, title: str, done: int, total: int) -> None:
        """Moves the bar of that title."""
        if self._progress is None or not total:
            return
        if title not in self._bars:
            self._bars[title] = self._progress.add_task(title, total=total)
        self._progress.update(self._bars[title], completed=done, total=total)
        if done >= total:
            self._progress.remove_task(self._bars.pop(title))

    def step(self, position: Position, planned: int, phases: int, outcome: Outcome, seconds: float) -> None:
        """Moves the bar of the loop, which shows the last steps' loss and tokens per second."""
        which = f"round {position.phase + 1} of {phases}: training" if phases > 1 else "training"
        this = (1.0, outcome.loss, outcome.tokens, seconds)
        self._recent = [0.9 * old + new for old, new in zip(self._recent, this, strict=True)]
        steps, loss, tokens, took = self._recent
        if self._progress is not None:
            self.progress(which, position.place, planned)
            if which in self._bars:
                said = f"{which}, loss {loss / steps:.4f}, {tokens / took:,.0f} tokens/s"
                self._progress.update(self._bars[which], description=said)

    def summary(self, evidence: RunEvidence, verdict: Verdict, paths: Mapping[str, Path]) -> None:
        """The before/after table, the verdict and where things are."""
        if self._console is not None:
            from penchant.report.terminal import print_summary

            print_summary(self._console, evidence, verdict, paths)

    def compared(self, found: Compared, paths: Mapping[str, Path]) -> None:
        """The table of a comparison and what follows from it."""
        if self._console is not None:
            from penchant.report.compare import print_compared

            print_compared(self._console, found, paths)

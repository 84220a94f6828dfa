"""`align`: one call from a model, data and an objective to an aligned model and the truth about it; `compare`: the same of
several objectives, held against each other. What happens inside is in `running/`; this file loads nothing until it is called."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from penchant.engine.folder import RunFolder
from penchant.engine.settings import Settings
from penchant.errors import Refusal
from penchant.files import read_json

if TYPE_CHECKING:
    from penchant.evaluation.compared import Compared
    from penchant.evaluation.evidence import RunEvidence
    from penchant.evaluation.verdict import Verdict
    from penchant.objectives.base import Objective
    from penchant.rewards.naming import Named


@dataclass(frozen=True)
class Run:
    """A run that has ended."""

    folder: Path
    evidence: RunEvidence
    verdict: Verdict

    @property
    def model(self) -> Path:
        """The aligned model, in the ecosystem's own format."""
        return self.folder / "model"

    @property
    def history(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl."""
        return self.evidence.history

    @property
    def report(self) -> Path:
        """The page to open."""
        return self.folder / "report.html"

    @property
    def pairs(self) -> Path | None:
        """The preferences an on-policy run made."""
        return self.left.get("pairs")

    @property
    def left(self) -> dict[str, Path]:
        """What the run left, by name, as far as it is there: an interrupted run has no model and no report yet."""
        places = {"model": self.model, "report": self.report, "pairs": self.folder / "pairs.jsonl"}
        return {name: path for name, path in places.items() if path.exists()}

    @property
    def interrupted(self) -> bool:
        return self.evidence.stopped_by == "interrupted"

    @classmethod
    def open(cls, folder: str | Path) -> Run:
        """A run that was finished earlier, judged from its evidence."""
        from penchant.evaluation.evidence import RunEvidence
        from penchant.evaluation.verdict import judge_run

        place = RunFolder(folder)
        if not place.finished:
            raise Refusal(f"{str(folder)!r} holds no finished run; the command that began it goes on with it.")
        evidence = RunEvidence.from_json(read_json(place.evidence))
        return cls(place.path, evidence, judge_run(evidence))


def align(
    model: str | Path,
    data: Any,
    objective: Objective | str = "DPO(beta=0.1)",
    *,
    output: str | Path,
    judge: Named | str | None = None,
    guard: Named | str | None = None,
    unseen: Any = None,
    quiet: bool = False,
    **settings: Any,
) -> Run:
    """Aligns a model and judges what came of it.

    model: a folder, a hub id, "smollm2" or "diffusion-demo". data: feedback (a file, a hub id, rows), or prompts where `rounds`
    is set. objective: an objective, or as it is written. judge: who scores or compares samples, needed for on-policy rounds; it
    also judges the samples taken before and after. guard: judges them too, independently, and nothing is chosen by it: what a
    judge's score was bought with shows there. unseen: rows to judge the run on, instead of a share of the data. settings: the
    fields of penchant.engine.settings.Settings. The same call on the same output goes on where it stopped.

    Raises Refusal for input it will not run on, StoppedRun where numbers cannot be trusted.
    """
    chosen = Settings.of(settings)
    from penchant.objectives.reader import read
    from penchant.rewards.naming import load_judge
    from penchant.running.align import Alignment
    from penchant.running.voice import Voice

    written = read(objective) if isinstance(objective, str) else objective
    judging, guarding = (load_judge(x) if isinstance(x, str) else x for x in (judge, guard))
    voice = Voice(quiet)
    alignment = Alignment(str(model), data, written, Path(output), judging, unseen, chosen, voice, guard=guarding)
    with voice:
        evidence, verdict = alignment.run()
    run = Run(Path(output), evidence, verdict)
    voice.summary(run.evidence, run.verdict, run.left)
    return run


def compare(
    model: str | Path,
    data: Any,
    objectives: Sequence[Objective | str],
    *,
    output: str | Path,
    seeds: int = 3,
    grid: Mapping[str, Sequence[float | int]] | None = None,
    judge: str | None = None,
    unseen: Any = None,
    by: str | None = None,
    at_once: int | None = None,
    models: bool = True,
    quiet: bool = False,
    **settings: Any,
) -> Compared:
    """Trains every objective, at every point of the grid, with every seed, all alike and each in a process of its own, and says
    which is better, how surely and at what price. The page is output/compare.html, the numbers are compare.json beside it.

    grid: values by field ("beta"), by one method's field ("SimPO.beta") or by a setting of penchant.running.grid.SETTINGS.
    judge: by its name, since every process finds it anew. by: the measure a winner is named by, one of
    penchant.evaluation.rules.BY. models: whether finished runs keep their weights. model, data, unseen, settings: as for align;
    the seeds are `seed` and the numbers after it, and all are judged on the same held-out prompts. The same call on the same
    output goes on where it stopped; with more objectives, points or seeds it adds them.

    Raises Refusal for what it will not compare, before anything is trained; a run that fails later stands in `failures`.
    """
    chosen = Settings.of(settings)
    from penchant.objectives.reader import read
    from penchant.running.compare import Comparison, Plan
    from penchant.running.voice import Voice

    if judge is not None and not isinstance(judge, str):
        raise Refusal(
            f"judge = {judge!r}: name it, as 'vader' or 'module:function', for every run is a process of its own."
        )
    written = [read(one) if isinstance(one, str) else one for one in objectives]
    asked = (str(model), data, written, Path(output), judge, unseen, seeds, grid or {}, at_once, by, models, chosen)
    voice = Voice(quiet)
    with voice:
        found = Comparison(Plan(*asked), voice).run()
    voice.compared(found, {"report": Path(output) / "compare.html", "numbers": Path(output) / "compare.json"})
    return found

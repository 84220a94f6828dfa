"""The verdict of a run in plain words: every rule is asked, the most serious word that holds is the headline.
It reads the evidence alone, so a finished run can be judged again, by other rules, without its model."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from penchant.evaluation import goal as aim
from penchant.evaluation import harm, history
from penchant.evaluation.evidence import RunEvidence
from penchant.evaluation.overoptimisation import over_optimised
from penchant.evaluation.rules import FAILED, SEVERITY, Finding, Rules
from penchant.evaluation.table import Row, before_after
from penchant.words import plain

__all__ = ["Finding", "Row", "Rules", "Verdict", "before_after", "judge_run"]


@dataclass(frozen=True)
class Verdict:
    """What became of a run."""

    word: str
    """The headline: learned, nothing learned, memorised, collapsed, chosen falling, length drift, unstable, not measured,
    over-optimised, interrupted or stopped."""
    findings: list[Finding]
    """Every rule that was asked, the most serious first; several may hold."""
    ok: bool
    """False where the run came to nothing or cannot be trusted; the command line then exits with another code than 0."""

    @property
    def sentence(self) -> str:
        """The headline's sentence."""
        return next(f.sentence for f in self.findings if f.word == self.word)

    @property
    def held(self) -> list[Finding]:
        """The findings that hold."""
        return [f for f in self.findings if f.holds]

    def __str__(self) -> str:
        return "\n".join([self.word.upper(), *(f"  {f.word}: {f.sentence}" for f in self.held)])

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Verdict:
        return cls(value["word"], [Finding(**f) for f in value["findings"]], value["ok"])


def judge_run(evidence: RunEvidence, rules: Rules | None = None) -> Verdict:
    """Asks every rule of the evidence of one run."""
    rules = rules or Rules()
    aimed, dead = aim.goal(evidence, rules), aim.unmoved(evidence, rules)
    spoken = lambda: [  # noqa: E731
        harm.collapsed(evidence, aimed, rules),
        harm.chosen_falling(evidence, rules),
        harm.length_drift(evidence, rules),
    ]
    findings = [
        *_ended(evidence),
        history.unstable(evidence, rules),
        *(spoken() if evidence.speaks else []),  # a reward model says nothing that could collapse
        aim.memorised(aimed, evidence, rules),
        aim.nothing_learned(aimed, dead),
        aim.not_measured(aimed, dead, evidence.stopped_by is not None),
        aim.learned(aimed, dead),
        *([guarded] if (guarded := harm.over_optimised(evidence, aimed, rules)) is not None else []),
        *([watched] if (watched := over_optimised(evidence)) is not None else []),
    ]
    findings.sort(key=lambda f: SEVERITY.index(f.word))
    holding = [f.word for f in findings if f.holds]
    return Verdict(holding[0], findings, not FAILED.intersection(holding))


def _ended(evidence: RunEvidence) -> list[Finding]:
    """The finding of a run that did not end by itself. What it left is judged all the same."""
    if evidence.stopped_by is None:
        return []
    steps = len(history.lines(evidence, "step"))
    if evidence.stopped_by == "interrupted":
        said = f"The run was interrupted after {steps} recorded steps; the same command goes on from its checkpoint."
        return [Finding("interrupted", True, said, {"steps": steps})]
    said = f"The run was stopped after {steps} recorded steps: {plain(evidence.stopped_by, 500)}"
    return [Finding("stopped", True, said, {"steps": steps})]

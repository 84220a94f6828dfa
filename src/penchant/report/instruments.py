"""Which parts of the page the instruments fill, in the order a reader wants them. Each is made in its own file; none is shown
where the run left nothing for it."""

from __future__ import annotations

from penchant.evaluation.evidence import RunEvidence
from penchant.report.drift import drift_section
from penchant.report.likelihood import likelihood_section
from penchant.report.profile import profile_section
from penchant.report.ranking import ranking_section
from penchant.report.reward import reward_section
from penchant.report.sections import Section


def instruments(evidence: RunEvidence) -> list[Section]:
    """The parts this run's evidence allows."""
    made = (
        reward_section(evidence),
        ranking_section(evidence),
        likelihood_section(evidence),
        profile_section(evidence),
        drift_section(evidence),
    )
    return [part for part in made if part is not None]

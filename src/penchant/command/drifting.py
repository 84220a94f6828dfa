"""`penchant evaluate RUN --probes …`: how the stances of a run's checkpoints drifted, printed, written beside the run and shown in
its report. The measuring is in running/drifting.py."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from penchant.words import json_text, plain

if TYPE_CHECKING:
    from penchant.engine.settings import Settings
    from penchant.evaluation.drift import Drifts
    from penchant.evaluation.evidence import RunEvidence

SETTINGS = ("tokens", "precision", "threads", "allow_bin")
"""The settings that measuring stances has."""


def show(run: str, places: Sequence[str], most: int | None, settings: Settings, samples: bool, as_json: bool) -> int:
    """Always 0, for a drift is no verdict. samples: whether texts of data and model may stand in the report."""
    from penchant.evaluation.drift import of_run
    from penchant.evaluation.probes import read_probes
    from penchant.files import write, write_json
    from penchant.report.page import render
    from penchant.run import Run
    from penchant.running.drifting import probed
    from penchant.running.voice import Voice

    probes = read_probes(places, most)
    voice = Voice(quiet=as_json)
    with voice:
        evidence = probed(run, probes, settings, voice)
    assert evidence.stances is not None
    judged = Run.open(run)
    together, apart = of_run(evidence.stances)
    told = as_table(evidence, together, apart)
    write_json(judged.folder / "drift.json", told)
    write(
        judged.report,
        render(evidence, judged.verdict, samples=bool(evidence.settings.get("report_samples", True)) and samples),
    )
    write_json(judged.folder / "evidence.json", evidence.to_json())
    if as_json:
        print(json_text(told, indent=1))
        return 0
    print("\n".join(lines(evidence, together, apart)))
    print(f"\nreport  {plain(judged.report)}\nnumbers {plain(judged.folder / 'drift.json')}")
    return 0


def as_table(evidence: RunEvidence, together: Drifts, apart: Drifts) -> dict[str, Any]:
    """What drift.json holds: strict JSON, an unknown end of an interval is null."""
    from penchant.evaluation.drift import measured

    stances = evidence.stances
    assert stances is not None
    sure = apart.sure()
    return {
        "probes": stances.probes,
        "fingerprint": stances.fingerprint,
        "n": len(stances.topics),
        "stances": stances.names,
        "steps": stances.steps,
        "measured": measured(evidence),
        "mass": stances.mass,
        "size": apart.size.to_json(),
        "drifts": [
            {
                "topic": d.topic,
                "stance": d.stance,
                "values": [v.to_json() for v in d.values],
                "magnitude": d.magnitude.to_json(),
                "p": d.p,
                "sure": (d.topic, d.stance) in sure,
                "time": d.time,
                "time_sure": d.time_sure,
            }
            for d in [*together.drifts, *apart.drifts]
        ],
    }


def lines(evidence: RunEvidence, together: Drifts, apart: Drifts) -> list[str]:
    """A table for each stance, in the words of the report."""
    from penchant.report.drift import said, table

    out = [*said(evidence, together, apart)]
    for stance in apart.told:
        shown = table(together, apart, stance)
        rows = [[plain(cell) for cell in row] for row in (shown.head, *shown.rows)]
        widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
        out += ["", shown.title]
        out += ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
    return [plain(line) for line in [*out, "", "★ no chance, although so many were looked at; η is a share of the run"]]

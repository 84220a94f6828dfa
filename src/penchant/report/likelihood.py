"""The page's part on likelihood: what was followed of held-out pairs while the run went on, and the alarm's words. The alarm
itself is in evaluation/overoptimisation.py."""

from __future__ import annotations

from penchant.evaluation.evidence import RunEvidence
from penchant.evaluation.history import lines
from penchant.evaluation.overoptimisation import INDICATORS, over_optimised
from penchant.report.charts import ORANGE, Chart, Curve, lined
from penchant.report.sections import Section


def likelihood_section(evidence: RunEvidence) -> Section | None:
    """What the evaluations during the run followed; None where there were none."""
    finding = over_optimised(evidence)
    if finding is None:
        return None
    lead = (
        "Every evaluation asks, on held-out pairs, how probable the ten most probable tokens are together and how much choice "
        "is among them. Where either falls from where unseen pairs were best, generation often gets worse although the loss "
        "still improves. A chosen response that becomes less probable is no sign by itself."
    )
    return Section("likelihood", "Likelihood while it learned", lead, (finding.sentence,), charts=tuple(charts(evidence)))


def charts(evidence: RunEvidence) -> list[Chart]:
    """Mass, entropy and log π of held-out responses."""
    evaluations = lines(evidence, "eval")
    axes = {"mass": "probability, together", "entropy": "bits a token"}
    titles = {"mass": "Mass of the {k} most probable tokens", "entropy": "Entropy of the {k} most probable tokens"}
    tops = dict.fromkeys(key.rpartition("/")[0] for line in evaluations for key in line if key.split("/")[0] in INDICATORS)
    wanted = [(top, titles[what].format(k=k), axes[what]) for top in tops for what, _, k in [top.partition("/")]]
    wanted.append(("logp", "Log-probability of held-out responses", "log π per token, nats"))
    made = []
    for top, title, axis in wanted:
        curves = [Curve(f"{top}/chosen", "chosen", kind="eval"), Curve(f"{top}/rejected", "rejected", ORANGE, "eval")]
        made.append(lined(evidence.history, title, axis, curves))
    return [chart for chart in made if chart is not None]

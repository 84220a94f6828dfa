"""The page's part on likelihood: what was followed of held-out pairs while the run went on, the alarm's words, and how different
answers to different prompts are. The alarm itself is in evaluation/overoptimisation.py."""

from __future__ import annotations

from penchant.evaluation.diversity import across_prompts
from penchant.evaluation.evidence import RunEvidence
from penchant.evaluation.history import lines
from penchant.evaluation.overoptimisation import over_optimised
from penchant.report.charts import ORANGE, Chart, Curve, lined
from penchant.report.sections import Section, Table

AXES = {
    "mass": ("Mass of the {k} most probable tokens", "probability, together"),
    "entropy": ("Entropy of the {k} most probable tokens", "bits a token"),
    "renormalised": ("Entropy among the {k} most probable tokens", "bits a token"),
}
"""What is followed, its title and its unit. The third divides by the mass first, so that it tells choice from leaking."""
UNASKED = "This run evaluated nothing on the way, so nobody can say whether it had better stopped earlier: --evaluate-every N asks."


def likelihood_section(evidence: RunEvidence) -> Section | None:
    """What the evaluations during the run followed, and the variety of its samples; None where there is neither."""
    finding, variety = over_optimised(evidence), table(evidence)
    if finding is None and variety is None:
        return None
    lead = (
        "Every evaluation asks, on held-out pairs, how probable the ten most probable tokens are together and how much choice "
        "is among them. Where either falls from where unseen pairs were best, generation often gets worse although the loss "
        "still improves. A chosen response that becomes less probable is no sign by itself."
    )
    marks: dict[int, str] = {}
    if finding is not None and finding.holds:
        marks = {int(finding.evidence["stop_at"]): "stop here?", int(finding.evidence["alarm_at"]): "alarm"}
    said = UNASKED if finding is None else finding.sentence
    tables = () if variety is None else (variety,)
    return Section("likelihood", "Likelihood and variety", lead, (said,), tables, tuple(charts(evidence, marks)))


def table(evidence: RunEvidence) -> Table | None:
    """Different n-grams of the answers to all prompts, before and after; None without texts of both."""
    before, after = evidence.samples_before, evidence.samples_after
    if (
        before is None
        or after is None
        or before.prompts != after.prompts
        or not any(map(any, [*before.texts, *after.texts]))
    ):
        return None
    found = across_prompts(before.texts, after.texts)
    names = [
        ("distinct/1", "Distinct-1", "different of all words"),
        *((f"distinct/{n}", f"Distinct-{n}", f"different of all runs of {n} words") for n in range(2, 6)),
        ("distinct", "Mean of the five", "falls where answers grow longer"),
        ("ead", "Adjusted mean (EAD)", "over what as many even draws would show; hardly falls with length"),
    ]
    rows = tuple(
        (name, old.number(), new.number(), change.number(signed=True))
        for key, name, _ in names
        for old, new, change in [found[key]]
    )
    title = f"Variety across {len(before.prompts)} prompts"
    return Table(("", "Before", "After", "Change"), rows, title, tuple(note for *_, note in names))


def charts(evidence: RunEvidence, marks: dict[int, str]) -> list[Chart]:
    """Mass, entropies and log π of held-out responses, and the variety of answers."""
    evaluations = lines(evidence, "eval")
    tops = dict.fromkeys(key.rpartition("/")[0] for line in evaluations for key in line if key.split("/")[0] in AXES)
    wanted = [(top, AXES[what][0].format(k=k), AXES[what][1]) for top in tops for what, _, k in [top.partition("/")]]
    wanted.append(("logp", "Log-probability of held-out responses", "log π per token, nats"))
    made = []
    for top, title, axis in wanted:
        curves = [Curve(f"{top}/chosen", "chosen", kind="eval"), Curve(f"{top}/rejected", "rejected", ORANGE, "eval")]
        made.append(lined(evidence.history, title, axis, curves, marks=marks))
    for kind, title in (("eval", "Variety across prompts"), ("round", "Variety across prompts, round by round")):
        curves = [Curve("distinct", "distinct-1 to 5, mean", kind=kind), Curve("ead", "adjusted (EAD)", ORANGE, kind)]
        made.append(
            lined(evidence.history, title, "different n-grams, share", curves, marks=marks if kind == "eval" else None)
        )
    return [chart for chart in made if chart is not None]

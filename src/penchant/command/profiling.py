"""`penchant evaluate DATA --profile`: what the preferences of a data set go with, beside a judge's on the same pairs where one is
given. The counting is in evaluation/profile.py."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from penchant.errors import Refusal
from penchant.words import figure, json_text, plain

if TYPE_CHECKING:
    from penchant.evaluation.comparisons import Comparison
    from penchant.evaluation.profile import Profile
    from penchant.rewards.base import Comparer, Judge


def show(data: str, judge: str | None, as_json: bool) -> int:
    """Prints the profiles; always 0, for a profile is no verdict."""
    from penchant.evaluation.profile import agreement, by_labels, profile
    from penchant.feedback import open_source
    from penchant.rewards import load_judge
    from penchant.running.judging import alone

    source = open_source(data, bad_rows="drop")
    if source.kind != "pairs":
        raise Refusal(
            f"{source.name} holds {source.kind}; a profile is of pairs, which have a chosen and a rejected response."
        )
    rows = list(source)
    labelled = by_labels(rows)
    found, failed = [profile(labelled, "labels")], 0
    if judge is not None:
        who = alone(load_judge(judge))
        judged = by(who, labelled)
        failed = len(labelled) - len(judged)
        found.append(profile(judged, who.name))
    alike = agreement(found[0].vector, found[1].vector) if len(found) > 1 else None
    if as_json:
        told = {one.agent: {"n": one.n, "scores": {k: asdict(v) for k, v in one.scores.items()}} for one in found}
        print(json_text(strict({"profiles": told, "agreement": alike and asdict(alike), "failed": failed}), indent=1))
        return 0
    print("\n".join(lines(source.name, found)))
    if alike is not None:
        said = ", ".join(f"{name} {figure(x, '.2f')}" for name, x in asdict(alike).items() if name != "factors")
        print(f"\nagreement over {alike.factors} factors: {said}; {failed} pairs could not be judged")
    return 0


def by(judge: Judge | Comparer, comparisons: Sequence[Comparison]) -> list[Comparison]:
    """The same pairs as this judge prefers; what it cannot judge is left out."""
    from penchant.rewards.base import Comparer, Context
    from penchant.rewards.compare import both_ways

    contexts = [Context(c.prompt) for c in comparisons]
    a, b = [c.text_a for c in comparisons], [c.text_b for c in comparisons]
    if isinstance(judge, Comparer):
        said = both_ways(judge, contexts, a, b).tolist()
    else:
        gap = (judge(contexts, a).total.double() - judge(contexts, b).total.double()).tolist()
        said = [x if math.isnan(x) else 0.5 + 0.5 * ((x > 0) - (x < 0)) for x in gap]
    return [replace(c, p=p, judge=judge.name) for c, p in zip(comparisons, said, strict=True) if not math.isnan(p)]


def lines(name: str, found: Sequence[Profile]) -> list[str]:
    """A table: a row per factor, the largest of the first agent on top."""
    first = found[0]
    order = sorted(first.scores, key=lambda f: -abs(first.vector[f]) if math.isfinite(first.vector[f]) else 1.0)
    heads = [f"{plain(one.agent, 40)} (n = {one.n:,})" for one in found]
    rows = [["τ of", *heads, "labels, log-odds, others held"]]
    for factor in order:
        cells = []
        for one in found:
            score = one.scores[factor]
            cells.append("–" if score.tau is None else score.tau.number(signed=True) + (" *" if score.sure else ""))
        partial = first.scores[factor].partial
        rows.append([factor, *cells, "–" if partial is None else partial.number(signed=True)])
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    table = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
    return [
        f"{plain(name)}: what its preferences go with",
        "",
        *table,
        "",
        "* no chance, although many factors were looked at",
    ]


def strict(value: Any) -> Any:
    """JSON has no infinities: what is not a finite number is null."""
    if isinstance(value, dict):
        return {k: strict(v) for k, v in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value

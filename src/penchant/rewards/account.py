"""What judging came to: failures and cost, of a judge and of every judge inside it. It asks nobody."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from penchant.rewards.base import Comparer, Judge
from penchant.rewards.combine import Weighable
from penchant.rewards.compare import ByScore, WinAgainst, WinRate
from penchant.rewards.endpoint import Endpoint
from penchant.rewards.failures import Failing


def parts(judge: Judge | Comparer) -> Iterator[Judge | Comparer]:
    """The judges that a judge is made of: itself, where it is made of none."""
    if isinstance(judge, WinRate | WinAgainst):
        yield from parts(judge.comparer)
    elif isinstance(judge, ByScore):
        yield from parts(judge.judge)
    elif isinstance(judge, Weighable) and judge.terms[0][1] is not judge:
        for _, term in judge.terms:
            yield from parts(term)
    else:
        yield judge


def failures(judge: Judge | Comparer) -> list[str]:
    """What failed, a line for each judge that counts its failures and has some."""
    return [str(part.failures) for part in parts(judge) if isinstance(part, Failing) and part.failures.count]


def why(judge: Judge | Comparer) -> str:
    """What is known of a judge's failures, its parts' included."""
    return "; ".join(failures(judge)) or "call it on one prompt and response by hand to see why."


def endpoints(judge: Judge | Comparer | None) -> list[Endpoint]:
    """The endpoints among a judge's parts that were asked something."""
    found = [] if judge is None else [part for part in parts(judge) if isinstance(part, Endpoint)]
    return [one for one in found if one.spent.asked or one.spent.kept or one.failures.count]


def spent(judge: Judge | Comparer | None) -> dict[str, dict[str, Any]]:
    """What was asked of endpoints so far, and how often that failed, by the judge's name."""
    return {one.name: {**one.spent.to_json(), "failed": one.failures.count} for one in endpoints(judge)}

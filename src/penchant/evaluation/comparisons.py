"""What comparisons of answers say: win rates, whether a judge keeps its word when places are swapped, and arena battles.
Lengths are held against wins in length_control.py, several models against each other in tournament.py."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from penchant.errors import Refusal
from penchant.evaluation.evidence import SampleEvidence
from penchant.evaluation.statistics import RESAMPLES, Estimate, mean, share
from penchant.words import brief, plain


@dataclass(frozen=True)
class Comparison:
    """One judgement of two answers to one prompt."""

    prompt: str
    """Its id or text. Intervals draw prompts, since comparisons of one prompt are not independent."""
    a: str
    """Who gave the first answer: the one that is evaluated."""
    b: str
    """Who gave the second: the one it is held against."""
    p: float
    """Preference for a in [0, 1]: 1 where it won, 0 where it lost, ½ for a tie; a judge's probability between."""
    text_a: str = ""
    text_b: str = ""
    judge: str = ""

    def __post_init__(self) -> None:
        if not 0 <= self.p <= 1:
            raise Refusal(
                f"the preference in a comparison of {plain(self.a, 40)!r} with {plain(self.b, 40)!r} is {brief(self.p)}; "
                "it must be a number in [0, 1]. Leave out what could not be judged, and count it."
            )

    @property
    def swapped(self) -> Comparison:
        """The same judgement told from b's side."""
        return replace(self, a=self.b, b=self.a, p=1 - self.p, text_a=self.text_b, text_b=self.text_a)


@dataclass(frozen=True)
class WinRate:
    """How often the evaluated one is preferred, as shares (AlpacaEval prints 100 times as much)."""

    mean: Estimate
    """The mean preference, with a bootstrap by prompt."""
    wilson: Estimate
    """The same with Wilson's interval: not empty where everything was won or lost. Of soft preferences it is too wide."""
    discrete: Estimate
    """The share of wins, ties ½: a preference counts by its side of ½ alone. Wilson's interval."""
    standard_error: float
    """sd(p) / √n with n − 1 below, AlpacaEval's, which takes every comparison for itself. Not a number for n = 1."""
    wins: int
    losses: int
    ties: int

    @property
    def n(self) -> int:
        return self.wins + self.losses + self.ties


def side(p: float) -> float:
    """A preference as a verdict: 1, 0, or ½ for a tie."""
    return 1.0 if p > 0.5 else 0.0 if p < 0.5 else 0.5


def win_rate(comparisons: Sequence[Comparison], *, resamples: int = RESAMPLES) -> WinRate:
    """The win rate of a over b (AlpacaEval's `get_winrate`: the mean preference; discrete, of verdicts; sem). Raises
    Refusal where nothing was compared, or not always the same two."""
    the_two(comparisons)
    p, prompts = [c.p for c in comparisons], [c.prompt for c in comparisons]
    verdicts = [side(x) for x in p]
    return WinRate(
        mean=mean(p, prompts, resamples=resamples),
        wilson=share(p, prompts),
        discrete=share(verdicts, prompts),
        standard_error=standard_error(p),
        wins=verdicts.count(1.0),
        losses=verdicts.count(0.0),
        ties=verdicts.count(0.5),
    )


def standard_error(values: Sequence[float]) -> float:
    """sd / √n with n − 1 below; not a number for a single value."""
    n = len(values)
    middle = math.fsum(values) / n
    return math.sqrt(math.fsum((x - middle) ** 2 for x in values) / (n - 1) / n) if n > 1 else math.nan


def the_two(comparisons: Sequence[Comparison]) -> tuple[str, str]:
    """Who is compared with whom in all of these."""
    found = dict.fromkeys((c.a, c.b) for c in comparisons)
    if len(found) != 1:
        said = "; ".join(f"{plain(a, 40)!r} with {plain(b, 40)!r}" for a, b in list(found)[:3]) or "nobody"
        raise Refusal(
            f"a win rate is of one against one other, but these {len(comparisons)} comparisons are of {said}"
            f"{' and more' if len(found) > 3 else ''}. Take one pair at a time, or rate all with a tournament."
        )
    return next(iter(found))


def after_against_before(before: SampleEvidence, after: SampleEvidence) -> list[Comparison]:
    """The k-th answer after against the k-th before, prompt by prompt: the higher score of the judge wins, equal scores are
    a tie; answers that could not be judged both times are left out."""
    out = []
    for i, (old, new) in enumerate(zip(before.scores or [], after.scores or [], strict=False)):
        for k, (x, y) in enumerate(zip(old, new, strict=False)):
            if x is not None and y is not None:
                p = side(0.5 + (y > x) - (y < x))
                texts = (after.texts[i][k], before.texts[i][k])
                out.append(Comparison(f"prompt {i + 1}", "after", "before", p, *texts, judge=after.judge or ""))
    return out


@dataclass(frozen=True)
class Positions:
    """What a judge does when the places of two answers are swapped."""

    consistent: Estimate
    """Share of pairs that get the same verdict (a, b or a tie) in both orders (Zheng et al. 2023, Table 2)."""
    first: Estimate
    """Share whose verdict moves towards whoever stands first; with `second` and `consistent` it makes 1."""
    second: Estimate
    preference: Estimate
    """Mean preference for the first place over both orders: ½ without a liking for a place."""
    failed: int
    """Pairs left out because a judgement was missing in either order."""

    @property
    def biased(self) -> bool:
        """The preference for a place is surely not ½."""
        return not self.preference.low <= 0.5 <= self.preference.high


def positions(
    straight: Sequence[float | None],
    swapped: Sequence[float | None],
    groups: Sequence[Hashable] | None = None,
    *,
    resamples: int = RESAMPLES,
) -> Positions:
    """`straight[i]`: preference for a where a stands first; `swapped[i]`: preference for a (still a) where b stands first;
    None or NaN where judging failed. `groups`: the prompts."""
    if not len(straight) == len(swapped) == len(straight if groups is None else groups):
        raise Refusal(f"{len(straight)} verdicts in one order and {len(swapped)} in the other: every pair needs both.")
    names = list(range(len(straight))) if groups is None else list(groups)
    both = [
        (x, y, name)
        for x, y, name in zip(straight, swapped, names, strict=True)
        if x is not None and y is not None and not math.isnan(x) and not math.isnan(y)
    ]
    if not both:
        raise Refusal(f"none of {len(straight)} pairs was judged in both orders, so nothing can be said of places.")
    for x, y, _ in both:
        if not (0 <= x <= 1 and 0 <= y <= 1):
            raise Refusal(f"a preference is {x:g} in one order and {y:g} in the other; both must lie in [0, 1].")
    by = [name for *_, name in both]
    moved = [side(x) - side(y) for x, y, _ in both]
    return Positions(
        consistent=share([float(m == 0) for m in moved], by),
        first=share([float(m > 0) for m in moved], by),
        second=share([float(m < 0) for m in moved], by),
        preference=mean([(x + 1 - y) / 2 for x, y, _ in both], by, resamples=resamples),
        failed=len(straight) - len(both),
    )


MUCH = 3
"""Battles that "much better" counts for."""

_VERDICTS = {"A>>B": (1.0, MUCH), "A>B": (1.0, 1), "A=B": (0.5, 1), "B>A": (0.0, 1), "B>>A": (0.0, MUCH)}
_VERDICTS |= {"B=A": (0.5, 1), "A<B": (0.0, 1), "A<<B": (0.0, MUCH), "B<A": (1.0, 1), "B<<A": (1.0, MUCH)}


def battles(baseline_first: str | None, model_first: str | None) -> list[float] | None:
    """Arena-Hard's battles of one prompt from the verdicts of both orders, of A (who stood first) and B: 1 where the
    model won, ½ a tie, three battles for >> or <<. The order with the model first comes first. None where either verdict
    is missing: the prompt is left out."""
    if baseline_first is None or model_first is None:
        return None
    for verdict in (baseline_first, model_first):
        if verdict not in _VERDICTS:
            raise Refusal(f"the verdict {brief(verdict)} is none of {', '.join(_VERDICTS)}.")
    (lost, times), (won, count) = _VERDICTS[baseline_first], _VERDICTS[model_first]
    return [won] * count + [1 - lost] * times


@dataclass(frozen=True)
class ArenaScore:
    """Arena-Hard's score: the mean over battles."""

    score: Estimate
    """95 %, drawn by prompt."""
    published: Estimate
    """The interval as Arena-Hard prints it: 100 draws of single battles, 5th to 95th percentile. It takes the three
    battles of one strong verdict for independent."""
    failed: int
    """Prompts left out because a verdict was missing."""


def arena_score(verdicts: Sequence[tuple[str | None, str | None]], prompts: Sequence[Hashable] | None = None) -> ArenaScore:
    """`verdicts`: of each prompt (baseline first, model first), as `battles` reads them."""
    found = [battles(*both) for both in verdicts]
    names: Sequence[Hashable] = range(len(verdicts)) if prompts is None else prompts
    fought = [(x, name) for some, name in zip(found, names, strict=True) for x in some or []]
    if not fought:
        raise Refusal(f"none of {len(verdicts)} prompts was judged in both orders, so there is no score.")
    scores, by = [x for x, _ in fought], [name for _, name in fought]
    return ArenaScore(mean(scores, by), _published(scores), sum(some is None for some in found))


def _published(scores: Sequence[float]) -> Estimate:
    values = np.asarray(scores)
    picks = np.random.default_rng(0).integers(len(values), size=(100, len(values)))
    low, high = np.quantile(values[picks].mean(1), [0.05, 0.95])
    return Estimate(float(values.mean()), float(low), float(high), len(values))

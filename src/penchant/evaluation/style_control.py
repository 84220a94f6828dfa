"""Scores with the style of answers held equal: a Bradley-Terry fit with length and markdown beside the models, as Arena-Hard
has it. Length alone, against one baseline, is held equal in length_control.py; what one judge likes is in rewards."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.special import expit

from penchant.errors import Refusal
from penchant.evaluation.comparisons import Comparison
from penchant.evaluation.logistic import Floats, fit
from penchant.evaluation.statistics import LEVEL, Estimate, percentiles
from penchant.words import plain

Feature = Literal["length", "headers", "lists", "bold"]
FEATURES: tuple[Feature, ...] = ("length", "headers", "lists", "bold")

_BLOCK = re.compile("```([^`]*)```")
_HEADER = re.compile(r"^#{1,6}\s", re.MULTILINE)
# The published patterns begin with ^\s*, which counts the same and takes quadratic time on empty lines.
_LIST = re.compile(r"^[^\S\n]*(?:\d+\.|[-*+])\s", re.MULTILINE)
_BOLD = re.compile(r"\*\*[^*\n]+\*\*")
_BOLD_TOO = re.compile(r"__[^_\n]+__")


@dataclass(frozen=True)
class Style:
    """How one answer is written."""

    length: float
    """In tokens where known (Arena-Hard counts those of one tokenizer for all models), else in characters."""
    headers: int = 0
    lists: int = 0
    """Items of lists, numbered or not."""
    bold: int = 0

    def __post_init__(self) -> None:
        if not all(math.isfinite(x) and x >= 0 for x in (self.length, self.headers, self.lists, self.bold)):
            raise Refusal(f"{self} holds what is no count; all four must be finite and at least 0.")


def style(text: str, length: float | None = None) -> Style:
    """Counts what Arena-Hard's `count_markdown_elements` counts, outside of code blocks; `length` as given, or characters.
    As there, what stood in a code block is taken out wherever it stands in the text."""
    size = len(text) if length is None else length
    for block in _BLOCK.findall(text):
        text = text.replace(block, "")
    bold = len(_BOLD.findall(text)) + len(_BOLD_TOO.findall(text))
    return Style(size, len(_HEADER.findall(text)), len(_LIST.findall(text)), bold)


def marked(text: str) -> bool:
    """Whether a text has headers, list items or bold."""
    found = style(text)
    return bool(found.headers or found.lists or found.bold)


def difference(a: Style, b: Style) -> tuple[float, float, float, float]:
    """(l_a − l_b) / (l_a + l_b) of the lengths, 0 where both are empty; (d_a − d_b) / (d_a + d_b + 1) of the others, where d
    is the count over length + 1."""
    both = a.length + b.length
    out = [(a.length - b.length) / both if both else 0.0]
    for x, y in ((a.headers, b.headers), (a.lists, b.lists), (a.bold, b.bold)):
        d, e = x / (a.length + 1), y / (b.length + 1)
        out.append((d - e) / (d + e + 1))
    return out[0], out[1], out[2], out[3]


@dataclass(frozen=True)
class StyleScore:
    """One model's probability of winning against the baseline, three times."""

    name: str
    raw: Estimate
    """Without control: σ(θ) of the same fit without style; against the baseline alone it is the mean preference."""
    no_difference: Estimate
    """With both answers written alike: every style difference 0. Told from the other side it is 1 less this."""
    published: Estimate
    """As Arena-Hard prints it: its features have their mean taken off, so this is at the *mean* style difference of the
    table, whoever it favours, and equals `no_difference` only where that is 0."""


@dataclass(frozen=True)
class StyleControl:
    """logit P(a preferred) = θ_a − θ_b + Σ γ_k x_k / sd_k        Bradley-Terry with covariates; Arena-Hard v2"""

    baseline: str
    """Whose θ is 0."""
    scores: tuple[StyleScore, ...]
    """The most probable winner with no difference first."""
    effects: dict[Feature, Estimate]
    """γ: log-odds of one standard deviation more of a feature. A feature that never differs is not among them."""
    mean_difference: dict[Feature, float]
    """Of the table, in standard deviations: where `published` is read off."""
    lost: float
    """Share of draws in which the likelihood had no maximum; above 2.5 % intervals are not known."""


def style_controlled(
    comparisons: Sequence[Comparison],
    baseline: str,
    *,
    features: Sequence[Feature] = FEATURES,
    styles: Sequence[tuple[Style, Style]] | None = None,
    resamples: int = 1000,
) -> StyleControl:
    """Scores of all models against the baseline, unpenalised and to convergence (Arena-Hard stops after 50 iterations and
    prints the median of 100 draws).

    comparisons: one row a battle, so that a strong verdict stands as often as it counts. features: what is controlled for.
    styles: (of a, of b), row by row; read from the texts where None. Intervals draw prompts; the standard deviations and
    means of the features stay those of the table. Raises Refusal where there is no text or no maximum."""
    wrong = [f for f in features if f not in FEATURES]
    if wrong or not features or len(set(features)) != len(features):
        raise Refusal(f"features are {list(features)!r}; take some of {', '.join(FEATURES)}, each once.")
    places, columns = _models(comparisons, baseline)
    x = _differences(comparisons, styles)[:, [FEATURES.index(f) for f in features]]
    sd = x.std(axis=0, ddof=1) if len(x) > 1 else np.zeros(x.shape[1])
    used = sd > 1e-12
    names: list[Feature] = [f for f, some in zip(features, used, strict=True) if some]
    x = x[:, used] / sd[used]
    p = np.array([c.p for c in comparisons])
    prompts: dict[str, int] = {}
    index = np.array([prompts.setdefault(c.prompt, len(prompts)) for c in comparisons])
    count, k = len(prompts), len(places)

    weights = np.ones((1, len(p)))
    if resamples and count > 1:
        picks = np.random.default_rng(0).integers(count, size=(resamples, count))
        times = np.stack([np.bincount(pick, minlength=count) for pick in picks]).astype(np.float64)
        weights = np.concatenate([weights, times[:, index]])
    plainly = fit(columns, p, weights).coefficients
    found = fit(np.concatenate([columns, x], 1), p, weights).coefficients
    if np.isnan(found[0]).any() or np.isnan(plainly[0]).any():
        raise Refusal(
            f"in these {len(p)} battles models and style ({', '.join(names) or 'none of which differs'}) tell all wins from all "
            "losses, or each other, so the likelihood has no maximum; take more battles, or control for less."
        )
    drawn = len(weights) - 1
    known = 1 + np.flatnonzero(np.isfinite((found.sum(1) + plainly.sum(1))[1:]))  # where both have a maximum
    lost = 1 - len(known) / drawn if drawn else 0.0

    def estimate(draws: Floats, n: int) -> Estimate:
        some = draws[known]
        ends = (-math.inf, math.inf)
        if len(some) and lost <= (1 - LEVEL) / 2:
            ends = percentiles(float(draws[0]), some, count)
        return Estimate(float(draws[0]), *ends, n)

    mean = x.mean(axis=0)
    shift = found[:, k:] @ mean
    scores = []
    for name, i in places.items():
        n = int(np.count_nonzero(columns[:, i]))
        three = (expit(plainly[:, i]), expit(found[:, i]), expit(found[:, i] + shift))
        scores.append(StyleScore(name, *(estimate(draws, n) for draws in three)))
    return StyleControl(
        baseline=baseline,
        scores=tuple(sorted(scores, key=lambda s: -s.no_difference.value)),
        effects={f: estimate(found[:, k + i], len(p)) for i, f in enumerate(names)},
        mean_difference={f: float(m) for f, m in zip(names, mean, strict=True)},
        lost=lost,
    )


def _models(comparisons: Sequence[Comparison], baseline: str) -> tuple[dict[str, int], Floats]:
    """The column of every model but the baseline, and +1 where it is a, −1 where it is b."""
    same = next((c.a for c in comparisons if c.a == c.b), None)
    if same is not None:
        raise Refusal(f"{plain(same, 60)!r} is compared with itself, which says nothing of its strength.")
    known = dict.fromkeys(name for c in comparisons for name in (c.a, c.b))
    if baseline not in known:
        raise Refusal(f"the baseline {plain(baseline, 60)!r} is in none of {len(comparisons)} comparisons.")
    places = {name: i for i, name in enumerate(name for name in known if name != baseline)}
    columns = np.zeros((len(comparisons), len(places)))
    for row, c in enumerate(comparisons):
        for name, sign in ((c.a, 1.0), (c.b, -1.0)):
            if name != baseline:
                columns[row, places[name]] = sign
    return places, columns


def _differences(comparisons: Sequence[Comparison], styles: Sequence[tuple[Style, Style]] | None) -> Floats:
    if styles is None:
        if not any(c.text_a or c.text_b for c in comparisons):
            raise Refusal("these comparisons hold no texts, so their style is not known; give styles.")
        styles = [(style(c.text_a), style(c.text_b)) for c in comparisons]
    if len(styles) != len(comparisons):
        raise Refusal(f"{len(styles)} pairs of styles were given for {len(comparisons)} comparisons.")
    return np.array([difference(a, b) for a, b in styles], dtype=np.float64)

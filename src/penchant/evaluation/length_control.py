"""Win rates with the length of answers held equal: AlpacaEval 2's published fit, and the same model by plain maximum
likelihood. The two are different estimates with different names, and which one a number is always stands beside it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy.special import expit

from penchant.errors import Refusal
from penchant.evaluation.comparisons import Comparison, standard_error, the_two
from penchant.evaluation.logistic import Floats, fit
from penchant.evaluation.statistics import Estimate, percentiles
from penchant.words import plain

Form = Literal["maximum likelihood", "published"]
FOLDS = 5
GAMED_WEIGHT = 0.2 / 2
"""What a row of a gamed baseline weighs: λ = 0.2, and there are two such baselines (a concise and a verbose one)."""


@dataclass(frozen=True)
class Gamed:
    """How the judge took the baseline told to be concise or verbose, against itself: a row that the fit should call even."""

    prompt: str
    p: float
    """Preference for the gamed baseline, in [0, 1]."""
    shorter: float
    """(length of the baseline − length of the gamed one) / sd: already divided by their own standard deviation."""


@dataclass(frozen=True)
class LengthControlled:
    """logit P(a preferred) = θ tanh((length_b − length_a) / sd) + φ difficulty + ψ        Dubois et al. 2024, eq. 2"""

    form: Form
    value: Estimate
    """mean σ(φ difficulty + ψ): the win rate as if all lengths were equal. The interval draws prompts and fits again; of
    the published form only where `resamples` is asked for, since it takes a cross-validation for every draw."""
    raw: float
    """The win rate as it is."""
    theta: float
    phi: float
    """0 where no difficulty was given."""
    psi: float
    sd: float
    """Of length_b − length_a in characters, n − 1 below."""
    standard_error: float
    """sd / √n of the fitted preferences, as AlpacaEval prints it: 0 without difficulty, since it knows nothing of the fit."""
    lost: float = 0.0
    """Share of draws in which the likelihood had no maximum; above 2.5 % the interval is not known."""

    @property
    def extreme(self) -> bool:
        """AlpacaEval's warning that the fit may have failed, `far_from`."""
        return far_from(self.raw, self.value.value)

    @property
    def warning(self) -> str:
        """The sentence to show beside an extreme result, or nothing."""
        said = f"{100 * self.value.value:.1f} % with lengths held equal is far from {100 * self.raw:.1f} % as they are"
        return f"{said}: the fit may have failed, or length decides nearly everything." if self.extreme else ""


def far_from(raw: float, controlled: float) -> bool:
    """Whether the controlled rate lies further from the raw one than 10 points and than a quarter of the way to 0 or 1."""
    low = min(raw - raw / 4, raw - 0.1)
    high = max(raw + (1 - raw) / 4, raw + 0.1)
    return controlled < low or controlled > high


def length_controlled(
    comparisons: Sequence[Comparison],
    form: Form = "maximum likelihood",
    *,
    difficulty: Mapping[str, float] | None = None,
    gamed: Sequence[Gamed] = (),
    lengths: Sequence[tuple[float, float]] | None = None,
    resamples: int | None = None,
) -> LengthControlled:
    """The length-controlled win rate of a over b.

    "maximum likelihood": unpenalised; the fitted mean equals the raw mean. "published": `length_controlled_v1` as AlpacaEval
    2 computes it, an L1 penalty (liblinear, no intercept) of a strength found by cross-validation over 5 folds of rows;
    on small tables it can come out at exactly 50 %. A model against itself gets 50 % by construction in both.

    difficulty: by prompt, where known. gamed: rows of the gamed baselines, where known. lengths: (of a, of b) in characters;
    taken from the texts where None. resamples: draws for the interval; 2,000, or none for the published form, where None.
    Raises Refusal where there are no texts, too few rows, or no maximum."""
    a, b = the_two(comparisons)
    p = np.array([c.p for c in comparisons])
    raw, n = float(p.mean()), len(p)
    shorter = _shorter(comparisons, lengths)
    sd = float(shorter.std(ddof=1)) if n > 1 else 0.0
    if a == b:
        even = Estimate(0.5, 0.5, 0.5, n)
        return LengthControlled(form, even, raw, 0.0, 0.0, 0.0, sd, 0.0)
    hard = _difficulties([c.prompt for c in comparisons], difficulty)
    beside = _difficulties([g.prompt for g in gamed], difficulty)
    places: dict[str, int] = {}
    index = np.array([places.setdefault(c.prompt, len(places)) for c in comparisons])
    table = _Table(p, shorter, hard, index, np.array([g.p for g in gamed]), np.array([g.shorter for g in gamed]), beside)
    if form == "published":
        if n < FOLDS:
            raise Refusal(f"the published fit needs at least {FOLDS} comparisons for its {FOLDS} folds; there are {n}.")
        theta, phi, psi = _published(table)
        count = resamples or 0
    else:
        found = _maximum(table, np.ones((1, n)))[0]
        if np.isnan(found).any():
            raise Refusal(
                f"lengths (and difficulty) tell every win of {plain(a, 40)!r} from every loss in these {n} comparisons, so "
                "the likelihood has no maximum; take more comparisons, or the published fit, which is penalised."
            )
        theta, phi, psi = map(float, found)
        count = 2000 if resamples is None else resamples
    preferred = expit(phi * hard + psi)
    value = float(preferred.mean())
    draws = _draws(table, form, count)
    known = draws[np.isfinite(draws)]
    lost = 1 - len(known) / len(draws) if len(draws) else 0.0
    units = int(index.max()) + 1
    low, high = percentiles(value, known, units) if len(known) and lost <= 0.025 else (-math.inf, math.inf)
    return LengthControlled(
        form, Estimate(value, low, high, n), raw, theta, phi, psi, sd, standard_error(preferred.tolist()), lost
    )


def between(m: LengthControlled, b: LengthControlled, difficulty: Sequence[float] = (0.0,)) -> float:
    """The length-controlled win rate of m over b, both fitted against the same baseline: mean over prompts of
    σ(ψ_m − ψ_b + (φ_m − φ_b) difficulty). `difficulty`: of every prompt; not needed where φ is 0."""
    if m.form != b.form:
        raise Refusal(f"one fit is by {m.form}, the other by {b.form}; they cannot be held against each other.")
    return float(expit(m.psi - b.psi + (m.phi - b.phi) * np.asarray(difficulty, dtype=np.float64)).mean())


@dataclass(frozen=True)
class _Table:
    p: Floats
    shorter: Floats
    hard: Floats
    index: np.ndarray
    """Which prompt a row answers, from 0."""
    gamed_p: Floats
    gamed_shorter: Floats
    gamed_hard: Floats


def _shorter(comparisons: Sequence[Comparison], lengths: Sequence[tuple[float, float]] | None) -> Floats:
    """length_b − length_a."""
    if lengths is None:
        if not any(c.text_a or c.text_b for c in comparisons):
            raise Refusal("these comparisons hold no texts, so their lengths are not known; give lengths.")
        lengths = [(len(c.text_a), len(c.text_b)) for c in comparisons]
    if len(lengths) != len(comparisons):
        raise Refusal(f"{len(lengths)} pairs of lengths were given for {len(comparisons)} comparisons.")
    both = np.asarray(lengths, dtype=np.float64).reshape(-1, 2)
    if not np.isfinite(both).all():
        raise Refusal("a length is not a finite number.")
    return both[:, 1] - both[:, 0]


def _difficulties(prompts: Sequence[str], difficulty: Mapping[str, float] | None) -> Floats:
    if difficulty is None:
        return np.zeros(len(prompts))
    unknown = [prompt for prompt in prompts if prompt not in difficulty]
    if unknown:
        raise Refusal(
            f"the prompt {plain(unknown[0], 60)!r} has no difficulty ({len(unknown)} have none); give one for each."
        )
    return np.array([difficulty[prompt] for prompt in prompts], dtype=np.float64)


def _feature(shorter: Floats, weights: Floats) -> Floats:
    """tanh(difference / sd), [draws, n]; sd with n − 1 below, of each draw's rows; 0 where lengths do not differ."""
    n = weights.sum(1, keepdims=True)
    middle = (weights @ shorter)[:, None] / n
    variance = (weights * (shorter - middle) ** 2).sum(1, keepdims=True) / np.maximum(n - 1, 1)
    sd = np.sqrt(variance)
    return np.where(sd > 0, np.tanh(shorter / np.where(sd > 0, sd, 1.0)), 0.0)


def _maximum(table: _Table, weights: Floats) -> Floats:
    """(θ, φ, ψ) by maximum likelihood, [draws, 3], each row counted as `weights` say."""
    draws, n, extra = len(weights), len(table.p), len(table.gamed_p)
    x = np.zeros((draws, n + extra, 3))
    x[:, :n, 0], x[:, :n, 1], x[:, :n, 2] = _feature(table.shorter, weights), table.hard, 1.0
    x[:, n:, 0], x[:, n:, 1] = np.tanh(table.gamed_shorter), table.gamed_hard
    used = [bool(np.any(x[:, :, 0])), bool(np.any(x[:, :, 1])), True]
    every = np.concatenate([weights, np.full((draws, extra), GAMED_WEIGHT)], 1)
    found = fit(x[:, :, used], np.concatenate([table.p, table.gamed_p]), every).coefficients
    out = np.zeros((draws, 3))
    out[:, used] = found
    return out


def _draws(table: _Table, form: Form, count: int) -> Floats:
    """The controlled win rate of `count` draws of as many prompts; NaN where a draw has no maximum."""
    prompts = int(table.index.max()) + 1
    if not count or prompts < 2:
        return np.zeros(0)
    picks = np.random.default_rng(0).integers(prompts, size=(count, prompts))
    times = np.stack([np.bincount(pick, minlength=prompts) for pick in picks]).astype(np.float64)
    weights = times[:, table.index]
    if form == "maximum likelihood":
        size = max(1, 2_000_000 // (3 * len(table.p)))
        found = np.concatenate([_maximum(table, weights[i : i + size]) for i in range(0, count, size)])
    else:
        rows = [np.repeat(np.arange(len(table.p)), w.astype(int)) for w in weights]
        found = np.array([_published(_picked(table, row)) for row in rows])
    preferred = expit(found[:, 1:2] * table.hard + found[:, 2:])
    return (weights * preferred).sum(1) / weights.sum(1)


def _picked(table: _Table, rows: np.ndarray) -> _Table:
    parts = (table.p[rows], table.shorter[rows], table.hard[rows], table.index[rows])
    return _Table(*parts, table.gamed_p, table.gamed_shorter, table.gamed_hard)


def _published(table: _Table) -> tuple[float, float, float]:
    """(θ, φ, ψ) of the published fit: a row with preference p stands twice, as a win that weighs p and a loss that weighs
    1 − p; 10 strengths from 1e-4 to 1e4 are tried on 5 folds, whose two halves of a row stay together, by log loss."""
    import sklearn
    from sklearn.linear_model import LogisticRegressionCV
    from sklearn.metrics import make_scorer
    from sklearn.model_selection import GroupKFold

    extra, n = len(table.gamed_p), len(table.p)
    feature = _feature(table.shorter, np.ones((1, n)))[0]
    x = np.zeros((extra + n, 3))  # the gamed rows come first, and the columns in the order of the published formula
    x[:extra, 0], x[:extra, 1] = np.tanh(table.gamed_shorter), table.gamed_hard
    x[extra:, 0], x[extra:, 1], x[extra:, 2] = feature, table.hard, 1.0
    used = [True, bool(np.any(x[:, 1])), True]
    p = np.concatenate([table.gamed_p, table.p])
    weight = np.concatenate([np.full(extra, GAMED_WEIGHT), np.ones(n)])
    share, weight = np.concatenate([p, 1 - p]), np.concatenate([weight, weight])
    label = np.repeat([1, 0], extra + n)

    with sklearn.config_context(enable_metadata_routing=True):
        scorer: Any = make_scorer(_log_loss, response_method="predict_proba", greater_is_better=False)
        chosen: dict[str, Any] = {"l1_ratios": (1.0,), "use_legacy_attributes": False}  # typed too narrowly by its stubs
        model: Any = LogisticRegressionCV(
            solver="liblinear",
            fit_intercept=False,
            cv=GroupKFold(n_splits=FOLDS),
            scoring=scorer.set_score_request(share=True, weight=True),
            random_state=123,
            **chosen,
        )
        model.set_fit_request(sample_weight=True)
        model.fit(
            np.concatenate([x, x])[:, used],
            label,
            sample_weight=share * weight,
            groups=np.tile(np.arange(extra + n), 2),
            share=share,
            weight=weight,
        )
    out = np.zeros(3)
    out[used] = model.coef_[0]
    return float(out[0]), float(out[1]), float(out[2])


def _log_loss(label: Floats, said: Floats, share: Floats, weight: Floats) -> float:
    """The published score of a fold: each doubled row gives the log loss of its whole soft label, weighted, over the
    number of rows."""
    p = np.where(label == 1, share, 1 - share)
    said = np.clip(said, 1e-15, 1 - 1e-15)
    return float(-np.mean(weight * (p * np.log(said) + (1 - p) * np.log(1 - said))))

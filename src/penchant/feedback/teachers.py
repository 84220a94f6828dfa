"""Scripted teachers: annotators made of a true reward, who err, tire and shrug in known ways. They see rewards alone; which
segments they are asked about is chosen elsewhere, and nothing is learnt here."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from penchant.errors import Refusal
from penchant.feedback.trajectories import Trajectory

Floats = NDArray[np.float64]
Segments = Sequence[Trajectory] | NDArray[np.floating[Any]]
"""Segments that know their rewards, or the rewards alone, [segments, steps], where all are of one length."""


@dataclass(frozen=True)
class Answers:
    """What a teacher said of n pairs of segments."""

    first: Floats
    """P(the first is preferred), [n]: 1 or 0 as it decided, 1/2 where it holds both for equal, NaN where it skipped the pair."""

    def __len__(self) -> int:
        return len(self.first)

    @property
    def skipped(self) -> NDArray[np.bool_]:
        return np.isnan(self.first)

    @property
    def equal(self) -> NDArray[np.bool_]:
        return self.first == 0.5

    def rows(self, pairs: Sequence[tuple[Any, Any]], prompts: Sequence[str] | str = "") -> list[dict[str, Any]]:
        """The pairs as rows of feedback {prompt, chosen, rejected, strength}; what was skipped gives none. A tie keeps the
        order it was asked in, with strength 1/2. pairs: what stands for the two segments, names or trajectories."""
        asked = [prompts] * len(self) if isinstance(prompts, str) else prompts
        if not len(pairs) == len(asked) == len(self):
            raise Refusal(
                f"{len(pairs)} pairs and {len(asked)} prompts for {len(self)} answers; there must be one for each."
            )
        return [
            {
                "prompt": prompt,
                "chosen": a if p >= 0.5 else b,
                "rejected": b if p >= 0.5 else a,
                "strength": max(p, 1 - p),
            }
            for p, (a, b), prompt in zip(self.first.tolist(), pairs, asked, strict=True)
            if not math.isnan(p)
        ]


@dataclass(frozen=True)
class Teacher:
    """B-Pref's teacher (Lee et al. 2021, arXiv 2111.03026, section 3; rll-research/BPref, reward_model.py), in the order of its
    code. With R the sum of a segment's rewards, and D = Σ_h γ^(last − h) r_h what a teacher who forgets has of it:

        skip      no answer unless max(R₁, R₂) > thr_skip
        decide    P(first) = σ(β (D₁ − D₂)); at β = ∞ the first unless D₁ < D₂
        mistake   the other one with probability ε
        equal     1/2, whatever was decided, where |R₁ − R₂| < thr_equal

    The thresholds are shares of a usual segment's return (`usual`). The default is the oracle."""

    beta: float = math.inf
    """β, how rational it is; above 0. ∞ always takes the better."""
    gamma: float = 1.0
    """γ in (0, 1]: how much of a reward is left one step later; the last step counts whole."""
    mistake: float = 0.0
    """ε, the share of answers turned round, from 0 to 1."""
    skip: float = 0.0
    """Segments whose returns are both at most this share of the usual are not compared; 0 compares all."""
    equal: float = 0.0
    """Returns nearer than this share of the usual are equal; 0 knows no ties."""
    thresholds: Literal["paper", "code"] = "paper"
    """paper: share × usual. code: share² × usual, as the authors' code has it after its first session, where the caller
    multiplies by the share and the setter multiplies again."""

    def __post_init__(self) -> None:
        for name, low, high in (("mistake", 0, 1), ("skip", 0, math.inf), ("equal", 0, math.inf)):
            if not low <= getattr(self, name) <= high or math.isinf(getattr(self, name)):
                raise Refusal(f"{name}={getattr(self, name)}: it must be a number from {low} to {high}.")
        if not self.beta > 0:
            raise Refusal(f"beta={self.beta}: it must be above 0; math.inf is a teacher who always takes the better.")
        if not 0 < self.gamma <= 1:
            raise Refusal(f"gamma={self.gamma}: it must lie above 0 and at most at 1.")
        if self.thresholds not in ("paper", "code"):
            raise Refusal(f"thresholds={self.thresholds!r}: it must be 'paper' or 'code'.")

    def threshold(self, share: float, usual: float | None) -> float:
        """The return that a share stands for."""
        if usual is None or not usual > 0:
            raise Refusal(
                f"the usual return of a segment is {usual}: skip and equal are shares of it, so it must be given, and above 0; "
                "where rewards are negative, raise them all by a constant before the teacher sees them."
            )
        return share * usual if self.thresholds == "paper" else share * share * usual

    def wins(self, first: Floats, second: Floats) -> Floats:
        """P(it decides for the first), before mistakes, from the two D."""
        if math.isinf(self.beta):
            return np.where(first < second, 0.0, 1.0)
        return 1 / (1 + np.exp(-np.clip(self.beta * (first - second), -700, 700)))

    def answer(
        self, first: Segments, second: Segments, *, usual: float | None = None,
        seed: int = 0,
    ) -> Answers:  # fmt: skip
        """What it says of n pairs: the first and the second segment of each. usual:
        what a segment earns as a rule, read where skip or equal is above 0. Teachers of one seed draw the same numbers for the
        same pair."""
        (r1, in1), (r2, in2) = earned(first), earned(second)
        if len(r1) != len(r2):
            raise Refusal(f"{len(r1)} first and {len(r2)} second segments; a pair has one of each.")
        draws = np.random.default_rng(seed).random((2, len(r1)))
        whole = r1.sum(-1), r2.sum(-1)
        p = np.where(draws[0] < self.wins(self.recalled(r1, in1), self.recalled(r2, in2)), 1.0, 0.0)
        p = np.where(draws[1] < self.mistake, 1 - p, p)
        if self.equal:
            p[np.abs(whole[0] - whole[1]) < self.threshold(self.equal, usual)] = 0.5
        if self.skip:
            p[~(np.maximum(*whole) > self.threshold(self.skip, usual))] = np.nan
        return Answers(p)

    def recalled(self, rewards: Floats, steps: NDArray[np.bool_]) -> Floats:
        """D = Σ_h γ^(last − h) r_h, [n]."""
        ago = steps[:, ::-1].cumsum(-1)[:, ::-1] - steps  # steps of the segment that came after this one
        return (rewards * np.float64(self.gamma) ** ago).sum(-1)


TEACHERS: Mapping[str, Teacher] = MappingProxyType(
    {
        "oracle": Teacher(),
        "stochastic": Teacher(beta=1.0),
        "myopic": Teacher(gamma=0.9),
        "skip": Teacher(skip=0.1),
        "equal": Teacher(equal=0.1),
        "mistake": Teacher(mistake=0.1),
    }
)
"""The six of the paper, with its values."""


def earned(segments: Segments) -> tuple[Floats, NDArray[np.bool_]]:
    """Rewards [n, longest] in float64, 0 after a segment's end, and where its steps are. Refuses a segment without rewards."""
    if isinstance(segments, np.ndarray):
        rewards = segments.astype(np.float64)
        if rewards.ndim != 2 or not rewards.shape[1] or not bool(np.isfinite(rewards).all()):
            raise Refusal(f"rewards {list(rewards.shape)}: they must be finite numbers, [segments, steps].")
        return rewards, np.ones(rewards.shape, dtype=bool)
    lengths = np.array([len(one) for one in segments], dtype=np.int64)
    steps = np.arange(lengths.max(initial=0))[None] < lengths[:, None]
    rewards = np.zeros(steps.shape)
    told: list[NDArray[np.floating[Any]]] = [np.zeros(0)]
    for i, one in enumerate(segments):
        if one.rewards is None:
            raise Refusal(f"segment {i + 1} of {len(segments)} has no rewards, and a scripted teacher decides by them.")
        told.append(one.rewards)
    rewards[steps] = np.concatenate(told)
    return rewards, steps


def usual(returns: Sequence[float], steps: int, longest: int, recent: int = 10) -> float:
    """What a segment of so many steps earns as a rule: the mean of the last `recent` true returns of whole episodes × steps /
    longest, where `longest` is what an episode may last (M of the paper; the code keeps the last 10 returns)."""
    if not len(returns) or not 1 <= steps <= longest or recent < 1:
        raise Refusal(
            f"{len(returns)} returns, segments of {steps} steps of at most {longest}, the last {recent}: there must be at least "
            "one return, and segments no longer than an episode."
        )
    return math.fsum(returns[-recent:]) / len(returns[-recent:]) * steps / longest

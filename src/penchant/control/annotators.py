"""Simulated people who compare segments of a finite process by a score of their own: by what was earned, or by how far from the
best it was. They know the true reward; what is learned from them does not."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from penchant.control.regret import Exact, PartialReturn, Segments, SegmentScore, SummedAdvantage, segments_of
from penchant.control.tabular import FiniteMDP
from penchant.errors import Refusal
from penchant.feedback.teachers import Answers
from penchant.feedback.trajectories import Trajectory


@dataclass(frozen=True, eq=False)
class SegmentTeacher:
    """Prefers the segment of the higher score. Scores are rounded first, so that what rounding in the solution of a process tells
    apart is a tie (as in Knox et al.'s code, arXiv 2206.02231). Answers are those of the other scripted teachers, and become rows
    of feedback by their `rows`."""

    score: SegmentScore
    weights: Float[Tensor, "f"]
    """The true reward's."""
    beta: float = math.inf
    """β, how rational it is: P(first) = σ(β (score₁ − score₂)); ∞ always takes the better and holds equals for equal. The authors'
    two papers have β = 10 and 1."""
    decimals: int = 2
    """What scores are rounded to."""

    def __post_init__(self) -> None:
        if not self.beta > 0:
            raise Refusal(f"beta={self.beta}: it must be above 0; math.inf is a teacher who always takes the better.")

    def answer(
        self, first: Segments | Sequence[Trajectory], second: Segments | Sequence[Trajectory], seed: int = 0
    ) -> Answers:
        """What it says of n pairs: the first and the second segment of each. Teachers of one seed draw the same numbers for the
        same pair."""
        if len(first) != len(second):
            raise Refusal(f"{len(first)} first and {len(second)} second segments; a pair has one of each.")
        a, b = (torch.round(self.worth(one), decimals=self.decimals) for one in (first, second))
        if math.isinf(self.beta):
            return Answers(((torch.sign(a - b) + 1) / 2).numpy())
        draws = torch.rand(len(a), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        return Answers((draws < torch.sigmoid(self.beta * (a - b))).double().numpy())

    def worth(self, segments: Segments | Sequence[Trajectory]) -> Float[Tensor, "n"]:
        """The score of each, before rounding."""
        return self.score(
            self.weights.double(), segments if isinstance(segments, Segments) else segments_of(segments)
        ).detach()


def return_teacher(mdp: FiniteMDP, weights: Float[Tensor, "f"], beta: float = math.inf) -> SegmentTeacher:
    """Prefers what earned more."""
    return SegmentTeacher(PartialReturn(mdp), weights, beta)


def regret_teacher(mdp: FiniteMDP, weights: Float[Tensor, "f"], beta: float = math.inf) -> SegmentTeacher:
    """Prefers what was nearer to the best, −Σ V* − Q*, in any process."""
    return SegmentTeacher(SummedAdvantage(Exact(mdp)), weights, beta)

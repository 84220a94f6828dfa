"""Rewards learned from comparisons of segments in a finite process, by what segments earned or by how much worse than the best they
were. The best is found exactly, so that only the model of preferences differs; nothing here asks people."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from penchant.control.tabular import TIE, FiniteMDP, certain, improved, optimal, successor_features
from penchant.errors import Refusal
from penchant.feedback.trajectories import Trajectory
from penchant.objectives.base import Paired
from penchant.objectives.bradley_terry import BradleyTerry
from penchant.rewards.learned import loss_of as pair_loss
from penchant.rewards.segments import change_in_return, mixed_value, partial_return, summed_advantage


@dataclass(frozen=True, eq=False)
class Segments:
    """n segments of at most `steps` steps in a finite process, by number of state and action. A step in a terminal state earns
    nothing and has no regret. Raises Refusal where shapes do not agree."""

    states: Int[Tensor, "n steps+1"]
    """Where each step begins, and after a segment's last step where it ends."""
    actions: Int[Tensor, "n steps"]
    mask: Bool[Tensor, "n steps"]
    """True for the steps of a segment, which stand first."""

    def __post_init__(self) -> None:
        rows, steps = self.actions.shape
        if self.states.shape != (rows, steps + 1) or self.mask.shape != (rows, steps):
            raise Refusal(
                f"states {list(self.states.shape)}, actions {[rows, steps]} and mask {list(self.mask.shape)}: they must be "
                "[n, steps + 1], [n, steps] and [n, steps]."
            )
        if bool((self.mask[:, 1:] & ~self.mask[:, :-1]).any()):
            raise Refusal("mask: a step follows one that is masked; a segment's steps stand first.")

    def __len__(self) -> int:
        return len(self.actions)

    def __getitem__(self, rows: Tensor | slice) -> Segments:
        return Segments(self.states[rows], self.actions[rows], self.mask[rows])

    @property
    def lengths(self) -> Int[Tensor, "n"]:
        return self.mask.sum(-1)

    @property
    def first(self) -> Int[Tensor, "n"]:
        """The states in which they begin."""
        return self.states[:, 0]

    @property
    def last(self) -> Int[Tensor, "n"]:
        """The states in which they end."""
        return self.states.gather(1, self.lengths[:, None])[:, 0]


def segments_of(behaviour: Sequence[Trajectory]) -> Segments:
    """Segments from trajectories whose observations are numbers of states and whose actions are numbers, [T, 1] each. Raises
    Refusal for others, and where nobody kept what was seen last."""
    longest = max((len(one) for one in behaviour), default=0)
    states = torch.zeros(len(behaviour), longest + 1, dtype=torch.int64)
    actions, mask = states[:, 1:].clone(), torch.zeros(len(behaviour), longest, dtype=torch.bool)
    for i, one in enumerate(behaviour):
        if one.final is None:
            raise Refusal(f"segment {i + 1}: what was seen after its last action was not kept; its value is needed.")
        for x in (one.observations, one.actions):
            if x.shape[1] != 1 or bool((x != x.round()).any()) or bool((x < 0).any()):
                raise Refusal(
                    f"segment {i + 1}: states and actions of a finite process are whole numbers, one for each step."
                )
        steps = len(one)
        states[i, :steps] = torch.from_numpy(one.observations[:, 0]).long()
        states[i, steps] = int(one.final[0])
        actions[i, :steps] = torch.from_numpy(one.actions[:, 0]).long()
        mask[i, :steps] = True
    return Segments(states, actions, mask)


def counts(mdp: FiniteMDP, segments: Segments, discount: float = 1.0) -> Float[Tensor, "n f"]:
    """Σ discount^t φ_t: what a segment collected of each feature. Its partial return is this times w."""
    begin, end = segments.states[:, :-1], segments.states[:, 1:]
    by_move = mdp.features.ndim == 4
    each = mdp.features[begin, segments.actions, end] if by_move else mdp.features[begin, segments.actions]
    return partial_return(each.movedim(-1, 0), segments.mask, discount).T


COMPARED = BradleyTerry(strength=True)
"""−p log σ(score(a) − score(b)) − (1 − p) log σ(score(b) − score(a)), p the strength."""


class Values(Protocol):
    """V* and Q* of reward weights, or what stands for them, with gradient."""

    def states(self, weights: Float[Tensor, "f"]) -> Float[Tensor, "s"]: ...

    def actions(self, weights: Float[Tensor, "f"]) -> Float[Tensor, "s a"]: ...


@dataclass(eq=False)
class Exact:
    """V* and Q* of the weights themselves. Their gradient is ψ of the greedy policy (the envelope theorem): V* is not held fixed
    while the weights move. Each search begins at the policy that was best before, whose ψ is kept."""

    mdp: FiniteMDP
    _choice: Tensor | None = field(default=None, repr=False)
    _psi: tuple[Tensor, Tensor] | None = field(default=None, repr=False)

    def states(self, weights: Float[Tensor, "f"]) -> Float[Tensor, "s"]:
        return self._found(weights.detach())[0] @ weights

    def actions(self, weights: Float[Tensor, "f"]) -> Float[Tensor, "s a"]:
        return self._found(weights.detach())[1] @ weights

    def _found(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        if self._choice is None or self._psi is None or self.mdp.gamma == 1:
            return self._take(optimal(self.mdp, weights).actions.argmax(-1))
        psi = self._psi
        while True:
            rounding = 1e-12 * float((psi[1].abs() @ weights.abs()).max())
            better = improved(psi[1] @ weights, self._choice, rounding)
            if bool((better == self._choice).all()):
                return psi
            psi = self._take(better)

    def _take(self, choice: Tensor) -> tuple[Tensor, Tensor]:
        if self._psi is None or self._choice is None or bool((choice != self._choice).any()):
            self._choice, self._psi = choice, successor_features(self.mdp, certain(choice, self.mdp.sizes[1]))
        return self._psi


@dataclass(frozen=True, eq=False)
class Candidates:
    """V* and Q* as the best of a fixed set of policies, mixed by softmax: Knox et al.'s approximation, with their temperature."""

    of_states: Float[Tensor, "policies s f"]
    """ψ(s) of each."""
    of_actions: Float[Tensor, "policies s a f"]
    """ψ(s, a) of each."""
    temperature: float = 0.001
    """In units of reward."""

    def states(self, weights: Float[Tensor, "f"]) -> Float[Tensor, "s"]:
        return mixed_value(self.of_states @ weights, self.temperature)

    def actions(self, weights: Float[Tensor, "f"]) -> Float[Tensor, "s a"]:
        return mixed_value(self.of_actions @ weights, self.temperature)


def candidates(
    mdp: FiniteMDP, rewards: Sequence[Tensor], without: Tensor | None = None, temperature: float = 0.001
) -> Candidates:
    """The greedy policies of these reward weights, each kept once. without: true weights, whose own greedy policy is left out, so
    that what is to be found is not among what is given. Raises Refusal where none is left."""
    of = lambda w: successor_features(mdp, optimal(mdp, w).policy)  # noqa: E731
    kept: list[tuple[Tensor, Tensor]] = []
    away = [] if without is None else [of(without)]
    for w in rewards:
        one = of(w)
        if not any(_same(one[0], other[0]) for other in (*kept, *away)):
            kept.append(one)
    if not kept:
        raise Refusal(
            f"none of {len(rewards)} reward vectors has another best policy than the true one; draw more of them."
        )
    return Candidates(torch.stack([x for x, _ in kept]), torch.stack([x for _, x in kept]), temperature)


def _same(a: Tensor, b: Tensor) -> bool:
    return bool((a - b).abs().max() <= TIE * a.abs().max())


Worth = Callable[[Float[Tensor, "f"]], Float[Tensor, "n"]]
"""(weights) → what each of n segments is worth, with gradient; the larger, the sooner preferred."""


class SegmentScore:
    """A model of what people compare segments by."""

    def over(self, segments: Segments) -> Worth:
        """What these are worth as a function of the weights; what does not depend on the weights is counted once."""
        raise NotImplementedError(f"{type(self).__name__} does not say what a segment is worth.")

    def __call__(self, weights: Float[Tensor, "f"], segments: Segments) -> Float[Tensor, "n"]:
        return self.over(segments)(weights)


@dataclass(frozen=True, eq=False)
class PartialReturn(SegmentScore):
    """People prefer what earned more."""

    mdp: FiniteMDP
    discount: float = 1.0

    def over(self, segments: Segments) -> Worth:
        met = counts(self.mdp, segments, self.discount)
        return lambda weights: met @ weights


@dataclass(frozen=True, eq=False)
class ChangeInReturn(SegmentScore):
    """People prefer what deviated less from the best, where moves are certain."""

    mdp: FiniteMDP
    values: Values
    discount: float = 1.0
    """Within the segment; 1 compares as the published code does, the process's own γ is exact."""
    weights: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """Of the return, of the last state's value and of the first's."""

    def over(self, segments: Segments) -> Worth:
        met, lengths = counts(self.mdp, segments, self.discount), segments.lengths

        def worth(weights: Tensor) -> Tensor:
            values = self.values.states(weights)
            ends = values[segments.first], values[segments.last]
            return change_in_return(met @ weights, *ends, lengths, self.discount, self.weights)

        return worth


@dataclass(frozen=True, eq=False)
class SummedAdvantage(SegmentScore):
    """People prefer what deviated less from the best, in any process."""

    values: Values

    def over(self, segments: Segments) -> Worth:
        states, actions = segments.states[:, :-1], segments.actions

        def worth(weights: Tensor) -> Tensor:
            best, taken = self.values.states(weights)[states], self.values.actions(weights)[states, actions]
            return summed_advantage(best, taken, segments.mask)

        return worth


@dataclass(frozen=True, eq=False)
class Comparisons:
    """n pairs of segments and what was said of them."""

    a: Segments
    b: Segments
    strength: Float[Tensor, "n"]
    """P(a ≻ b): 1, 0, or ½ for a tie."""

    def __len__(self) -> int:
        return len(self.strength)

    def __getitem__(self, rows: Tensor | slice) -> Comparisons:
        return Comparisons(self.a[rows], self.b[rows], self.strength[rows])

    @property
    def segments(self) -> Segments:
        """The first of every pair, then the second of every pair."""
        return Segments(*(torch.cat([getattr(self.a, k), getattr(self.b, k)]) for k in ("states", "actions", "mask")))

    def both_ways(self) -> Comparisons:
        """Every pair and the same pair swapped, as the authors train. A loss that reads strengths is the same on both."""
        swapped = Comparisons(self.b, self.a, 1 - self.strength)
        return Comparisons(self.segments, swapped.segments, torch.cat([self.strength, swapped.strength]))


@dataclass(frozen=True, eq=False)
class Learned:
    """What a fit came to."""

    weights: Float[Tensor, "f"]
    """Those of the lowest loss on the way."""
    loss: float
    """Their mean loss, in nats a pair."""
    losses: tuple[float, ...]
    """The mean loss before each step."""


def loss_of(
    score: SegmentScore, said: Comparisons, objective: Paired = COMPARED
) -> Callable[[Float[Tensor, "f"]], Float[Tensor, ""]]:
    """(weights) → the mean loss of the comparisons."""
    worth = score.over(said.segments)

    def loss(weights: Tensor) -> Tensor:
        a, b = worth(weights).split(len(said))
        return pair_loss(objective, a, b, said.strength).mean()

    return loss


def learn(
    score: SegmentScore,
    said: Comparisons,
    start: Float[Tensor, "f"],
    *,
    steps: int = 5000,
    rate: float = 0.5,
    objective: Paired = COMPARED,
) -> Learned:
    """Reward weights fitted to comparisons by full-batch Adam from `start`; those of the lowest loss are kept. The defaults are the
    authors'. Raises Refusal where a loss is not finite."""
    weights = start.detach().double().clone().requires_grad_()
    optimiser = torch.optim.Adam([weights], lr=rate)
    loss_at, best, kept, losses = loss_of(score, said, objective), math.inf, weights.detach().clone(), []
    for _ in range(steps):
        optimiser.zero_grad()
        loss = loss_at(weights)
        losses.append(loss.item())
        if not math.isfinite(losses[-1]):
            raise Refusal(f"the loss is {losses[-1]} after {len(losses) - 1} steps; take a smaller rate than {rate}.")
        if losses[-1] < best:
            best, kept = losses[-1], weights.detach().clone()
        loss.backward()
        optimiser.step()
    return Learned(kept, best, tuple(losses))

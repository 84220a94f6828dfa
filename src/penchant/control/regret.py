"""Rewards learned from comparisons of segments in a finite process, by what segments earned or by how much worse than the best they
were. The best is found exactly, so that only the model of preferences differs; nothing here asks people."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from penchant.control.tabular import TIE, FiniteMDP, optimal, successor_features
from penchant.errors import Refusal
from penchant.feedback.trajectories import Trajectory
from penchant.objectives.base import Paired
from penchant.objectives.bradley_terry import BradleyTerry
from penchant.objectives.scored import Pairs, Scored
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
    return torch.stack([partial_return(each[..., k], segments.mask, discount) for k in range(each.shape[-1])], -1)


COMPARED = BradleyTerry(strength=True)
"""−p log σ(score(a) − score(b)) − (1 − p) log σ(score(b) − score(a)), p the strength."""
Values = Callable[[Float[Tensor, "f"]], tuple[Float[Tensor, "s"], Float[Tensor, "s a"]]]
"""(weights) → V*, Q* or what stands for them under these weights, with gradient."""
SegmentScore = Callable[[Float[Tensor, "f"], Segments], Float[Tensor, "n"]]
"""(weights, segments) → what each is worth, with gradient; the larger, the sooner preferred."""


@dataclass(eq=False)
class Exact:
    """V* and Q* of the weights themselves. Their gradient is ψ of the greedy policy (the envelope theorem), so V* is not held fixed
    while the weights move. It begins each search where the last one ended."""

    mdp: FiniteMDP
    _begin: Tensor | None = None

    def __call__(self, weights: Float[Tensor, "f"]) -> tuple[Float[Tensor, "s"], Float[Tensor, "s a"]]:
        found = optimal(self.mdp, weights.detach(), self._begin)
        self._begin = torch.nn.functional.one_hot(found.actions.argmax(-1), self.mdp.sizes[1]).double()
        of_states, of_actions = successor_features(self.mdp, self._begin)
        return of_states @ weights, of_actions @ weights


@dataclass(frozen=True, eq=False)
class Candidates:
    """V* and Q* as the best of a fixed set of policies, mixed by softmax: Knox et al.'s approximation, with their temperature."""

    of_states: Float[Tensor, "policies s f"]
    """ψ(s) of each."""
    of_actions: Float[Tensor, "policies s a f"]
    """ψ(s, a) of each."""
    temperature: float = 0.001
    """In units of reward."""

    def __call__(self, weights: Float[Tensor, "f"]) -> tuple[Float[Tensor, "s"], Float[Tensor, "s a"]]:
        mixed = lambda psi: mixed_value(psi @ weights, self.temperature)  # noqa: E731
        return mixed(self.of_states), mixed(self.of_actions)


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


@dataclass(frozen=True, eq=False)
class PartialReturn:
    """People prefer what earned more."""

    mdp: FiniteMDP
    discount: float = 1.0

    def __call__(self, weights: Float[Tensor, "f"], segments: Segments) -> Float[Tensor, "n"]:
        return counts(self.mdp, segments, self.discount) @ weights


@dataclass(frozen=True, eq=False)
class ChangeInReturn:
    """People prefer what deviated less from the best, where moves are certain."""

    mdp: FiniteMDP
    values: Values
    discount: float = 1.0
    """Within the segment; 1 compares as the published code does, the process's own γ is exact."""
    weights: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """Of the return, of the last state's value and of the first's."""

    def __call__(self, weights: Float[Tensor, "f"], segments: Segments) -> Float[Tensor, "n"]:
        of_states, _ = self.values(weights)
        earned = counts(self.mdp, segments, self.discount) @ weights
        ends = of_states[segments.first], of_states[segments.last]
        return change_in_return(earned, *ends, segments.lengths, self.discount, self.weights)


@dataclass(frozen=True, eq=False)
class SummedAdvantage:
    """People prefer what deviated less from the best, in any process."""

    values: Values

    def __call__(self, weights: Float[Tensor, "f"], segments: Segments) -> Float[Tensor, "n"]:
        of_states, of_actions = self.values(weights)
        states = segments.states[:, :-1]
        return summed_advantage(of_states[states], of_actions[states, segments.actions], segments.mask)


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

    def both_ways(self) -> Comparisons:
        """Every pair and the same pair swapped, as the authors train. A loss that reads strengths is the same on both."""
        join = lambda x, y: Segments(*(torch.cat([getattr(x, k), getattr(y, k)]) for k in ("states", "actions", "mask")))  # noqa: E731
        return Comparisons(join(self.a, self.b), join(self.b, self.a), torch.cat([self.strength, 1 - self.strength]))


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
    score: SegmentScore, weights: Float[Tensor, "f"], said: Comparisons, objective: Paired = COMPARED
) -> Float[Tensor, ""]:
    """The mean loss of the comparisons, each segment's score its single step."""
    one = lambda segments: (x := score(weights, segments)[:, None], torch.ones_like(x, dtype=torch.bool))  # noqa: E731
    return objective(Pairs(Scored(*one(said.a)), Scored(*one(said.b)), strength=said.strength)).mean()


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
    best, kept, losses = math.inf, weights.detach().clone(), []
    for _ in range(steps):
        optimiser.zero_grad()
        loss = loss_of(score, weights, said, objective)
        losses.append(loss.item())
        if not math.isfinite(losses[-1]):
            raise Refusal(f"the loss is {losses[-1]} after {len(losses) - 1} steps; take a smaller rate than {rate}.")
        if losses[-1] < best:
            best, kept = losses[-1], weights.detach().clone()
        loss.backward()
        optimiser.step()
    return Learned(kept, best, tuple(losses))

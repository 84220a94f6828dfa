"""Finite decision processes solved exactly: optimal values, successor features, and how near to the best a behaviour comes. Nothing
here learns or samples."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from penchant.errors import Refusal

NEAR = 0.9
"""A behaviour with at least this scaled return is near optimal (Knox et al. 2022, arXiv 2206.02231)."""
TIE = 1e-10
"""Actions whose values differ by no more than this share of the largest value are equally good."""
SWEEPS = 10_000
"""Value iterations that look for a first policy in a process without discount."""
ENDLESS = "gamma = 1, and some behaviour earns or loses without end: there are no values. Use a gamma below 1."


@dataclass(frozen=True, eq=False)
class FiniteMDP:
    """s states, a actions, rewards linear in f features: r = features · w. All in float64. Nothing is earned and nothing changes in
    a terminal state, whatever its rows say. Raises Refusal where shapes do not agree or rows are no probabilities."""

    transitions: Float[Tensor, "s a s"]
    """P(s' | s, a)."""
    features: Float[Tensor, "s a f"] | Float[Tensor, "s a s f"]
    """φ(s, a), or φ(s, a, s') where what is earned depends on where one comes."""
    terminal: Bool[Tensor, "s"]
    """Where an episode ends. The value there is 0."""
    gamma: float
    """The discount, in [0, 1]. At 1 only what ends, or earns nothing in the long run, has a value."""
    starts: Float[Tensor, "s"] | None = None
    """How probably an episode starts in each state; all that are not terminal alike where not given."""

    def __post_init__(self) -> None:
        states, actions = self.transitions.shape[:2]
        if self.transitions.shape != (states, actions, states) or self.terminal.shape != (states,) or not states * actions:
            raise Refusal(
                f"transitions {list(self.transitions.shape)} and terminal {list(self.terminal.shape)}: they must be "
                "[states, actions, states] and [states]."
            )
        by_action, by_move = self.features.shape[:-1] == (states, actions), self.features.ndim == 4
        if not by_action and not (by_move and self.features.shape[:-1] == (states, actions, states)):
            raise Refusal(
                f"features {list(self.features.shape)}: they must be [{states}, {actions}, features] or [{states}, "
                f"{actions}, {states}, features]."
            )
        if not 0 <= self.gamma <= 1:
            raise Refusal(f"gamma = {self.gamma}: a discount lies in [0, 1].")
        there = self.terminal.bool()
        moves, told = self.transitions.double().clone(), self.features.double().clone()
        moves[there] = torch.eye(states, dtype=torch.float64)[there][:, None]
        told[there] = 0.0
        where = 1.0 - there.double() if self.starts is None else self.starts.double()
        where = where / where.sum() if self.starts is None and not bool(there.all()) else where
        for name, rows in (("transitions", moves), ("starts", where)):
            if not bool(((rows.sum(-1) - 1).abs() <= 1e-9).all()) or bool((rows < 0).any()):
                raise Refusal(f"{name}: not every row is of probabilities; they must be at least 0 and sum to 1.")
        if where.shape != (states,) or not bool(torch.isfinite(told).all()):
            raise Refusal(f"starts must be [{states}], and every feature finite.")
        for name, x in (("transitions", moves), ("features", told), ("terminal", there), ("starts", where)):
            object.__setattr__(self, name, x)

    @property
    def sizes(self) -> tuple[int, int, int]:
        """States, actions, features."""
        return self.features.shape[0], self.features.shape[1], self.features.shape[-1]

    @cached_property
    def expected(self) -> Float[Tensor, "s a f"]:
        """φ(s, a), the mean over where one comes."""
        if self.features.ndim == 3:
            return self.features
        return torch.einsum("ijk,ijkf->ijf", self.transitions, self.features)

    def told(self, features: Float[Tensor, "s a f"] | Float[Tensor, "s a s f"]) -> FiniteMDP:
        """The same process, its rewards told by other features."""
        return replace(self, features=features)

    def rewards(self, weights: Float[Tensor, "f"]) -> Float[Tensor, "s a"]:
        """r(s, a) = φ(s, a) · w."""
        return self.expected @ weights.to(self.expected)

    def at_start(self, values: Float[Tensor, "s"]) -> float:
        """The mean over starts."""
        return float(values @ torch.as_tensor(self.starts))


@dataclass(frozen=True, eq=False)
class Solution:
    """What is best in a process under one reward."""

    values: Float[Tensor, "s"]
    """V*(s)."""
    actions: Float[Tensor, "s a"]
    """Q*(s, a) = r(s, a) + γ Σ P(s' | s, a) V*(s')."""

    @property
    def advantages(self) -> Float[Tensor, "s a"]:
        """A* = Q* − V*, at most 0."""
        return self.actions - self.values[:, None]

    @property
    def policy(self) -> Float[Tensor, "s a"]:
        """The greedy policy, ties shared."""
        return greedy(self.actions)


def greedy(actions: Float[Tensor, "s a"]) -> Float[Tensor, "s a"]:
    """π(a | s), all weight on the best actions, shared alike by those that tie."""
    best = actions >= actions.amax(-1, keepdim=True) - TIE * actions.abs().max()
    return best.double() / best.double().sum(-1, keepdim=True)


def uniform(mdp: FiniteMDP) -> Float[Tensor, "s a"]:
    """Every action alike."""
    states, actions, _ = mdp.sizes
    return torch.full((states, actions), 1 / actions, dtype=torch.float64)


def successor_features(mdp: FiniteMDP, policy: Float[Tensor, "s a"]) -> tuple[Float[Tensor, "s f"], Float[Tensor, "s a f"]]:
    """ψ(s) = E[Σ γ^t φ_t | s, π] and ψ(s, a), what the last step before the end earns included; V_π = ψ · w for every w. Raises
    Refusal without discount where the policy need not end."""
    if mdp.gamma == 1 and not bool(ends(mdp, policy).all()):
        raise Refusal("gamma = 1, and this policy goes on for ever from some state: it has no value. Use a gamma below 1.")
    psi = _of_policy(mdp, policy, torch.einsum("ij,ijf->if", policy, mdp.expected))
    return psi, mdp.expected + mdp.gamma * torch.einsum("ijk,kf->ijf", mdp.transitions, psi)


def values_of(
    mdp: FiniteMDP, policy: Float[Tensor, "s a"], weights: Float[Tensor, "f"]
) -> tuple[Float[Tensor, "s"], Float[Tensor, "s a"]]:
    """V_π and Q_π under r = φ · w."""
    psi, of_actions = successor_features(mdp, policy)
    return psi @ weights.to(psi), of_actions @ weights.to(psi)


def optimal(mdp: FiniteMDP, weights: Float[Tensor, "f"], begin: Float[Tensor, "s a"] | None = None) -> Solution:
    """V* and Q* under r = φ · w, by policy iteration: exact but for rounding. begin: a policy to start from, which shortens the way
    where it is nearly best. Without discount value iteration comes first; raises Refusal where the values grow without end."""
    rewards = mdp.rewards(weights)
    if mdp.gamma == 1:
        values, settled = _iterated(mdp, rewards)
        actions = _actions(mdp, rewards, values)
        choice = actions.argmax(-1)
        if not _ends(mdp, choice):
            if settled:
                return Solution(values, actions)  # going round for nothing is among the best: no policy to evaluate
            raise Refusal(ENDLESS)
    else:
        choice = (rewards if begin is None else begin).argmax(-1)
    while True:
        values = _of_policy(mdp, certain(choice, mdp.sizes[1]), rewards.gather(1, choice[:, None]))[:, 0]
        actions = _actions(mdp, rewards, values)
        better = improved(actions, choice, 1e-13 * float(actions.abs().max()))
        if bool((better == choice).all()):
            return Solution(values, actions)
        choice = better
        if mdp.gamma == 1 and not _ends(mdp, choice):
            raise Refusal(ENDLESS)  # what improves on a policy that ends and does not itself end earns in every round


def improved(actions: Float[Tensor, "s a"], choice: Int[Tensor, "s"], within: float) -> Int[Tensor, "s"]:
    """The choice of an action in each state, changed to the best where that is better by more than `within`."""
    best = actions.max(-1)
    return torch.where(best.values - actions.gather(1, choice[:, None])[:, 0] > within, best.indices, choice)


def certain(choice: Int[Tensor, "s"], actions: int) -> Float[Tensor, "s a"]:
    """The policy that makes this choice."""
    return torch.nn.functional.one_hot(choice, actions).double()


def ends(mdp: FiniteMDP, policy: Float[Tensor, "s a"]) -> Bool[Tensor, "s"]:
    """From where an episode under the policy ends with probability 1: from where no state is reached that cannot end."""
    step = torch.einsum("ij,ijk->ik", policy, mdp.transitions) > 0
    may = _reaching(step, mdp.terminal)
    return ~_reaching(step, ~may)


def return_of(mdp: FiniteMDP, policy: Float[Tensor, "s a"], weights: Float[Tensor, "f"]) -> float:
    """The policy's value, the mean over starts."""
    return mdp.at_start(values_of(mdp, policy, weights)[0])


def scaled_return(mdp: FiniteMDP, policy: Float[Tensor, "s a"], weights: Float[Tensor, "f"]) -> float:
    """(V − V_uniform) / (V* − V_uniform) under r = φ · w, each the mean over starts: 1 is optimal, 0 as good as choosing at random.
    Raises Refusal where choosing at random is optimal."""
    by_chance = return_of(mdp, uniform(mdp), weights)
    best = mdp.at_start(optimal(mdp, weights).values)
    if best - by_chance <= TIE * max(abs(best), abs(by_chance)):
        raise Refusal("every behaviour is equally good under these rewards: a scaled return has no meaning.")
    return (return_of(mdp, policy, weights) - by_chance) / (best - by_chance)


def _reaching(step: Bool[Tensor, "s s"], goal: Bool[Tensor, "s"]) -> Bool[Tensor, "s"]:
    """From where the goal may be reached, the goal included."""
    reached = goal
    while bool((grown := reached | (step & reached).any(-1)).ne(reached).any()):
        reached = grown
    return reached


def _actions(mdp: FiniteMDP, rewards: Float[Tensor, "s a"], values: Float[Tensor, "s"]) -> Float[Tensor, "s a"]:
    return rewards + mdp.gamma * mdp.transitions @ values


def _of_policy(mdp: FiniteMDP, policy: Float[Tensor, "s a"], earned: Float[Tensor, "s f"]) -> Float[Tensor, "s f"]:
    """x = earned + γ P_π x with x = 0 where episodes have ended, solved; one step of refinement, since γ near 1 loses digits."""
    live = ~mdp.terminal
    step = torch.einsum("ij,ijk->ik", policy, mdp.transitions)[live][:, live]
    left = torch.eye(len(step), dtype=step.dtype) - mdp.gamma * step
    factors, pivots, _ = torch.linalg.lu_factor_ex(left)
    x = torch.linalg.lu_solve(factors, pivots, earned[live])
    x = x + torch.linalg.lu_solve(factors, pivots, earned[live] - left @ x)
    out = torch.zeros_like(earned)
    out[live] = x
    return out


def _ends(mdp: FiniteMDP, choice: Tensor) -> bool:
    return bool(ends(mdp, certain(choice, mdp.sizes[1])).all())


def _iterated(mdp: FiniteMDP, rewards: Float[Tensor, "s a"]) -> tuple[Float[Tensor, "s"], bool]:
    """Value iteration from 0, and whether nothing moved any more."""
    values = torch.zeros(len(rewards), dtype=torch.float64)
    for _ in range(SWEEPS):
        before, values = values, _actions(mdp, rewards, values).amax(-1)
        if float((values - before).abs().max()) <= 1e-14 * float(values.abs().max()):
            return values, True
    return values, False

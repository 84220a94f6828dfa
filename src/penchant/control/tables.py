"""Finite processes from tables as gymnasium's toy-text environments have them: P[state][action] = [(probability, next state,
reward, terminated), …]. It solves nothing, and without gymnasium it still reads tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from penchant.control.tabular import FiniteMDP
from penchant.errors import Refusal
from penchant.words import brief

Outcome = tuple[float, int, float, bool]
"""Probability, next state, reward, and whether the episode ends there."""
Table = Mapping[int, Mapping[int, Sequence[Outcome]]]


def of_table(table: Table, gamma: float, starts: Float[Tensor, "s"] | None = None) -> FiniteMDP:
    """The process of a table. Its states keep their numbers; where an episode may both end in a state and go on from it, all ends
    are one more state, the last. Its one feature is the reward, whose weight is 1: `told` gives it others. starts: how probably an
    episode starts in each state of the table. Raises Refusal for what is no table of probabilities."""
    states, actions = len(table), len(table[0]) if 0 in table else 0
    for s in range(states):
        if s not in table or set(table[s]) != set(range(actions)) or not actions:
            raise Refusal(f"state {s}: states must be 0, 1, … and each must have the same actions 0, 1, …")
    moves = [(s, a, *outcome) for s in range(states) for a in range(actions) for outcome in table[s][a]]
    for s, a, _, to, _, _ in moves:
        if not 0 <= to < states:
            raise Refusal(f"state {s}, action {a}: it leads to {to}, but states are 0 to {states - 1}.")
    ended = {to for _, _, p, to, _, over in moves if over and p > 0}
    mixed = bool(ended & {to for s, _, p, to, _, over in moves if not over and p > 0 and s not in ended})
    whole = states + mixed
    reach, earned = (
        torch.zeros(whole, actions, whole, dtype=torch.float64),
        torch.zeros(whole, actions, 1, dtype=torch.float64),
    )
    for s, a, p, to, reward, over in moves:
        reach[s, a, states if over and mixed else to] += p
        earned[s, a] += p * reward
    terminal = torch.zeros(whole, dtype=torch.bool)
    terminal[[states] if mixed else sorted(ended)] = True
    if starts is not None and mixed:
        starts = torch.cat([starts, torch.zeros(1, dtype=starts.dtype)])
    return FiniteMDP(reach, earned, terminal, gamma, starts)


def of_environment(environment: Any, gamma: float) -> FiniteMDP:
    """The process of a gymnasium environment that has a table: FrozenLake, CliffWalking, Taxi. environment: its id, or the
    environment. Episodes start as they do there; its limit of steps is not kept. Raises Refusal without gymnasium, and for
    environments without a table."""
    if isinstance(environment, str):
        library = _the_library()
        try:
            environment = library.make(environment)
        except library.error.Error as error:
            raise Refusal(f"{brief(environment)} is no environment that can be made: {brief(str(error), 200)}.") from error
    inner = environment.unwrapped
    table, starts = getattr(inner, "P", None), getattr(inner, "initial_state_distrib", None)
    if not isinstance(table, Mapping):
        raise Refusal(f"{brief(str(inner))} has no table of its moves; FrozenLake-v1, CliffWalking-v1 and Taxi have one.")
    return of_table(table, gamma, starts=None if starts is None else torch.as_tensor(starts, dtype=torch.float64))


def _the_library() -> Any:
    try:
        import gymnasium
    except ImportError:
        raise Refusal('environments need gymnasium: pip install "penchant[embodied]".') from None
    return gymnasium

"""What a segment of behaviour is worth by a model of how people compare: what it earned, or how much worse than the best it was.
Rewards and values come as numbers, from a table or from critics; nothing here learns them.

Each is a score: the larger, the sooner preferred, P(a ≻ b) = σ(score(a) − score(b)). Knox et al. 2022, arXiv 2206.02231."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def partial_return(
    rewards: Float[Tensor, "*kinds n steps"], mask: Bool[Tensor, "n steps"], discount: float = 1.0
) -> Float[Tensor, "*kinds n"]:
    """Σ discount^t r_t over each segment's own steps, which stand first, of each kind of reward. With a discount of 1, as in most
    published code, segments are compared by plain sums."""
    weight = discount ** torch.arange(rewards.shape[-1], dtype=rewards.dtype, device=rewards.device)
    return (torch.where(mask, rewards, 0.0) * weight).sum(-1)


def change_in_return(
    earned: Float[Tensor, "n"],
    start: Float[Tensor, "n"],
    end: Float[Tensor, "n"],
    lengths: Int[Tensor, "n"],
    discount: float = 1.0,
    weights: tuple[float, float, float] = (1.0, 1.0, 1.0),
) -> Float[Tensor, "n"]:
    """δ = w_r R + w_1 d^H V*(s_H) − w_0 V*(s_0), minus the regret where moves are certain.

    earned: R, the partial return with the same discount d; start, end: V* of the first and the last state, 0 where the episode
    ended; lengths: H, the number of steps; weights: (w_r, w_1, w_0), other than 1 where they were fitted to people. With d the
    process's own γ it is Σ d^t A*, which no shaping r + γ F(s') − F(s) changes; with d = 1 and γ < 1 that holds nearly. The
    authors' code discounts nothing within a segment, or the rewards alone."""
    of_return, of_end, of_start = weights
    return of_return * earned + of_end * discount ** lengths.to(end) * end - of_start * start


def summed_advantage(
    values: Float[Tensor, "n steps"], actions: Float[Tensor, "n steps"], mask: Bool[Tensor, "n steps"]
) -> Float[Tensor, "n"]:
    """Σ A*(s_t, a_t) = Σ Q*(s_t, a_t) − V*(s_t): minus the regret in any process, at most 0. Where moves are certain and γ = 1 it
    equals `change_in_return`; with chance it does not punish bad luck."""
    return torch.where(mask, actions - values, 0.0).sum(-1)


def mixed_value(each: Float[Tensor, "policies *n"], temperature: float) -> Float[Tensor, "*n"]:
    """Σ_π softmax_π(V_π / T) V_π: the largest value of several policies as T → 0, never above it, with a gradient in all. T is in
    units of reward."""
    return (torch.softmax(each / temperature, 0) * each).sum(0)

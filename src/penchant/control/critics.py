"""What soft actor-critic, implicit Q-learning and inverse preference learning share: critics, expectiles, slow copies, and how
advantages weigh imitation. Which targets critics follow, each of them says itself."""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from penchant.control.transitions import Transitions
from penchant.domains.policy.policy import MLP, ControlPolicy
from penchant.errors import Refusal


class Critics(nn.Module):
    """Q_k(o, a) by networks of their own; what they are asked for together is the smallest (Fujimoto et al. 2018, 1802.09477)."""

    def __init__(self, observed: int, acted: int, hidden: tuple[int, ...] = (256, 256), count: int = 2) -> None:
        super().__init__()
        self.each = nn.ModuleList(MLP(observed + acted, 1, hidden, "relu") for _ in range(count))

    def forward(
        self, observations: Float[Tensor, "*n observed"], actions: Float[Tensor, "*n acted"]
    ) -> Float[Tensor, "critics *n"]:
        given = torch.cat([observations, actions], -1)
        return torch.stack([network(given)[..., 0] for network in self.each])


def slow(model: nn.Module) -> nn.Module:
    """A copy that learns nothing by itself."""
    return deepcopy(model).requires_grad_(False)


@torch.no_grad()
def follow(target: nn.Module, model: nn.Module, tau: float) -> None:
    """target ← (1 − τ) target + τ model, for every parameter."""
    for mine, theirs in zip(target.parameters(), model.parameters(), strict=True):
        mine.lerp_(theirs, tau)


def expectile(gap: Float[Tensor, "*n"], tau: float) -> Float[Tensor, "*n"]:
    """|τ − 1(gap < 0)| gap², gap = target − prediction: at ½ half the square; towards 1 too low a prediction costs more, so that
    its minimum goes to the largest target (Kostrikov et al. 2021, arXiv 2110.06169, eq. 5)."""
    return torch.where(gap < 0, gap.new_tensor(1 - tau), gap.new_tensor(tau)) * gap**2


def advantage_weight(advantage: Float[Tensor, "*n"], temperature: float, most: float) -> Float[Tensor, "*n"]:
    """min(exp(A / temperature), most), without gradient: how much an action is imitated."""
    return (advantage.detach() / temperature).exp().clamp_max(most)


def contexts_of(rows: int, task: int = 0) -> Int[Tensor, "n two"]:
    """The contexts of so many steps in a policy's one task, from anywhere."""
    return torch.tensor([[task, -1]]).expand(rows, -1)


def imitation(policy: ControlPolicy, steps: Transitions) -> Float[Tensor, "n"]:
    """−log π(a | o) of each step."""
    told = policy(contexts_of(len(steps)), steps.observations[:, None], steps.actions[:, None])
    return -told["logp"][:, 0]


class Stepping:
    """A part that learns, by Adam."""

    def __init__(self, parameters: Iterable[nn.Parameter | Tensor], rate: float) -> None:
        self._moved = [p for p in parameters if p.requires_grad]
        self._adam = torch.optim.Adam(self._moved, lr=rate, fused=True)

    def __call__(self, loss: Float[Tensor, ""]) -> float:
        """One step of this part alone, whatever else the loss hangs on. What the loss was."""
        self._adam.zero_grad()
        loss.backward(inputs=self._moved)
        self._adam.step()
        return float(loss.detach())


def check_shares(discount: float, tau: float, rate: float) -> None:
    """Refuses what no learner here can do."""
    if not (0 <= discount < 1 and 0 < tau <= 1 and rate > 0):
        raise Refusal(
            f"discount={discount}, tau={tau}, rate={rate}: the discount lies in [0, 1), tau in (0, 1], the rate above 0."
        )

"""KTO as diffusion models use it: each picture is good or bad by itself, and what it is measured from is the mean gain of the
step's own pictures, not of pictures under another prompt."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from penchant.objectives.base import REFERENCE, Objective, Positive, State, recall
from penchant.objectives.scored import NOTHING, Labelled, Scored


@dataclass(frozen=True)
class DiffusionKTO(Objective):
    """λ (1 − U( ±β (u − q) )),  u = log π/π_ref, + good, − bad        Li et al. 2024, arXiv 2404.04465, eq. 8 as in its code

    q = max(0, mean of u over all responses of the step, on all machines), without gradient. The utility U is σ
    ("kahneman-tversky"), log σ ("loss-averse") or, with g = β (u − q), ∓log σ(−g) ("risk-seeking"), as the authors' code
    writes them. Their β multiplies errors' means: it is β κ here, without the factor ½ of Diffusion-DPO."""

    beta: Positive = 0.1
    """Scale of the log-ratio and of q: larger saturates sooner."""
    desirable: Positive = 1.0
    """λ of good responses."""
    undesirable: Positive = 1.0
    """λ of bad responses."""
    utility: Literal["kahneman-tversky", "loss-averse", "risk-seeking"] = "kahneman-tversky"
    """How gains and losses are felt."""

    data = Labelled
    unit = "response"
    needs = REFERENCE

    def reward(self, y: Scored) -> Float[Tensor, "n"]:
        return self.beta * y.ratio

    def __call__(self, batch: Labelled, state: State | None = None) -> Float[Tensor, "units"]:
        sign = torch.where(batch.label, 1.0, -1.0)
        gain = self.reward(batch.y) - self.beta * recall(self, state, "q")
        felt = {
            "kahneman-tversky": lambda: torch.sigmoid(sign * gain),
            "loss-averse": lambda: logsigmoid(sign * gain),
            "risk-seeking": lambda: -sign * logsigmoid(-gain),
        }[self.utility]()
        return torch.where(batch.label, self.desirable, self.undesirable) * (1 - felt)

    def init(self, levels: Mapping[str, int] = NOTHING) -> dict[str, Tensor]:
        return {"q": torch.tensor(0.0)}

    def statistics(self, batch: Labelled, state: State) -> dict[str, tuple[Tensor, Tensor]]:
        ratio = batch.y.detach().ratio
        return {"q": (ratio.sum(), torch.ones_like(ratio).sum())}

    def update(self, state: State, totals: Mapping[str, tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
        total, count = totals["q"]
        return {"q": (total / count.clamp(min=1)).clamp(min=0)}

"""Relative preference optimisation: each chosen response is contrasted with every rejected one of the step, whatever its prompt.
One of four methods called RPO; the others are `DPO() + w * NLL()`, RewardAwarePO and robust ones such as Consensus."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from penchant.objectives.base import REFERENCE, Objective, Positive, Share, State
from penchant.objectives.scored import Pairs, Scored


@dataclass(frozen=True)
class RelativePO(Objective):
    """-Σ_j ω_ij log σ( r_w,i − r_l,j ),  r = β log π/π_ref        Yin et al. 2024, arXiv 2402.10958 (RPO)

    j runs over all pairs of the step: its size is part of the method. ω_ii is `own`, the others of a row share the rest
    alike (the paper's diagonal weighting); `own` = 1/n weighs all n alike, and a pair that is alone in its step counts
    whole. The paper's other weighting goes by the likeness of the prompts' sentence embeddings, which needs a model besides
    policy and reference: it is left out."""

    beta: Positive = 0.1
    """Strength of the pull to the reference: larger stays closer."""
    own: Share = 0.8
    """The weight of a pair's own rejected response: 1 is DPO. 0.8 is the authors' setting."""

    known_as = ("RPO", "Relative PO")
    data = Pairs
    unit = "pair"
    needs = REFERENCE
    couples = True

    def reward(self, y: Scored) -> Float[Tensor, "n"]:
        return self.beta * y.ratio

    def __call__(self, batch: Pairs, state: State | None = None) -> Float[Tensor, "units"]:
        contrast = -logsigmoid(self.reward(batch.w)[:, None] - self.reward(batch.l))
        n = len(contrast)
        own, other = (self.own, (1 - self.own) / (n - 1)) if n > 1 else (1.0, 0.0)
        weight = other + (own - other) * torch.eye(n, dtype=contrast.dtype, device=contrast.device)
        return (weight * contrast).sum(-1)

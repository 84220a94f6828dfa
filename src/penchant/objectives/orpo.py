"""Odds ratio preference optimisation, its odds-ratio part alone: the odds of the mean token probability are compared.
The paper's whole loss is `NLL() + 0.1 * ORPO()`; the likelihood term is not written here a second time."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from penchant.objectives.base import Paired
from penchant.objectives.scored import Scored


@dataclass(frozen=True)
class ORPO(Paired):
    """-log σ( log odds(y_w) − log odds(y_l) ),  odds = p/(1−p)        Hong et al. 2024, arXiv 2403.07691, eq. 7

    p is the geometric mean of the token probabilities (eq. 4); equation 6 adds the likelihood of the chosen, with λ
    (usually 0.1) before this term. Odds belong to probabilities: log-densities have none."""

    def reward(self, y: Scored) -> Float[Tensor, "n"]:
        return log_odds(y.mean)

    def loss(self, w: Float[Tensor, "pairs"], l: Float[Tensor, "pairs"]) -> Float[Tensor, "pairs"]:
        return -logsigmoid(w - l)


def log_odds(a: Float[Tensor, "n"]) -> Float[Tensor, "n"]:
    """log( p/(1−p) ) for p = eᵃ. A p that the number format cannot tell from 1 is read as 1 − eps, where odds are still
    finite; expm1 keeps the digits of 1 − p that `1 - exp(a)` loses."""
    a = a.clamp(max=-torch.finfo(a.dtype).eps)
    return a - torch.log(-torch.expm1(a))

"""Contrastive preference optimisation, its preference part alone: DPO with a uniform reference.
The paper's whole loss is `CPO() + NLL(reduction="sum")`; it is not written here a second time."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from penchant.objectives.base import Paired, Positive
from penchant.objectives.scored import Scored


@dataclass(frozen=True)
class CPO(Paired):
    """-log σ( β log π(y_w) − β log π(y_l) )        Xu et al. 2024, arXiv 2401.08417, eq. 3

    Equation 5 adds the negative log-likelihood of the chosen, without which both log-probs may fall together."""

    beta: Positive = 0.1
    """Scale of the summed log-probabilities."""

    def reward(self, y: Scored) -> Float[Tensor, "n"]:
        return self.beta * y.total

    def loss(self, w: Float[Tensor, "pairs"], l: Float[Tensor, "pairs"]) -> Float[Tensor, "pairs"]:
        return -logsigmoid(w - l)

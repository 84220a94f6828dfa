"""Length-normalised DPO: each log-ratio is divided by the response's own length, so long responses pull no harder.
Its β is ten to a hundred times DPO's."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from penchant.objectives.base import REFERENCE, Paired, Positive
from penchant.objectives.scored import Scored


@dataclass(frozen=True)
class LNDPO(Paired):
    """-log σ( β/|y_w| u_w − β/|y_l| u_l ),  u = log π/π_ref        Ahrabian et al. 2024, arXiv 2407.15229

    Tülu 3 trains with it (`dpo_norm`, β = 5), which is the default here."""

    beta: Positive = 5.0
    """Scale of the mean log-ratio, which is of the order of 0.1."""

    known_as = ("LN-DPO", "DPO-norm")
    needs = REFERENCE

    def reward(self, y: Scored) -> Float[Tensor, "n"]:
        return self.beta * y.mean_ratio

    def loss(self, w: Float[Tensor, "pairs"], l: Float[Tensor, "pairs"]) -> Float[Tensor, "pairs"]:
        return -logsigmoid(w - l)

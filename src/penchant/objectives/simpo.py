"""Simple preference optimisation: the reward is the mean log-probability, and a margin is asked for.
There is no reference, so nothing but the learning rate holds the policy back."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from penchant.objectives.base import NonNegative, Paired, Positive
from penchant.objectives.scored import Scored


@dataclass(frozen=True)
class SimPO(Paired):
    """-log σ( β/|y_w| log π(y_w) − β/|y_l| log π(y_l) − γ )        Meng et al. 2024, arXiv 2405.14734, eq. 6

    The official code writes γ as a share of β (`gamma_beta_ratio`, 0.25 by default; 0.55 for Llama-3-Instruct, 0.8 for
    Mistral base): γ = ratio · β."""

    beta: Positive = 2.0
    """Scale of the reward; the paper's runs use 2 to 10."""
    gamma: NonNegative = 0.5
    """The margin γ, absolute (not a share of β)."""

    def reward(self, y: Scored) -> Float[Tensor, "n"]:
        return self.beta * y.mean

    def loss(self, w: Float[Tensor, "pairs"], l: Float[Tensor, "pairs"]) -> Float[Tensor, "pairs"]:
        return -logsigmoid(w - l - self.gamma)

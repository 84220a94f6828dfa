"""Identity preference optimisation: regression of the log-ratio margin onto a fixed target, instead of pushing it for ever.
The margin is not squashed, so nothing saturates and a pair past the target is pulled back."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from penchant.objectives.base import REFERENCE, Paired, Positive
from penchant.objectives.scored import Scored


@dataclass(frozen=True)
class IPO(Paired):
    """( u_w − u_l − 1/(2τ) )²,  u = log π/π_ref per token        Azar et al. 2023, arXiv 2310.12036, eq. 17

    The paper's text sums u over tokens; its authors confirmed to TRL that their results average it, so that is the default.
    The two need very different τ: a mean log-ratio is of the order of 0.1, a sum of the order of 10. At policy = reference
    the loss is 1/(4τ²)."""

    tau: Positive = 0.1
    """Strength of the regularisation: the margin aims at 1/(2τ)."""
    average: bool = True
    """True: u is the mean over the response's tokens (the authors' code). False: the sum (the paper's text)."""

    needs = REFERENCE

    def reward(self, y: Scored) -> Float[Tensor, "n"]:
        return y.mean_ratio if self.average else y.ratio

    def loss(self, w: Float[Tensor, "pairs"], l: Float[Tensor, "pairs"]) -> Float[Tensor, "pairs"]:
        return (w - l - 1 / (2 * self.tau)) ** 2

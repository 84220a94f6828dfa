"""Token-level direct preference optimisation: beside the log-ratio of the tokens that were said, each step's whole
distribution is held to the reference. How the divergence is computed (in the scoring, a chunk at a time) is not its business."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from penchant.objectives.base import REFERENCE, Needs, NonNegative, Paired, Positive
from penchant.objectives.scored import Scored

KL = Needs(values=frozenset({"kl"}))
"""KL(π_ref ‖ π) of every step's distribution, with gradient through π."""


@dataclass(frozen=True)
class TDPO(Paired):
    """-log σ( u − δ ),  u = β (ratio_w − ratio_l),  δ = β (D_l − D_w)        Zeng et al. 2024, arXiv 2404.11999, TDPO1

    D = Σ_t KL(π_ref(·|s_t) ‖ π(·|s_t)), the sequential KL of a response, with gradient on both sides. u − δ is a difference
    of rewards β (ratio + D), so the method is DPO with that reward. The paper's text was not at hand: the form is that of
    its authors' code, `tdpo_loss` with if_tdpo2=False."""

    beta: Positive = 0.1
    """Strength of the pull to the reference: larger stays closer."""

    known_as = ("TDPO1",)
    needs = REFERENCE | KL

    def reward(self, y: Scored) -> Float[Tensor, "n"]:
        return self.beta * (y.ratio + y.sum(y.value("kl")))

    def loss(self, w: Float[Tensor, "pairs"], l: Float[Tensor, "pairs"]) -> Float[Tensor, "pairs"]:
        return -logsigmoid(w - l)


@dataclass(frozen=True)
class TDPO2(Paired):
    """-log σ( u − α β (D_l − stop(D_w)) ),  u = β (ratio_w − ratio_l)        Zeng et al. 2024, arXiv 2404.11999, TDPO2

    As TDPO, but the chosen's divergence has no gradient: only the rejected's is held back. alpha = 0 is DPO. The form and
    the default of alpha are those of the authors' code, `tdpo_loss`."""

    beta: Positive = 0.1
    """Strength of the pull to the reference: larger stays closer."""
    alpha: NonNegative = 0.5
    """Weight of the difference of divergences."""

    needs = REFERENCE | KL

    def reward(self, y: Scored) -> Float[Tensor, "n"]:
        return self.beta * (y.ratio + self.alpha * y.sum(y.value("kl")))

    def loss_scored(self, w: Scored, l: Scored) -> Float[Tensor, "pairs"]:
        chosen = self.beta * (w.ratio + self.alpha * w.sum(w.value("kl")).detach())
        return -logsigmoid(chosen - self.reward(l))

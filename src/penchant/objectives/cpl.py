"""Contrastive preference learning: a policy's log-probs stand for advantages, so a preference for a segment of behaviour trains the
policy itself. Preferences are taken to follow regret, not reward; no reward model and no reinforcement learning is in it."""

from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from penchant.objectives.base import NO_NEEDS, REFERENCE, STRENGTH, Fraction, Paired, Positive, State
from penchant.objectives.scored import Pairs, Scored, wide


@dataclass(frozen=True)
class CPL(Paired):
    """-log σ( a_w − λ a_l ),  a = α Σ_t γᵗ log π(a_t | s_t)        Hejna et al. 2024, arXiv 2310.13639, jhejna/cpl

    λ < 1 is the paper's bias: what lies outside the data loses weight. γ stands in the paper and not in the authors' code, whose
    value is the default. With `kl`, log π/π_ref takes the place of log π (CPL-KL); with λ = 1 too it is DPO(beta=α). With `soft`,
    segment w is preferred with probability `strength`, and each of the two ways to prefer has its own bias, as in that code."""

    alpha: Positive = 0.1
    """α, the temperature of the advantages."""
    bias: Fraction = 0.5
    """λ, from above 0 to 1: how much of the rejected segment is held against the chosen."""
    gamma: Fraction = 1.0
    """γ, the discount of later steps."""
    kl: bool = False
    """True: against the reference, a clone of the behaviour in the data."""
    soft: bool = False
    """True: reads strengths; a tie is ½."""

    def __post_init__(self) -> None:
        super().__post_init__()
        needs = (REFERENCE if self.kl else NO_NEEDS) | (STRENGTH if self.soft else NO_NEEDS)
        object.__setattr__(self, "needs", needs)
        if self.soft and self.bias < 1:
            why = "Near a tie each way to prefer takes only a share of what it is against, so both segments are raised."
            object.__setattr__(self, "breaks", {"descent": why})

    def reward(self, y: Scored) -> Float[Tensor, "n"]:
        said = wide(y.logp) - wide(y.anchor("ref")) if self.kl else wide(y.logp)
        place = y.mask.cumsum(-1) - 1
        return self.alpha * y.sum(said * self.gamma ** place.to(said))

    def __call__(self, batch: Pairs | Scored, l: Any = None, state: State | None = None) -> Float[Tensor, "pairs"]:
        batch = Pairs(batch, l) if isinstance(batch, Scored) else batch
        w, l_ = self.reward(batch.w), self.reward(batch.l)
        told = -logsigmoid(w - self.bias * l_)
        if not self.soft:
            return told
        p = batch.column("strength").to(w)
        return p * told - (1 - p) * logsigmoid(l_ - self.bias * w)

"""DPO whose β follows the step's margins, and which leaves out pairs whose margin is far from the usual: those are taken to be
mislabelled. Both look at the whole step, so a micro-batch alone cannot compute it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from penchant.objectives.base import REFERENCE, NonNegative, Objective, Positive, Range, State, recall
from penchant.objectives.scored import NOTHING, Pairs, Scored

LEAST_BETA = 1e-3
"""The step's β never falls below this (the authors' code)."""

BelowOne = Annotated[float | int, Range(0.0, 1.0, open_high=True)]


@dataclass(frozen=True)
class BetaDPO(Objective):
    """-log σ( β (1 + α (mean M − M₀)) M ),  M = log-ratio margin        Wu et al. 2024, arXiv 2407.08639 (β-DPO)

    M = u_w − u_l without β, u = log π/π_ref; the step's β has no gradient. M₀ and s are moving averages of the steps' mean
    and standard deviation of M, begun at 0 and moved before they are used, as in the authors' code; evaluation does not
    move them here, as it does there. Of n pairs a share is drawn without replacement with weights exp(−(M − M₀)²/2s²) and
    the others count nothing; `mean M` and the loss are means over the drawn, so a value here is n/drawn times its loss, or
    0. The draw's random numbers come from the number of steps so far, which is part of the state: a run that is resumed,
    or has other micro-batches, draws the same pairs. At policy = reference, where all M are 0, any pair is as likely."""

    beta: Positive = 0.1
    """β₀, the strength of the pull to the reference where the step's mean margin is the usual one."""
    alpha: NonNegative = 0.6
    """α, how far β follows the margins; 0 keeps it at β₀."""
    filter: BelowOne = 0.2
    """The share of each step's pairs that is left out (the number kept is rounded, and at least one); 0 keeps all."""
    momentum: BelowOne = 0.9
    """How much of M₀ and s stays from step to step."""

    known_as = ("β-DPO", "beta-DPO")
    breaks: ClassVar = {
        "descent": "A pair that is left out of the step has no gradient.",
        "gradient": "The step's β is computed from the margins and carries no gradient, as in the paper.",
    }
    data = Pairs
    unit = "pair"
    needs = REFERENCE
    couples = True

    def reward(self, y: Scored) -> Float[Tensor, "n"]:
        return self.beta * y.ratio

    def __call__(self, batch: Pairs, state: State | None = None) -> Float[Tensor, "units"]:
        margin = batch.w.ratio - batch.l.ratio
        usual, seen = recall(self, state, "mean").to(margin), margin.detach()
        drawn = self.draw(seen, usual, recall(self, state, "std").to(margin), int(recall(self, state, "steps")))
        beta = self.beta * (1 + self.alpha * ((drawn * seen).sum() / drawn.sum().clamp(min=1) - usual))
        weight = drawn * len(drawn) / drawn.sum().clamp(min=1)
        return -weight * logsigmoid(beta.clamp(min=LEAST_BETA) * margin)

    def draw(
        self, margin: Float[Tensor, "pairs"], mean: Float[Tensor, ""], std: Float[Tensor, ""], steps: int
    ) -> Float[Tensor, "pairs"]:
        """1 for the pairs drawn without replacement, else 0: the largest of log weight + Gumbel noise. The smallest margin
        gets the first random number, and so on, so the pairs' order in the step does not matter."""
        keep = min(len(margin), max(1, round((1 - self.filter) * len(margin))))
        uniform = torch.rand(len(margin), generator=torch.Generator().manual_seed(steps), dtype=torch.float64)
        noise = -(-uniform.log()).log().to(margin)[margin.argsort(stable=True).argsort()]
        score = noise - ((margin - mean) / std.clamp(min=1e-6)) ** 2 / 2
        return torch.zeros_like(margin).index_fill(0, score.topk(keep).indices, 1.0)

    def init(self, levels: Mapping[str, int] = NOTHING) -> dict[str, Tensor]:
        return {name: torch.tensor(0.0) for name in ("mean", "std", "steps")}

    def statistics(self, batch: Pairs, state: State) -> dict[str, tuple[Tensor, Tensor]]:
        margin = (batch.w.ratio - batch.l.ratio).detach()
        count = torch.ones_like(margin).sum()
        return {"margin": (margin.sum(), count), "square": ((margin**2).sum(), count)}

    def update(self, state: State, totals: Mapping[str, tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
        (total, count), (square, _) = totals["margin"], totals["square"]
        mean = total / count.clamp(min=1)
        variance = (square - count * mean**2).clamp(min=0) / (count - 1).clamp(min=1)
        moved = lambda name, now: self.momentum * recall(self, state, name) + (1 - self.momentum) * now  # noqa: E731
        steps = recall(self, state, "steps") + 1
        return {"mean": moved("mean", mean), "std": moved("std", variance.sqrt()), "steps": steps}

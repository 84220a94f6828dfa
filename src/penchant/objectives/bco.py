"""Binary classifier optimisation: each response is called good or bad by itself, measured from the middle of the rewards.
That middle, δ, is a running mean over the steps of a run, so it comes in as state; it is never a micro-batch's."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from penchant.objectives.base import REFERENCE, Objective, Positive, State, recall
from penchant.objectives.scored import NOTHING, Batch, Labelled, Pairs, Scored


@dataclass(frozen=True)
class BCO(Objective):
    """-log σ(r_w − δ) − log σ(δ − r_l),  r = β log π/π_ref        Jung et al. 2024, arXiv 2404.04656, eq. 8

    δ = (mean r of the good + mean r of the bad)/2 (eq. 7), without gradient. The paper smooths δ by an exponential moving
    average whose rate it does not give; the code in TRL takes the plain mean over the steps so far, this one
    included, each step counting once, and so does this. TRL averages all responses of a step alike, which is eq. 7 on
    pairs only; here the good and the bad are averaged apart, as in eq. 7. On labelled data a value is one response's term;
    the paper balances the two kinds by repeating rows, and re-weights prompts by a classifier, which is left out."""

    beta: Positive = 0.1
    """Scale of the log-ratio: larger saturates sooner."""

    data = (Pairs, Labelled)
    unit = "pair"
    needs = REFERENCE

    def reward(self, y: Scored) -> Float[Tensor, "n"]:
        return self.beta * y.ratio

    def __call__(self, batch: Pairs | Labelled, state: State | None = None) -> Float[Tensor, "units"]:
        delta = (recall(self, state, "good") + recall(self, state, "bad")) / 2
        if isinstance(batch, Pairs):
            return -logsigmoid(self.reward(batch.w) - delta) - logsigmoid(delta - self.reward(batch.l))
        over = self.reward(batch.y) - delta
        return -logsigmoid(torch.where(batch.label, over, -over))

    def count(self, batch: Batch) -> int:
        return batch.size("pair" if isinstance(batch, Pairs) else "response")

    def init(self, levels: Mapping[str, int] = NOTHING) -> dict[str, Tensor]:
        return {name: torch.tensor(0.0) for name in ("good", "good_steps", "bad", "bad_steps")}

    def statistics(self, batch: Pairs | Labelled, state: State) -> dict[str, tuple[Tensor, Tensor]]:
        sides = {"good": self.reward(batch.good.detach()), "bad": self.reward(batch.bad.detach())}
        return {name: (r.sum(), torch.ones_like(r).sum()) for name, r in sides.items()}

    def update(self, state: State, totals: Mapping[str, tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
        new = dict(state)
        for name, (total, count) in totals.items():
            if count > 0:  # a step may hold no response of a kind; its mean stays what it was
                steps, mean = recall(self, state, f"{name}_steps") + 1, recall(self, state, name)
                new |= {f"{name}_steps": steps, name: mean + (total / count - mean) / steps}
        return new

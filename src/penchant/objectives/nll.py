"""Negative log-likelihood of good responses: supervised fine-tuning, alone or as a regulariser beside a preference loss.
It reads the chosen of a pair and the responses called good; the others are not looked at."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from jaxtyping import Float
from torch import Tensor

from penchant.objectives.base import Objective, State
from penchant.objectives.scored import Batch, Labelled, Pairs


@dataclass(frozen=True)
class NLL(Objective):
    """-1/|y| Σ_t log π(y_t | x, y_<t)        maximum likelihood of the chosen; RPO, CPO and ORPO add it

    Papers and codes differ in what they divide by, so it is said aloud. One value per pair for "response" and "sum" (on
    labelled data: one per response called good), one per token for "token"."""

    reduction: Literal["response", "token", "sum"] = "response"
    """response: mean over each response's tokens. token: every token of the step counts alike. sum: −log π(y), the
    paper's text of CPO."""

    known_as = ("SFT",)
    data = (Pairs, Labelled)
    breaks: ClassVar = {"descent": "Only the chosen is trained; the rejected has no gradient."}

    @property
    def unit(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        return "token" if self.reduction == "token" else "pair"

    def __call__(self, batch: Pairs | Labelled, state: State | None = None) -> Float[Tensor, "units"]:
        y = batch.good
        return -{"response": y.mean, "token": y.each, "sum": y.total}[self.reduction]

    def count(self, batch: Batch) -> int:
        kept = batch.kept()
        assert isinstance(kept, Pairs | Labelled)
        y = kept.good
        return int(y.mask.sum()) if self.reduction == "token" else len(y)

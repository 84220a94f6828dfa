"""Consensus: any pairwise objective, taught how far to believe each annotator while it learns what they agree on. It finds
labels that contradict the rest; annotators who are wrong in the same way look like agreement to it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from penchant.errors import Refusal
from penchant.objectives.base import Needs, Range, State, recall
from penchant.objectives.scored import NOTHING, Pairs
from penchant.objectives.wrapper import Wrapper

SUREST = 0.99
"""No annotator is believed or disbelieved beyond this: at 1 a label could never be doubted again."""


@dataclass(frozen=True)
class Consensus(Wrapper):
    """-w log p − (1−w) log(1−p),  p = σ(L(l,w)−L(w,l)),  w = σ(logit p + logit η)        Cao et al. 2025, arXiv 2509.24159, eq. 5

    LCPO, later named RE-PO. η, one per annotator, is the probability that a label is right; w = ηp / (ηp + (1−η)(1−p)), held
    fixed, that this one is (eq. 2 and 4). After each step η ← (1−rate) η + rate · (mean of w) for the annotators seen in it
    (eq. 7), with the very w that the step used.
    Around DPO, p is Bradley-Terry's. Around a squared or a hinge loss it is a likelihood the loss induces, no longer a
    square: that of IPO is σ(2h/τ), so nearly certain for margins h above τ. Data that names no annotator counts as one
    annotator's. Wrap the preference term alone, Consensus(CPO()) + NLL()."""

    rate: Annotated[float | int, Range(0.0, 1.0, open_low=True)] = 0.1
    """How far one step moves η."""
    start: Annotated[float | int, Range(0.5, SUREST, open_low=True)] = 0.9
    """η before the first step: above 0.5, where a label says nothing (below it, it would say the contrary)."""
    mode: Literal["induced", "weighted"] = "induced"
    """"induced": the equation above. "weighted": w L(w,l) + (1−w) L(l,w), which keeps the loss's own form; around DPO the
    two are one."""

    needs = Needs(columns=frozenset({"annotator"}))
    known_as = ("LCPO", "RE-PO", "RPO", "Robust PO")
    breaks: ClassVar = {
        "gradient": "w is held fixed, so the slope is not that of the value but of -log( ηp + (1−η)(1−p) )."
    }

    def __call__(self, batch: Pairs, state: State | None = None) -> Float[Tensor, "pairs"]:
        right, wrong = self.both_ways(batch)
        w = confidence(wrong - right, trust(batch, recall(self, state, "eta_used")))
        if self.mode == "weighted":
            return w * right + (1 - w) * wrong
        return -w * logsigmoid(wrong - right) - (1 - w) * logsigmoid(right - wrong)

    def init(self, levels: Mapping[str, int] = NOTHING) -> dict[str, Tensor]:
        if not levels.get("annotator"):
            raise Refusal(f"{self!r} has one reliability per annotator: call init({{'annotator': how many there are}}).")
        eta = torch.full((levels["annotator"],), float(self.start))
        return {"eta": eta, "eta_used": eta.clone()}

    def statistics(self, batch: Pairs, state: State) -> dict[str, tuple[Tensor, Tensor]]:
        eta = recall(self, state, "eta")
        right, wrong = self.both_ways(batch)
        w = confidence(wrong - right, trust(batch, eta))
        mine = batch.column("annotator")[:, None] == torch.arange(len(eta), device=w.device)
        return {"eta": (torch.where(mine, w[:, None], 0.0).sum(0), mine.sum(0))}

    def update(self, state: State, totals: Mapping[str, tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
        (total, count), eta = totals["eta"], recall(self, state, "eta")
        moved = (1 - self.rate) * eta + self.rate * total / count.clamp(min=1)
        # who is not in this step keeps η to the bit
        return {"eta": torch.where(count > 0, moved.clamp(1 - SUREST, SUREST), eta), "eta_used": eta}

    def shown(self, state: State) -> dict[str, Tensor]:
        return {"reliability/annotator": state["eta"]}


def trust(batch: Pairs, eta: Float[Tensor, "annotators"]) -> Float[Tensor, "pairs"]:
    """η of the annotator of each pair."""
    who = batch.column("annotator")
    # elsewhere every step would wait for the device; the engine has looked at all rows before
    if who.is_cpu and bool(((who < 0) | (who >= len(eta))).any()):
        raise Refusal(
            f"there are {len(eta)} annotators, numbered from 0, but a row has number {int(who.min())} or {int(who.max())}; "
            "every row needs its annotator."
        )
    return eta[who]


def confidence(g: Float[Tensor, "pairs"], eta: Float[Tensor, "pairs"]) -> Float[Tensor, "pairs"]:
    """w = σ(g + logit η): how probable it is that the label is right, with g the logit of p. Without gradient."""
    return torch.sigmoid(g.detach() + torch.logit(eta))

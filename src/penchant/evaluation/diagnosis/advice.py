"""What to train with, in the light of what was found: an objective to write down as it stands, and why. Every expression is
read back by the reader of objectives before it is shown; none is a promise."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from penchant.evaluation.diagnosis.groups import Groups
from penchant.evaluation.diagnosis.noise import Noise
from penchant.evaluation.diagnosis.people import Annotator
from penchant.evaluation.diagnosis.position import Position
from penchant.evaluation.diagnosis.shortcuts import Shortcut
from penchant.feedback.records import Kind

UNEQUAL = 0.1
"""Reliabilities whose intervals lie this far apart count as unequal."""
KNOWN = 0.15
"""An interval wider than this does not know the rate well enough to correct by it: RDPO told too high a rate is wrong."""
CLOSE = 0.3
"""Share of pairs that differ in few words from which a loss should hold the chosen up."""


@dataclass(frozen=True)
class Advice:
    """One thing to do."""

    do: str
    objective: str
    """An expression that `--objective` takes; empty where the advice is about data or settings."""
    because: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Grounds:
    """What advice is drawn from."""

    kind: Kind
    unsure: int
    """Rows with a strength that is neither certain nor a tie."""
    noise: Noise | None
    people: tuple[Annotator, ...]
    shortcuts: tuple[Shortcut, ...]
    close: float
    """The share of pairs whose two sides differ in few words."""
    leaks: int
    groups: Groups | None
    """Annotators who disagree with each other as groups."""
    position: Position | None
    twins: int
    """Prompts nearly the same as another of the same file."""


def unequal(people: tuple[Annotator, ...]) -> bool:
    """Whether two annotators' intervals lie apart."""
    if len(people) < 2:
        return False
    lowest, highest = min(p.reliability.high for p in people), max(p.reliability.low for p in people)
    return highest - lowest > UNEQUAL


def advise(grounds: Grounds) -> list[Advice]:
    """What fits the data, the most pressing first."""
    out = [*_of_labels(grounds), *_of_data(grounds), *_of_shape(grounds)]
    if grounds.kind == "pairs" and not any(one.objective for one in out):
        because = "No finding asks for another loss."
        out.append(Advice("Nothing here asks for more than the plain loss.", "DPO(beta=0.1)", because))
    return out


def _of_labels(grounds: Grounds) -> Iterator[Advice]:
    noise = grounds.noise
    if grounds.groups is not None and grounds.groups.found:
        because = (
            f"Two people of different groups agree in {grounds.groups.between.percent()} of answers; one model of both learns "
            "neither, or the larger group's taste."
        )
        yield Advice("Decide whose preferences count, or train for each group from its own rows.", "", because)
        return
    contrary = [p.name for p in grounds.people if p.contrary]
    if contrary:
        because = f"{', '.join(contrary)}: surely right in less than half of their labels."
        yield Advice("Ask whether the annotator mixed up the two sides; swap or leave out their rows.", "", because)
    if grounds.kind == "pairs" and unequal(grounds.people):
        low, high = grounds.people[0], grounds.people[-1]
        because = (
            f"Annotators differ in reliability, from {low.reliability.percent()} ({low.name}) to "
            f"{high.reliability.percent()} ({high.name}); this objective learns one for each."
        )
        yield Advice("Let the objective learn whom to believe.", "Consensus(DPO(beta=0.1))", because)
    elif noise is not None and noise.found and grounds.kind == "pairs":
        rate = min(round(noise.rate.value, 2), 0.45)
        if noise.rate.high - noise.rate.low <= KNOWN:
            because = (
                f"{noise.rate.percent()} of labels are wrong by the estimate above; this loss is unbiased at that rate."
            )
            yield Advice("Correct the loss for the wrong labels.", f"RDPO(beta=0.1, flip={rate:g})", because)
            cautious = "The same rate, without a pull that has no end: safer for several epochs, weaker as a correction."
            yield Advice("Or be cautious instead.", f"CDPO(beta=0.1, flip={rate:g})", cautious)
        else:
            because = (
                f"Some labels are wrong, how many is not known well ({noise.rate.percent()}); this finds out by itself."
            )
            yield Advice("Let the objective learn how far to believe labels.", "Consensus(DPO(beta=0.1))", because)
            cautious = "A smoothed label that expects as many wrong ones as are surely there."
            yield Advice(
                "Or be cautious instead.", f"CDPO(beta=0.1, flip={max(round(noise.rate.low, 2), 0.01):g})", cautious
            )
    if noise is not None and not noise.learnable:
        because = f"A predictor of words and style is right in {noise.accuracy.percent()} of unseen pairs: no better than a guess."
        yield Advice("Expect slow learning; look at a sample of rows by hand before a long run.", "", because)


def _of_data(grounds: Grounds) -> Iterator[Advice]:
    if grounds.leaks:
        because = f"{grounds.leaks:,} held-out prompts stand, nearly or exactly, among the training prompts."
        yield Advice("Take those prompts out of one side; figures on them are memory.", "", because)
    if grounds.twins:
        because = (
            f"{grounds.twins:,} prompts are nearly the same as an earlier one; a split by prompt knows exact copies only."
        )
        yield Advice("Give held-out rows as a file of their own (--unseen) that shares no such prompt.", "", because)
    place = grounds.position
    if place is not None and place.of == "shown" and place.all.surely:
        because = f"The one shown first is preferred in {place.all.first.percent()}, which to a model of texts is noise."
        yield Advice("Draw which answer is shown first, or ask in both orders, when more is labelled.", "", because)
    length = next((one for one in grounds.shortcuts if one.name == "longer" and one.strong), None)
    if length is not None and grounds.kind == "pairs":
        longer = "longer" if length.accuracy.value > 0.5 else "shorter"
        because = f"The {longer} side is the chosen one in {max(length.overall, 0):.0%} of pairs: length alone explains that many."
        yield Advice("Take length out of the reward.", "LNDPO(beta=1.1)", because)
        yield Advice("Or without a reference, normalised by length too.", "SimPO(beta=2.5)", because)


def _of_shape(grounds: Grounds) -> Iterator[Advice]:
    if grounds.kind == "lists":
        because = (
            "Rows are lists of scored responses: a loss over all pairs of a list uses more of them than one pair does."
        )
        yield Advice("Learn from whole lists.", "PairwiseLogistic(beta=0.1)", because)
    if grounds.kind == "labelled":
        yield Advice("Learn from labels as they are.", "KTO(beta=0.1)", "Rows are completions with a label, not pairs.")
    if grounds.close >= CLOSE and grounds.kind == "pairs":
        because = f"In {grounds.close:.0%} of pairs the two sides differ in few words; there DPO lowers the chosen too."
        yield Advice("Hold the chosen up.", "DPOP(beta=0.1, penalty=50)", because)
        yield Advice("Or a loss that does so without a penalty.", "NCA(beta=0.1)", because)
    if grounds.unsure and grounds.kind == "pairs":
        because = f"{grounds.unsure:,} rows carry a strength below 1, which DPO does not read."
        yield Advice("Use how sure each preference is.", "OSP(beta=0.1)", because)

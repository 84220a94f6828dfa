"""What the recipes share: their few flags, and the figures they end with. What a recipe tries stands in its own file."""

from __future__ import annotations

import argparse
import time
from dataclasses import asdict, dataclass

from penchant.evaluation.pairs import accuracy, margin
from penchant.run import Run


@dataclass(frozen=True)
class Figures:
    """What a recipe showed on held-out pairs."""

    pairs: int
    """Held-out pairs."""
    accuracy: float
    """Share of them whose chosen response has the larger implicit reward; before training it is 50 %, a guess."""
    low: float
    high: float
    """95 % interval of the accuracy."""
    margin: float
    """Mean margin, in the objective's units."""
    chosen: float
    rejected: float
    """Mean change of log π of the chosen and of the rejected, in nats per response."""
    verdict: str
    cpu_seconds: float
    """Of this process, all threads together: what an idle core would need."""

    def __str__(self) -> str:
        return (
            f"held-out accuracy {self.accuracy:.1%} [{self.low:.1%}, {self.high:.1%}] on {self.pairs} pairs, margin "
            f"{self.margin:+.3f}, log π chosen {self.chosen:+.1f}, rejected {self.rejected:+.1f} nats; "
            f"{self.cpu_seconds:,.0f} CPU-seconds"
        )

    def to_json(self) -> dict[str, float | int | str]:
        return asdict(self)


def options(recipe: str, name: str, text: list[str] | None = None) -> argparse.Namespace:
    """The flags every recipe has: --model, --output, --steps. `recipe` is its docstring."""
    parser = argparse.ArgumentParser(description=recipe, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2", help="what to align (default: smollm2)")
    parser.add_argument("--output", default=f"runs/{name}", help=f"where the run goes (default: runs/{name})")
    parser.add_argument("--steps", type=int, help="stop after so many steps, to try the recipe out")
    return parser.parse_args(text)


def figures(run: Run) -> Figures:
    """The figures of a finished run on pairs."""
    after = run.evidence.pairs_after
    assert after is not None and after.ref_chosen is not None and after.ref_rejected is not None
    right = accuracy(after)
    mean_change = lambda now, then: sum(a - b for a, b in zip(now, then, strict=True)) / len(now)  # noqa: E731
    return Figures(
        pairs=len(after.numbers),
        accuracy=right.value,
        low=right.low,
        high=right.high,
        margin=margin(after).value,
        chosen=mean_change(after.logp_chosen, after.ref_chosen),
        rejected=mean_change(after.logp_rejected, after.ref_rejected),
        verdict=run.verdict.sentence,
        cpu_seconds=time.process_time(),
    )

"""What announces that likelihood is optimised too far: how much probability the most probable tokens have together, and how it
is spread among them. It watches a run and optimises nothing."""

from __future__ import annotations

import math
from dataclasses import dataclass

from penchant.objectives.scored import Scored


@dataclass(frozen=True)
class TopK:
    """m = Σ p and H = −Σ p log₂ p over the k most probable next tokens, means over all tokens of the responses        Shi et al.
    2024, arXiv 2410.11677, k = 10

    While the log-prob of good responses falls, H falling after it rose, or m falling, told when generation got worse."""

    k: int = 10

    @property
    def values(self) -> frozenset[str]:
        """What it needs of a scoring, as an objective says in `needs.values`."""
        return frozenset({f"mass/{self.k}", f"entropy/{self.k}"})

    def __call__(self, y: Scored) -> dict[str, float]:
        """ "mass/10" in [0, 1] and "entropy/10" in bits; each token counts once, whatever the batch's weights are."""
        mean = lambda name: float(y.value(name)[y.mask].double().mean())  # noqa: E731
        return {
            f"mass/{self.k}": mean(f"mass/{self.k}"),
            f"entropy/{self.k}": mean(f"entropy/{self.k}") / math.log(2),
        }

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
    """Of at most as many tokens as there are: with all of them m is 1 and H the whole entropy."""
    renormalise: bool = False
    """Also −Σ q log₂ q of the k tokens' own distribution q = p / m, in [0, log₂ k], as "renormalised/10": the paper's text calls
    its entropy one "over the top k", its formula does not divide."""

    @property
    def values(self) -> frozenset[str]:
        """What it needs of a scoring, as an objective says in `needs.values`."""
        return frozenset({f"mass/{self.k}", f"entropy/{self.k}"})

    def __call__(self, y: Scored) -> dict[str, float]:
        """ "mass/10" in [0, 1] and "entropy/10" in bits; each token counts once, whatever the batch's weights are."""
        mass, entropy = (y.value(f"{name}/{self.k}")[y.mask].double() for name in ("mass", "entropy"))
        found = {f"mass/{self.k}": mass, f"entropy/{self.k}": entropy / math.log(2)}
        if self.renormalise:  # −Σ (p/m) log (p/m) = H/m + log m
            found[f"renormalised/{self.k}"] = (entropy / mass + mass.log()) / math.log(2)
        return {name: float(x.mean()) for name, x in found.items()}

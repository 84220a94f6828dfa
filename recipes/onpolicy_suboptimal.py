"""On-policy, suboptimal data: when it pays to sample from the policy, to use samples twice, and to push worse samples down.

Claim     (1) Samples of the policy beat samples of the data's law, most where the reward's peak is far from the data; (2) they may
          be used for several steps; (3) losses that push worse samples down (DPO, IPO, REINFORCE) beat imitation of good ones
          (Best-of-N, RWR, Pref-FT) where the peak is far; (4) the two gains add up; (5) near the data all losses are alike.
Source    Tajwar et al. 2024, arXiv 2404.14367: the didactic bandits; rewards, data and losses as in the authors' code.
Run       A table of 100 actions (R4 far, R5 near), a tanh-Gaussian over ten dimensions (R1 far, R3 near) and a transformer over
          ten tokens (R6 far, R7 near), each starting at the data's law or as its likeliest fit. Every arm asks for as many
          rewards (80 an epoch) and takes as many steps; it either samples itself or goes on with fresh samples of the data's
          law. DPO and IPO learn from all 45 pairs of a state and are held against the data's law. One rate per policy, for
          all losses, not tuned. 3 seeds. Budget: 300 CPU-seconds.
Showed    Reward after offline and own samples. (1) holds: far, table 0.04 → 0.53 (DPO) and 0.26 → 0.79 (Best-of-N), tokens 0.13
          → 0.77 (Best-of-N); near, table 0.84 → 0.98 and 0.90 → 0.97. IPO on the far tanh-Gaussian alone loses by it. (2) holds:
          after 1,600 queries, 16 steps on the same samples give 0.97 to 0.99 on the far table where one gives 0.05 to 0.09. (3)
          hangs on the policy: with the far peak and offline samples DPO has 0.45 against 0.0001 of Best-of-N on the
          tanh-Gaussian and 0.63 against 0.13 on tokens, but 0.04 against 0.26 on the table, where what it takes from worse
          actions goes to actions that nobody tried; Best-of-N's own push helps on the tanh-Gaussian only, and RWR is best
          on the table with 0.68. (4) holds for the tanh-Gaussian and tokens (DPO 0.66 and 0.95, own samples), not for the
          table. (5) holds for own samples (0.95 to 0.99 on table and tokens); offline losses differ near the data too. KL and
          entropy say the same of them: whoever gains most has left the data's law furthest. 256 CPU-seconds.

    python recipes/onpolicy_suboptimal.py
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from bandits import (
    REWARDS,
    RWR,
    BestOfN,
    Law,
    PPOClip,
    Reinforce,
    Table,
    TanhCauchy,
    TanhGaussian,
    Tokens,
    Way,
    learn,
    look,
)
from study import Arm, Study, study

from penchant.objectives import DPO, IPO, NLL, Objective

SEEDS = tuple(range(3))
LOSSES: dict[str, Objective] = {
    "Best-of-N": BestOfN(),
    "Best-of-N, worst pushed": BestOfN(beta=0.5),
    "RWR": RWR(beta=0.1),
    "Pref-FT": NLL(reduction="sum"),
    "DPO": DPO(beta=0.1),
    "IPO": IPO(tau=0.1, average=False),
    "REINFORCE": Reinforce(),
}
"""The first is what the others are compared with."""
FEW = ("Best-of-N", "DPO", "REINFORCE")
REUSED: dict[str, Objective] = {"Best-of-N": BestOfN(), "DPO": DPO(beta=0.1), "PPO": PPOClip()}


@dataclass(frozen=True)
class Kind:
    """A kind of policy, with the law of its data and its two rewards."""

    start: Callable[[int], tuple[Any, Law]]
    """By seed: the policy to train, and what the data come from, which is also the reference."""
    far: str
    near: str
    way: Way


def table(seed: int) -> tuple[Any, Law]:
    masses = TanhCauchy().masses()
    return Table(masses), Table(masses).requires_grad_(False)


def gaussian(seed: int) -> tuple[Any, Law]:
    data = TanhCauchy()
    return TanhGaussian(data.sample(1_000, torch.Generator().manual_seed(1_000 + seed))), data


def tokens(seed: int) -> tuple[Any, Law]:
    masses = TanhCauchy().masses()
    return Tokens(masses, seed), Tokens(masses, seed).requires_grad_(False)


KINDS = {
    "table": Kind(table, "R4", "R5", Way(rate=0.05)),
    "tanh-Gaussian": Kind(gaussian, "R1", "R3", Way(rate=0.02)),
    "tokens": Kind(tokens, "R6", "R7", Way(rate=0.005, epochs=40)),
}


def run(kind: Kind, reward: str, objective: Objective, way: Way, seed: int) -> dict[str, float]:
    """One arm with one seed: what came of it, and how many rewards it asked for."""
    policy, data = kind.start(seed)
    asked = 0
    for asked in learn(policy, objective, REWARDS[reward], data, way, seed):  # noqa: B007
        pass
    after = look(policy, REWARDS[reward], data)
    return {"reward": after.reward, "KL": after.kl, "entropy": after.entropy, "queries": asked}


def before(kind: Kind, reward: str, seed: int = 0) -> float:
    """E reward as the policy starts."""
    policy, data = kind.start(seed)
    return look(policy, REWARDS[reward], data).reward


def compared(kind: Kind, reward: str, losses: Sequence[str] = tuple(LOSSES), seeds: Sequence[int] = SEEDS) -> Study:
    """Every loss on samples of the data's law and on its own: claims 1, 3, 4 and 5."""

    def arm(objective: Objective) -> Arm:
        def both(seed: int) -> dict[str, float]:
            off, on = (run(kind, reward, objective, replace(kind.way, on_policy=own), seed) for own in (False, True))
            return {
                "offline": off["reward"],
                "on-policy": on["reward"],
                "gain": on["reward"] - off["reward"],
                "KL offline": off["KL"],
                "KL on-policy": on["KL"],
                "entropy offline": off["entropy"],
                "entropy on-policy": on["entropy"],
            }

        return both

    return study({name: arm(LOSSES[name]) for name in losses}, seeds)


def reused(
    kind: Kind, reward: str, inner: Sequence[int] = (1, 4, 16), epochs: int = 20, seeds: Sequence[int] = SEEDS
) -> Study:
    """The reward after few queries, each epoch's own samples used for so many steps: claim 2."""

    def arm(objective: Objective) -> Arm:
        ways = {f"T = {n}": replace(kind.way, inner=n, epochs=epochs) for n in inner}
        return lambda seed: {name: run(kind, reward, objective, way, seed)["reward"] for name, way in ways.items()}

    return study({name: arm(objective) for name, objective in REUSED.items()}, seeds)


def main() -> None:
    for name, kind in KINDS.items():
        some = FEW if name == "tokens" else tuple(LOSSES)
        for where, reward in (("far", kind.far), ("near", kind.near)):
            print(f"{name}, {where} peak ({reward}), {kind.way.queries:,} queries, before {before(kind, reward):.3g}")
            print(compared(kind, reward, some), "", sep="\n")
    for name in ("table", "tanh-Gaussian"):
        kind = KINDS[name]
        print(
            f"{name}, far peak ({kind.far}): own samples used for T steps, 1,600 queries", reused(kind, kind.far), sep="\n"
        )


if __name__ == "__main__":
    main()

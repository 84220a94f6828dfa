"""Which rows go into which step and which micro-batch. Pure functions of sizes and seeds, the same on every rank."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch


def order(rows: int, seed: int, epoch: int) -> list[int]:
    """The shuffled order of an epoch: a function of seed and epoch alone, so a resumed run finds its place again."""
    generator = torch.Generator().manual_seed((seed * 1_000_003 + epoch) % 2**63)
    return torch.randperm(rows, generator=generator).tolist()


def steps(rows: int, batch: int, epochs: int, seed: int, most: int | None = None) -> list[list[int]]:
    """The rows of every optimiser step. An epoch's last step may be smaller; nothing is dropped or repeated."""
    plan: list[list[int]] = []
    epoch = 0
    while (most is None and epoch < epochs) or (most is not None and len(plan) < most):
        shuffled = order(rows, seed, epoch)
        plan += [shuffled[i : i + batch] for i in range(0, rows, batch)]
        epoch += 1
    return plan if most is None else plan[:most]


def share(groups: Sequence[list[int]], rank: int, world: int) -> list[list[int]]:
    """This rank's groups, filled up with empty ones so that every rank runs the same number and
    no collective waits alone."""
    rounds = -(-len(groups) // world)
    mine = list(groups[rank::world])
    return mine + [[] for _ in range(rounds - len(mine))]


def strangers(contexts: Sequence[bytes], seed: int) -> list[int]:
    """For every row another row with a different context, for estimates over mismatched prompt and response (KTO's z0).
    Empty where all rows share one context: there are no strangers then, and the caller refuses."""
    sizes = Counter(contexts)
    if len(sizes) < 2:
        return []
    # Rows of one context stand together: a shift by the largest group's size leads every row out of its own group,
    # if none is over half.
    ranked = sorted(order(len(contexts), seed, -1), key=lambda i: contexts[i])
    shift = max(sizes.values())
    if 2 * shift <= len(contexts):
        return [j for _, j in sorted(zip(ranked, ranked[shift:] + ranked[:shift], strict=True))]
    others = {c: [i for i in ranked if contexts[i] != c] for c in sizes}
    return [others[c][k % len(others[c])] for k, c in enumerate(contexts)]

"""Checkpoints of a policy as its own opponents: a pool in a folder, which of them is next, and pairs of given winners against
samples of it. What a loss makes of the pairs is not known here, and nothing is trained."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal, get_args

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from penchant.domains.base import Encoded, Samples
from penchant.domains.trained import Trained
from penchant.errors import Refusal
from penchant.feedback.records import Accounting
from penchant.files import write
from penchant.objectives.scored import Labelled, Pairs

Rule = Literal["initial", "latest", "uniform"]
"""Which checkpoint is the opponent: the start; the newest (SPIN, Chen et al. 2024, arXiv 2401.01335; SPIN-Diffusion, Yuan et al.
2024, arXiv 2402.10210); any, all alike (SePPO, Zhang et al. 2024, arXiv 2410.05255)."""


class Pool:
    """A policy's checkpoints in a folder, numbered from 0, the start. Of each only what trains is kept. A run that was stopped
    finds its pool again by opening the folder."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def __len__(self) -> int:
        count = 0
        while self._path(count).exists():
            count += 1
        return count

    def add(self, state: Mapping[str, Tensor]) -> int:
        """Keeps a policy's `state()` as the next checkpoint, whole or not at all, and says its number."""
        number = len(self)
        write(self._path(number), save({name: x.detach().cpu().contiguous() for name, x in state.items()}))
        return number

    def pick(self, rule: str, seed: int) -> int:
        """The number of the opponent in a pool as full as this. "uniform" hangs on the seed and on how many there are, and on
        nothing else. Raises Refusal where the pool is empty."""
        if rule not in get_args(Rule):
            raise Refusal(f"rule={rule!r}; it must be one of {', '.join(get_args(Rule))}.")
        count = len(self)
        if not count:
            raise Refusal(f"{self.folder} holds no checkpoint yet: add the start first.")
        if rule != "uniform":
            return 0 if rule == "initial" else count - 1
        digest = hashlib.sha256(f"opponent {seed} {count}".encode()).digest()
        make = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
        return int(torch.randint(count, (), generator=make))

    def put(self, number: int, twin: Trained) -> None:
        """Makes a frozen copy of the policy (its `twin()`) what the policy was at this checkpoint."""
        path = self._path(number)
        try:
            state = load_file(path)
        except FileNotFoundError as missing:
            raise Refusal(f"{self.folder} has no checkpoint {number}; it holds {len(self)}, from 0.") from missing
        except SafetensorError as broken:
            raise Refusal(f"{path} is broken ({broken}); remove it and those after it, and go on from there.") from broken
        mine = dict(twin.named_parameters())
        for name, x in state.items():
            if name not in mine or mine[name].shape != x.shape:
                raise Refusal(f"{path} holds {name!r} {list(x.shape)}, which this policy has not: it is of another model.")
        with torch.no_grad():
            for name, x in state.items():
                mine[name].copy_(x)

    def _path(self, number: int) -> Path:
        return self.folder / f"checkpoint-{number:04d}.safetensors"


def against(winners: Encoded, samples: Samples) -> Encoded:
    """Pairs of what people gave and what the opponent drew for the same prompts, one for each: the first response of each row of
    `winners` is chosen, that of `samples` rejected. Only winners are needed: of pairs the rejected go unread, and labelled rows
    must be good ones. A pair of one response twice is left out and counted."""
    drawn = samples.encoded
    if len(drawn) != len(winners) or not all(map(torch.equal, drawn.contexts, winners.contexts)):
        raise Refusal(
            f"{len(drawn)} prompts were sampled for {len(winners)} winners; each must be sampled with its own prompt, in order."
        )
    if winners.data is Labelled and not bool(winners.columns["label"].all()):
        bad = winners.numbers[winners.columns["label"].tolist().index(False)]
        raise Refusal(f"row {bad} is labelled bad, but what is learned from here must be good; leave such rows out.")
    both = [(w[0], l[0]) for w, l in zip(winners.responses, drawn.responses, strict=True)]
    kept = [i for i, (w, l) in enumerate(both) if not torch.equal(w, l)]
    left = replace(winners, data=Pairs, weights=None, advantages=None).select(kept)
    same = len(both) - len(kept)
    return replace(
        left,
        responses=tuple(both[i] for i in kept),
        columns={name: x for name, x in left.columns.items() if name == "annotator"},
        accounting=Accounting(read=len(both), kept=len(kept), dropped={"identical": same} if same else {}, identical=same),
    )

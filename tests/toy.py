"""A domain of nothing but numbers: the policy is a table of logits, a response a row of choices. It lets the engine be tested
without a language model; it is no stand-in for one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from penchant.domains.base import Cost, Encoded, Samples, Want
from penchant.feedback.records import Row
from penchant.objectives import Labelled, Pairs, Scored
from penchant.objectives.scored import masks

SIZE, STEPS = 7, 5
PLAIN = Want()


class Table(nn.Module):
    """log π(step | context) = log_softmax(table[context])[step]."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.table = nn.Parameter(torch.randn(SIZE, SIZE, generator=generator))

    def forward(self, contexts: Tensor, tokens: Tensor | None) -> Tensor:
        logp = self.table.log_softmax(-1)
        return logp[contexts] if tokens is None else logp[contexts[:, None], tokens]

    def named_trainable(self) -> Iterator[tuple[str, nn.Parameter]]:
        return self.named_parameters()

    def state(self) -> dict[str, Tensor]:
        return {name: p.detach() for name, p in self.named_parameters()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        self.load_state_dict(dict(state))


class Numbers:
    """The domain of tables."""

    name, noisy = "numbers", False

    def encode(self, rows: Iterable[Row]) -> Encoded:
        raise AssertionError("the toy domain is given encoded rows")

    def sample(self, policy: nn.Module, contexts: Sequence[Any], **how: Any) -> Samples:
        raise AssertionError("the toy domain does not sample")

    def score(self, policy: nn.Module, encoded: Encoded, want: Want = PLAIN) -> Scored:
        mask = masks(encoded.lengths)
        tokens = torch.zeros(mask.shape, dtype=torch.long)
        for i, (_, y) in enumerate(encoded.flat):
            tokens[i, : len(y)] = y
        contexts = torch.stack([c[0] for c, _ in encoded.flat])
        logp = policy(contexts, tokens)
        values = {}
        if "kl" in want.values:  # Σ q (log q − log p); the gradient of a copy's table does not come through a wrapper
            q, p = Table(seed=9).table.log_softmax(-1)[contexts].detach(), policy(contexts, None)
            values["kl"] = torch.where(mask, (q.exp() * (q - p)).sum(-1)[:, None], 0.0)
        if "error" in want.values:
            values["error"] = torch.where(mask, -logp, 0.0)
        return Scored(torch.where(mask, logp, 0.0), mask, values=values)

    def cost(self, policy: nn.Module, encoded: Encoded) -> Cost:
        return Cost(encoded.sizes, padded=True)

    def recombine(self, encoded: Encoded, i: Sequence[int], j: Sequence[int]) -> Encoded:
        pairs = list(zip(i, j, strict=True))
        return replace(encoded.select([a for a, _ in pairs]), responses=tuple((encoded.responses[b][0],) for _, b in pairs))


def rows(n: int, kind: type = Pairs, seed: int = 0) -> Encoded:
    """n rows of unequal lengths, by three annotators."""
    generator = torch.Generator().manual_seed(seed)
    draw = lambda top: int(torch.randint(1, top, (), generator=generator))  # noqa: E731
    say = lambda: torch.randint(0, SIZE, (draw(STEPS + 1),), generator=generator)  # noqa: E731
    each = 2 if kind is Pairs else 1
    columns = {"annotator": torch.arange(n) % 3}
    if kind is Labelled:
        columns["label"] = torch.tensor([i % 3 != 0 for i in range(n)])
    return Encoded(
        kind,
        tuple(torch.tensor([draw(SIZE)]) for _ in range(n)),
        tuple(tuple(say() for _ in range(each)) for _ in range(n)),
        tuple(range(1, n + 1)),
        columns,
        ("ada", "ben", "cho"),
    )

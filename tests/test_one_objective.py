"""One objective aligns a language model, a model of pictures and a policy of an agent: the same object, by the same step. The laws
that concern scoring hold with the real scorer of each."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor

pytest.importorskip("diffusers", reason="pictures need the extra diffusion")

import pipelines
from penchant.domains.base import Domain, Encoded, Want
from penchant.domains.diffusion.domain import Pictures
from penchant.domains.diffusion.loading import of_classes_model
from penchant.domains.policy.actions import Squashed
from penchant.domains.policy.domain import Behaviour
from penchant.domains.policy.policy import built
from penchant.domains.text.models import load
from penchant.engine.precision import Precision
from penchant.engine.settings import Settings
from penchant.engine.sources import Anchors, Scorer
from penchant.engine.step import Material, Step, reads_reference
from penchant.feedback import open_source
from penchant.objectives import Labelled, Lists, Objective, Pairs, Scored, read
from penchant.objectives.base import kinds_of, zeros
from penchant.objectives.scored import Batch

DOMAINS = ("text", "pictures", "policies")
PLAINLY = Precision("fp32", "highest", {})
ROWS = 12


@dataclass
class Bench:
    """One domain with a small policy and rows of every kind that it can learn from."""

    domain: Domain
    policy: Any
    twin: Callable[[], Any]
    rows: dict[type[Batch], Encoded]
    rate: float

    def material(self, objective: Objective, cache: Path) -> Material:
        """The rows that the objective takes, with the log-probs of a copy of the policy as it is."""
        start = self.twin()
        if reads_reference(objective, self.domain):
            self.policy.hold(start)
        scorer = Scorer(self.domain, self.policy, PLAINLY, torch.device("cpu"), 10**6, None, lambda: start)
        anchors = Anchors(scorer, objective, Settings(), Accelerator(cpu=True), cache, lambda *_: None)
        return anchors.material(self.rows[kinds_of(objective)[0]], "rows")

    def step(self, objective: Objective, optimiser: torch.optim.Optimizer, tokens: int = 10**6, clip: float = 1.0) -> Step:
        return Step(
            self.policy, self.domain, objective, optimiser, Accelerator(cpu=True), PLAINLY, tokens=tokens, clip=clip
        )


def text(folder: Path) -> Bench:
    draw = random.Random(0)
    happy, sad = ["good day", "happy cat", "thank you"], ["bad day", "sad cat", "no"]
    ask = lambda i: f"what is it {'day' if i % 2 else 'night'} {i}"  # noqa: E731
    some: dict[type[Batch], list[dict[str, Any]]] = {
        Pairs: [{"prompt": ask(i), "chosen": draw.choice(happy), "rejected": draw.choice(sad)} for i in range(ROWS)],
        Labelled: [
            {"prompt": ask(i), "completion": draw.choice(sad if i % 2 else happy), "label": i % 2 == 0} for i in range(ROWS)
        ],
        Lists: [
            {"prompt": ask(i), "responses": [happy[i % 3], sad[0], sad[1]], "scores": [1.0, 0.0, 0.5]} for i in range(ROWS)
        ],
    }
    loaded = load(folder)
    rows = {kind: loaded.domain.encode(iter(open_source(one))) for kind, one in some.items()}
    return Bench(loaded.domain, loaded.policy, lambda: load(folder).policy.requires_grad_(False), rows, 3e-3)


def encoded(respond: Callable[[int, float], Tensor], context: Callable[[int], Tensor]) -> dict[type[Batch], Encoded]:
    """Rows of every kind from what responds to row i with so much of what is preferred."""
    contexts, numbers = tuple(context(i) for i in range(ROWS)), tuple(range(1, ROWS + 1))
    label = torch.tensor([i % 2 == 0 for i in range(ROWS)])
    graded = tuple(tuple(respond(i, x) for x in (1.0, 0.0, 0.5)) for i in range(ROWS))
    return {
        Pairs: Encoded(Pairs, contexts, tuple((respond(i, 1.0), respond(i, 0.0)) for i in range(ROWS)), numbers),
        Labelled: Encoded(
            Labelled, contexts, tuple((respond(i, float(label[i])),) for i in range(ROWS)), numbers, {"label": label}
        ),
        Lists: Encoded(Lists, contexts, graded, numbers, {"gain": torch.tensor([1.0, 0.0, 0.5] * ROWS)}),
    }


def pictures(folder: Path) -> Bench:
    torch.manual_seed(0)
    network, scheduler = pipelines.of_classes(3)
    policy = of_classes_model(network, scheduler, ["a", "b", "c"])
    make = torch.Generator().manual_seed(1)
    bright = lambda i, x: (torch.rand(1, 1, 8, 8, generator=make) - 0.5 + x).clamp(-1, 1)  # noqa: E731
    rows = encoded(bright, lambda i: torch.tensor([i % 3]))
    return Bench(Pictures(policy, kappa=50.0), policy, policy.twin, rows, 1e-3)


def policies(folder: Path) -> Bench:
    torch.manual_seed(0)
    policy = built(3, Squashed(2), 2, ("walk",), hidden=(16,))
    make = torch.Generator().manual_seed(1)

    def right(i: int, x: float) -> Tensor:
        steps = 3 + i % 4
        seen = torch.randn(steps, 3, generator=make)
        return torch.cat([seen, 0.8 * (x - 0.5) + 0.1 * torch.rand(steps, 2, generator=make)], 1)

    return Bench(Behaviour(policy), policy, policy.twin, encoded(right, lambda i: torch.tensor([0, i])), 1e-2)


@pytest.fixture(params=DOMAINS)
def bench(request: pytest.FixtureRequest, tiny_folder: Path) -> Bench:
    return {"text": text, "pictures": pictures, "policies": policies}[request.param](tiny_folder)


# --- the same object trains all three

SAME = {written: read(written) for written in ("DPO(beta=0.1)", "Consensus(IPO())", "LiPO(beta=0.1)", "ListMLE()", "KTO()")}
"""Made once: each is the one object that all domains are trained with."""


def preference(objective: Objective, y: Batch) -> float:
    """How much more reward the better responses have than the worse."""
    if isinstance(y, Pairs):
        return float((objective.reward(y.w) - objective.reward(y.l)).mean())
    if isinstance(y, Labelled):
        return float(objective.reward(y.good).mean() - objective.reward(y.bad).mean())
    assert isinstance(y, Lists)
    reward = objective.reward(y.y)
    return float(reward[y.gain == 1].mean() - reward[y.gain == 0].mean())


@pytest.mark.parametrize("written", SAME)
def test_the_same_object_trains_a_language_model_pictures_and_a_policy(written: str, bench: Bench, tmp_path: Path):
    objective = SAME[written]
    material = bench.material(objective, tmp_path)
    optimiser = torch.optim.AdamW([p for _, p in bench.policy.named_trainable()], lr=bench.rate, weight_decay=0.0)
    step = bench.step(objective, optimiser)
    state = zeros(objective, {"annotator": 1} if "annotator" in objective.needs.columns else {})
    losses = []
    for n in range(16):
        outcome = step(material, list(range(ROWS)), state, seed=n)
        state = outcome.state
        losses.append(outcome.loss)
    assert sum(losses[-4:]) / 4 < sum(losses[:4]) / 4
    with torch.no_grad():
        assert preference(objective, seen(bench, objective, material)) > 0


def seen(bench: Bench, objective: Objective, material: Material) -> Batch:
    """What the objective sees of all rows now."""
    noisy = bench.domain.noisy
    wanted = frozenset({"ref"} if noisy and "ref" in objective.needs.anchors else ())
    y = bench.domain.score(bench.policy, material.rows, Want(values=wanted, seed=7, draws=8))
    anchors = {"ref": y.values["ref"]} if noisy and wanted else {k: s(range(ROWS)) for k, s in material.anchors.items()}
    return material.rows.batch(Scored(y.logp, y.mask, None, anchors))


# --- the laws of scoring, with each domain's own scorer

LAWFUL = ("DPO(beta=0.1)", "SimPO()", "Consensus(IPO())", "AOT()", "BCO()", "KTO()", "LiPO()", "DPO() + 0.5 * NLL()")


def gradient(bench: Bench, objective: Objective, material: Material, order: list[int], tokens: int) -> dict[str, Tensor]:
    """What one step asks of every parameter."""
    optimiser = torch.optim.SGD([p for _, p in bench.policy.named_trainable()], lr=0.0)
    state = zeros(objective, {"annotator": 1} if "annotator" in objective.needs.columns else {})
    bench.step(objective, optimiser, tokens, clip=1e9)(material, order, state, seed=3)
    return {name: p.grad.clone() for name, p in bench.policy.named_trainable() if p.grad is not None}


def moved(bench: Bench) -> None:
    """Away from the reference, where an objective's slopes differ between rows."""
    torch.manual_seed(5)
    with torch.no_grad():
        for _, p in bench.policy.named_trainable():
            p.add_(0.01 * torch.randn_like(p))


@pytest.mark.parametrize("written", LAWFUL)
def test_neither_micro_batches_nor_padding_nor_order_change_a_step(written: str, bench: Bench, tmp_path: Path):
    objective = read(written)
    material = bench.material(objective, tmp_path)
    moved(bench)
    order = list(range(ROWS))
    whole = gradient(bench, objective, material, order, 10**6)
    scale = max(float(g.abs().max()) for g in whole.values())
    assert scale > 0
    costs = bench.domain.cost(bench.policy, material.rows)
    for other, tokens in ((order, 1), (order[::-1], max(costs.sizes) * 5), (order[::2] + order[1::2], 10**6)):
        again = gradient(bench, objective, material, other, tokens)
        assert again.keys() == whole.keys()
        for name, g in whole.items():
            torch.testing.assert_close(again[name], g, atol=2e-5 * scale, rtol=2e-3)


@pytest.mark.parametrize("written", ["DPO(beta=0.1)", "IPO()", "ListMLE()"])
def test_the_gradient_is_the_slope_of_the_loss(written: str, bench: Bench, tmp_path: Path):
    objective = read(written)
    material = bench.material(objective, tmp_path)
    moved(bench)
    order = list(range(ROWS))
    found = gradient(bench, objective, material, order, 10**6)
    norm = sum(float((g**2).sum()) for g in found.values()) ** 0.5
    named = dict(bench.policy.named_trainable())
    optimiser = torch.optim.SGD(list(named.values()), lr=0.0)
    state = zeros(objective, {"annotator": 1} if "annotator" in objective.needs.columns else {})

    def loss(along: float) -> float:
        with torch.no_grad():
            for name, g in found.items():
                named[name].add_(g, alpha=along / norm)
        said = bench.step(objective, optimiser, clip=1e9)(material, order, state, seed=3).loss
        with torch.no_grad():
            for name, g in found.items():
                named[name].add_(g, alpha=-along / norm)
        return said

    h = 3e-3 if bench.domain.name == "text" else 1e-3
    assert (loss(h) - loss(-h)) / (2 * h) == pytest.approx(norm, rel=0.05)

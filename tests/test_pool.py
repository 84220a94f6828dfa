"""A pool of checkpoints: what was put in comes out again, the rules pick as they say, and winners meet samples of the very
checkpoint that is the reference."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator

pytest.importorskip("diffusers", reason="the extra `diffusion` is not installed")

import pipelines
from penchant.domains.base import Encoded, Want
from penchant.domains.diffusion.domain import Pictures
from penchant.domains.diffusion.loading import Adapter, of_classes_model
from penchant.domains.diffusion.policy import DiffusionPolicy
from penchant.domains.diffusion.sampling import Sampler
from penchant.engine.precision import Precision
from penchant.engine.step import Material, Step
from penchant.errors import Refusal
from penchant.objectives import Labelled, Pairs, SePPO
from penchant.rollouts.pool import Pool, against


def small(adapter: Adapter | None = None) -> DiffusionPolicy:
    network, scheduler = pipelines.of_classes()
    return of_classes_model(network, scheduler, ["boot", "coat", "bag"], adapter)


def winners(n: int = 4) -> Encoded:
    make = torch.Generator().manual_seed(0)
    responses = tuple((torch.randn(1, 1, 8, 8, generator=make),) for _ in range(n))
    contexts = tuple(torch.tensor([i % 3]) for i in range(n))
    return Encoded(Labelled, contexts, responses, tuple(range(5, 5 + n)), {"label": torch.ones(n, dtype=torch.bool)})


def moved(policy: DiffusionPolicy, seed: int) -> None:
    with torch.no_grad():
        for _, p in policy.named_trainable():
            p.add_(0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(seed)))


@pytest.mark.parametrize("adapter", [None, Adapter(2, 4)])
def test_the_reference_is_the_checkpoint_that_was_kept(tmp_path: Path, adapter: Adapter | None):
    policy, domain = small(adapter), Pictures(small())
    pool, rows = Pool(tmp_path / "pool"), winners()
    said = []
    for seed in range(3):
        moved(policy, seed)
        assert pool.add(policy.state()) == seed
        with torch.no_grad():
            said.append(domain.score(policy, rows, Want(seed=1)).logp)
    twin = policy.twin()
    for number in (1, 0, 2):
        Pool(tmp_path / "pool").put(number, twin)  # as a run that goes on would
        policy.hold(twin)
        with torch.no_grad():
            y = domain.score(policy, rows, Want(frozenset({"ref"}), seed=1))
        torch.testing.assert_close(y.value("ref"), said[number], rtol=1e-6, atol=0)  # memory may lie otherwise
        assert torch.equal(y.logp, said[2]) and not torch.allclose(said[number], said[(number + 1) % 3], rtol=1e-4)
    with pytest.raises(Refusal, match="has no checkpoint 3; it holds 3"):
        pool.put(3, twin)
    (tmp_path / "pool" / "checkpoint-0001.safetensors").write_bytes(b"no")
    with pytest.raises(Refusal, match="is broken"):
        pool.put(1, twin)
    pool.add({"model.other": torch.zeros(2)})
    with pytest.raises(Refusal, match=r"'model\.other' \[2\].* of another model"):
        pool.put(3, twin)


def test_the_rules_pick_the_start_the_newest_or_any(tmp_path: Path):
    pool = Pool(tmp_path)
    with pytest.raises(Refusal, match="holds no checkpoint yet"):
        pool.pick("uniform", 0)
    pool.add({"x": torch.zeros(1)})
    assert {pool.pick(rule, seed) for rule in ("initial", "latest", "uniform") for seed in range(5)} == {0}
    for _ in range(3):
        pool.add({"x": torch.zeros(1)})
    assert (pool.pick("initial", 9), pool.pick("latest", 9)) == (0, 3)
    found = Counter(pool.pick("uniform", seed) for seed in range(2000))
    assert sorted(found) == [0, 1, 2, 3] and all(abs(n - 500) < 4 * (500 * 0.75) ** 0.5 for n in found.values())
    assert [Pool(tmp_path).pick("uniform", seed) for seed in range(20)] == [
        pool.pick("uniform", seed) for seed in range(20)
    ]
    with pytest.raises(Refusal, match="rule='random'"):
        pool.pick("random", 0)


def test_winners_alone_are_enough_to_train_on(tmp_path: Path):
    policy, rows = small(), winners()
    domain, pool = Pictures(policy, kappa=50.0, sampler=Sampler(2)), Pool(tmp_path)
    pool.add(policy.state())
    twin = policy.twin()
    pool.put(pool.pick("uniform", 0), twin)
    policy.hold(twin)
    pairs = against(rows, domain.sample(twin, rows.contexts, seed=1, scored=False))
    assert pairs.data is Pairs and pairs.numbers == rows.numbers and not pairs.columns
    assert all(torch.equal(pair[0], w[0]) for pair, w in zip(pairs.responses, rows.responses, strict=True))
    optimiser = torch.optim.SGD([p for _, p in policy.named_trainable()], lr=1e-4)
    step = Step(
        policy, domain, SePPO(), optimiser, Accelerator(cpu=True), Precision("fp32", "highest", {}), tokens=10**6, clip=1.0
    )
    outcome = step(Material(pairs), range(4), {}, seed=3)
    assert outcome.loss == pytest.approx(0.693147, abs=1e-6) and outcome.grad_norm > 0


def test_what_cannot_be_paired_is_refused():
    policy, rows = small(), winners()
    domain = Pictures(policy, sampler=Sampler(2))
    samples = domain.sample(policy, rows.contexts, scored=False)
    with pytest.raises(Refusal, match="its own prompt"):
        against(rows.select([1, 0, 2, 3]), samples)
    one_bad = replace(rows, columns={"label": torch.tensor([True, False, True, True])})
    with pytest.raises(Refusal, match="row 6 is labelled bad"):
        against(one_bad, samples)
    twice = replace(rows, responses=(samples.encoded.responses[0], *rows.responses[1:]))
    kept = against(twice, samples)
    assert kept.numbers == (6, 7, 8) and kept.accounting.dropped == {"identical": 1}

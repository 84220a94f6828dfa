"""Noise by inversion: going up and coming down again gives the picture, better with corrections; what it gives is the noise that
belongs to what was reached; policy and reference meet the same."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("diffusers", reason="the extra `diffusion` is not installed")

import pipelines
from penchant.domains.base import Encoded, Want
from penchant.domains.diffusion.domain import Pictures
from penchant.domains.diffusion.inversion import Inversion
from penchant.domains.diffusion.loading import of_classes_model, process_of
from penchant.domains.diffusion.networks import Classes
from penchant.domains.diffusion.noise import Flow, Level
from penchant.domains.diffusion.policy import DiffusionPolicy
from penchant.domains.diffusion.transitions import Walk, transitions
from penchant.errors import Refusal
from penchant.objectives import Pairs

VARIANCE = 0.25
"""Of the pictures' places, all alike and apart: then what a perfect network gives is known."""


def perfect(scheduler: Any, asked: list[int] | None = None) -> DiffusionPolicy:
    """E[what is to be predicted | x] of pictures N(0, VARIANCE), in float64."""
    process = process_of(scheduler)

    def network(model: torch.nn.Module, x: Tensor, time: Tensor, told: Any) -> Tensor:
        if asked is not None:
            asked.append(len(x))
        level = process.at(time / process.scale) if isinstance(process, Flow) else process.at(time.long())  # pyright: ignore
        a, s = level.spread(level.a, x), level.spread(level.s, x)
        total = a**2 * VARIANCE + s**2
        return (s - a * VARIANCE) * x / total if isinstance(process, Flow) else s * x / total

    model = torch.nn.Linear(1, 1).double()
    return DiffusionPolicy(model, network, process, Classes(["a"]), (1, 8, 8), scheduler=scheduler)


def some(n: int) -> tuple[Tensor, Tensor]:
    x0 = torch.randn(n, 1, 8, 8, generator=torch.Generator().manual_seed(0)).double() * VARIANCE**0.5
    return torch.zeros(n, 1, dtype=torch.long), x0


def there_and_back(policy: DiffusionPolicy, steps: int, corrections: int) -> float:
    """Σ|error| / Σ|picture| of pictures that were inverted to the top and sampled again without noise."""
    ids, x0 = some(50)
    x = Inversion(steps, corrections).inverted(policy, ids, x0, torch.full((50,), steps))
    down = transitions(policy, Walk(steps, 1e-9))
    for k in range(len(down)):
        level = Level(*(v[k].expand(50) for v in (down.level.time, down.level.a, down.level.s)))
        x = down.mean(k, x, policy.predict(x, level, policy.condition(ids)))
    return float((x - x0).abs().sum() / x0.abs().sum())


@pytest.mark.parametrize(("steps", "plain", "renoised"), [(5, 0.378, 0.293), (10, 0.194, 0.125), (20, 0.092, 0.051)])
def test_the_error_of_there_and_back_is_the_worked_one(steps: int, plain: float, renoised: float):
    policy = perfect(pipelines.schedule())
    assert there_and_back(policy, steps, 0) == pytest.approx(plain, rel=0.02)
    assert there_and_back(policy, steps, 1) == pytest.approx(renoised, rel=0.02)


@pytest.mark.parametrize("flowing", [True, False])
def test_with_corrections_inversion_becomes_what_sampling_undoes(flowing: bool):
    scheduler = pipelines.D.FlowMatchEulerDiscreteScheduler() if flowing else pipelines.schedule()
    policy = perfect(scheduler)
    errors = [there_and_back(policy, 10, corrections) for corrections in (0, 1, 2, 4, 8)]
    assert errors == sorted(errors, reverse=True) and errors[-1] < errors[0] / 20


def pairs(n: int) -> tuple[Encoded, Tensor, Tensor]:
    ids, x0 = some(2 * n)
    rows = tuple((x0[2 * i : 2 * i + 1].float(), x0[2 * i + 1 : 2 * i + 2].float()) for i in range(n))
    return Encoded(Pairs, tuple(ids[:n]), rows, tuple(range(1, n + 1))), ids, x0


@pytest.mark.parametrize("flowing", [True, False])
@pytest.mark.parametrize("level", ["grid", "drawn"])
def test_what_is_reached_is_the_picture_in_that_noise_and_a_rows_pictures_share_the_level(flowing: bool, level: str):
    scheduler = pipelines.D.FlowMatchEulerDiscreteScheduler() if flowing else pipelines.schedule()
    asked: list[int] = []
    policy = perfect(scheduler, asked)
    encoded, ids, x0 = pairs(6)
    source, want = Inversion(5, level=level), Want(seed=3, draws=2)
    ids, x0 = ids.repeat_interleave(2, 0), x0.repeat_interleave(2, 0)
    at, noise = source(policy, encoded, ids, x0, want)
    times = at.time.view(6, 2, 2)  # row, picture, draw
    assert torch.equal(times[:, 0], times[:, 1]) and not torch.equal(times[:, 0, 0], times[:, 0, 1])
    ladder = source.ladder(policy)
    drawn, _ = Inversion(5, level="drawn")(policy, encoded, ids, x0, want)
    below = (ladder.time[None, 1:] < drawn.time[:, None]).sum(1)
    z = source.inverted(policy, ids, x0, below.clamp(min=1 if level == "grid" else 0))
    torch.testing.assert_close(at.noised(x0, noise), z, rtol=1e-9, atol=1e-9)
    if level == "grid":
        assert torch.equal(at.time, ladder.time[below.clamp(min=1)])
    asked.clear()
    source(policy, encoded, ids, x0, want)
    assert sum(asked) == 2 * int(below.clamp(min=1 if level == "grid" else 0).sum()), "two calls of the network for a step"


def test_reference_and_policy_are_scored_in_the_same_inverted_noise():
    network, scheduler = pipelines.of_classes()
    policy = of_classes_model(network, scheduler, ["boot", "coat", "bag"])
    policy.hold(policy.twin())
    encoded, _, _ = pairs(3)
    domain = Pictures(policy, noise=Inversion(4))
    y = domain.score(policy, encoded, Want(frozenset({"ref", "error"}), seed=1))
    assert torch.equal(y.logp.detach(), y.value("ref")) and y.logp.requires_grad
    again = domain.score(policy, encoded.select([2]), Want(seed=1))
    torch.testing.assert_close(again.logp, y.logp[4:], rtol=1e-5, atol=1e-3)
    random = Pictures(policy).score(policy, encoded, Want(frozenset({"error"}), seed=1))
    assert not torch.allclose(random.value("error"), y.value("error"), rtol=0.1)


def test_what_cannot_be_inverted_is_refused():
    network, _ = pipelines.of_classes()
    policy = of_classes_model(network, pipelines.schedule("sample"), ["boot", "coat", "bag"])
    with pytest.raises(Refusal, match="predicts pictures"):
        Inversion().ladder(policy)
    with pytest.raises(Refusal, match="corrections=-1"):
        Inversion(corrections=-1)
    with pytest.raises(Refusal, match="level='t'"):
        Inversion(level="t")

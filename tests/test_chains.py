"""Sampling chains: each step's Gaussian against the authors' formulas, `diffusers` and finite differences; a recorded chain is
scored as it was sampled; and a policy gradient over chains does what it should."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from accelerate import Accelerator

pytest.importorskip("diffusers", reason="the extra `diffusion` is not installed")

import pipelines
from penchant.domains.base import Encoded, Samples, Want
from penchant.domains.diffusion.chains import Chains
from penchant.domains.diffusion.domain import Pictures
from penchant.domains.diffusion.loading import Adapter, of_classes_model, of_pipeline
from penchant.domains.diffusion.noise import Flow, VariancePreserving
from penchant.domains.diffusion.policy import DiffusionPolicy
from penchant.domains.diffusion.sampling import Sampler
from penchant.domains.diffusion.transitions import Walk, of_ddim, of_flow, transitions
from penchant.engine.precision import Precision
from penchant.engine.settings import Settings
from penchant.engine.step import Material, Step
from penchant.errors import Refusal
from penchant.feedback.records import Row
from penchant.objectives import CoPG, Pairs, PPOClip, Rollouts
from penchant.rewards.base import Judgement
from penchant.rollouts.advantages import rollout_set
from penchant.running.consistent import consistent

KINDS = pytest.mark.parametrize("flowing", [True, False])
CONTEXTS = [torch.tensor([0]), torch.tensor([2])]


def small(flowing: bool = True, adapter: Adapter | None = None) -> DiffusionPolicy:
    network, scheduler = pipelines.of_classes(flowing=flowing)
    return of_classes_model(network, scheduler, ["boot", "coat", "bag"], adapter)


def chains(policy: DiffusionPolicy, steps: int = 4, eta: float | None = None, **how: Any) -> Chains:
    return Chains(Pictures(policy), Walk(steps, eta), **how)


def density(x: float, mean: float, std: float) -> float:
    return -(((x - mean) / std) ** 2) / 2 - math.log(std) - math.log(2 * math.pi) / 2


# A step's Gaussian --------------------------------------------------------------------------------


def test_a_step_of_ddim_is_the_worked_one():
    """ᾱ = .36 to .49, η = 1, x = .4, ε = .2, x' = .7."""
    process = VariancePreserving(torch.tensor([0.49, 0.36], dtype=torch.float64))
    step = of_ddim(process, torch.tensor([1, 0]), 1.0)
    mean = float(step.mean(0, torch.tensor(0.4).double(), torch.tensor(0.2).double()))
    assert (mean, float(step.std)) == pytest.approx((0.389286, 0.459800), abs=5e-7)
    assert density(0.7, mean, float(step.std)) == pytest.approx(-0.370300, abs=5e-7)


def test_a_step_of_a_flow_is_the_worked_one():
    """s = .8 to .7, η = .7, x = .3, v = .5, x' = .1; without noise it is Euler's step to .25."""
    x, v = torch.tensor(0.3).double(), torch.tensor(0.5).double()
    step = of_flow(Flow(), torch.tensor([0.8, 0.7]).double(), 0.7)
    mean = float(step.mean(0, x, v))
    assert (mean, float(step.std)) == pytest.approx((0.201, 0.442719), abs=5e-7)
    assert density(0.1, mean, float(step.std)) == pytest.approx(-0.130141, abs=5e-7)
    assert float(of_flow(Flow(), torch.tensor([0.8, 0.7]).double(), 1e-6).mean(0, x, v)) == pytest.approx(0.25, abs=1e-9)


def test_the_ends_of_a_flow_have_noise_and_no_infinity():
    """At s = 1 the next s stands for it: g² = .49/(1 − .75); the last step, from .25, keeps g √.25 = .7 · .25/√.75."""
    step = of_flow(Flow(), torch.tensor([1.0, 0.75, 0.5, 0.25, 0.0]).double(), 0.7)
    assert float(step.std[0]) == pytest.approx(math.sqrt(0.49 / 0.25 * 0.25))
    assert float(step.std[-1]) == pytest.approx(0.7 * 0.25 / math.sqrt(0.75))
    assert bool(torch.isfinite(torch.stack([step.keep, step.turn, step.std])).all())


@pytest.mark.parametrize("predicts", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("eta", [0.4, 1.0])
def test_steps_are_those_of_diffusers_ddim(predicts: str, eta: float):
    scheduler = pipelines.schedule(predicts)
    network, _ = pipelines.of_classes()
    policy = of_classes_model(network, scheduler, ["boot", "coat", "bag"])
    mine = transitions(policy, Walk(5, eta))
    scheduler.set_timesteps(5)
    assert mine.level.time.tolist() == scheduler.timesteps.tolist() == [801, 601, 401, 201, 1]
    make = torch.Generator().manual_seed(0)
    x, given, noise = (torch.randn(2, 1, 3, 3, generator=make).double() for _ in range(3))
    for k, t in enumerate(scheduler.timesteps):
        theirs = scheduler.step(given, t, x, eta=eta, variance_noise=noise).prev_sample
        torch.testing.assert_close(mine.mean(k, x, given) + float(mine.std[k]) * noise, theirs, rtol=1e-5, atol=1e-5)


@KINDS
def test_with_hardly_any_noise_a_chain_is_the_pipelines_own_way(flowing: bool):
    policy = small(flowing)
    made = chains(policy, 4, 1e-6).sample(policy, CONTEXTS, count=2, seed=3)
    plain = Pictures(policy, sampler=Sampler(4)).sample(policy, CONTEXTS, count=2, seed=3, scored=False)
    for chain, picture in zip(made.encoded.flat, plain.encoded.flat, strict=True):
        torch.testing.assert_close(chain[1][-1, 1], picture[1][0], rtol=1e-3, atol=1e-3)


# Chains -------------------------------------------------------------------------------------------


@KINDS
@pytest.mark.parametrize("per", ["picture", "place"])
def test_a_chain_is_scored_as_the_sampler_saw_it(flowing: bool, per: Any):
    policy = small(flowing)
    policy.model.double()
    domain = chains(policy, per=per)
    made = domain.sample(policy, CONTEXTS, count=3, seed=5)
    assert made.logp is not None and made.drawn is not None and made.logp.logp.shape == (6, 4)
    torch.testing.assert_close(made.logp.logp, made.drawn.logp, rtol=1e-9, atol=1e-9)
    assert (
        made.encoded.lengths == [4] * 6 and len(made.seen[0]) == 3 and made.encoded.responses[0][0].dtype == torch.float32
    )
    single = chains(small(flowing), per=per).sample(small(flowing), CONTEXTS, count=3, seed=5)
    assert single.logp is not None and single.drawn is not None
    torch.testing.assert_close(single.logp.logp, single.drawn.logp, rtol=1e-5, atol=1e-3)
    again = domain.sample(policy, CONTEXTS[:1], count=1, seed=5)
    torch.testing.assert_close(again.encoded.responses[0][0], made.encoded.responses[0][0], rtol=1e-5, atol=1e-5)


@KINDS
def test_the_score_is_the_gaussians_density_and_its_gradient_the_difference_quotient(flowing: bool):
    policy = small(flowing)
    policy.model.double()
    domain = chains(policy, 3)
    encoded = domain.sample(policy, CONTEXTS, seed=1, scored=False).encoded
    steps = transitions(policy, domain.walk)
    chain, told = encoded.responses[1][0].double(), policy.condition(CONTEXTS[1][None])
    y = domain.score(policy, encoded)
    for k in range(3):
        level = type(steps.level)(*(x[k : k + 1] for x in (steps.level.time, steps.level.a, steps.level.s)))
        with torch.no_grad():
            mean = steps.mean(k, chain[k, :1], policy.predict(chain[k, :1], level, told))
        by_torch = torch.distributions.Normal(mean, float(steps.std[k])).log_prob(chain[k, 1]).sum()
        assert float(y.logp[1, k].detach()) == pytest.approx(float(by_torch), rel=1e-9)
    one = next(p for name, p in policy.named_trainable() if name.endswith("conv_out.bias"))
    (slope,) = torch.autograd.grad(y.logp.sum(), one)
    with torch.no_grad():
        values = []
        for way in (1e-5, -2e-5):
            one.add_(way)
            values.append(float(domain.score(policy, encoded).logp.sum()))
    assert float(slope) == pytest.approx((values[0] - values[1]) / 2e-5, rel=1e-6)


def test_the_divergence_from_the_reference_is_exact():
    """log π/π_ref under chains of the policy itself has KL as its mean, step by step: here by its closed form."""
    policy = small()
    policy.model.double()
    policy.hold(policy.twin())
    domain = chains(policy)
    with torch.no_grad():
        for _, p in policy.named_trainable():
            p.add_(0.03 * torch.randn(p.shape, generator=torch.Generator().manual_seed(1)))
    encoded = domain.sample(policy, CONTEXTS, count=16, seed=2, scored=False).encoded
    with torch.no_grad():
        y = domain.score(policy, encoded, Want(frozenset({"ref", "kl"})))
    gap, kl = y.logp - y.value("ref"), y.value("kl")
    assert bool((kl > 0).all())
    # log π/π_ref = KL + z·√(2 KL) with z ~ N(0, 1)
    z = (gap - kl) / (2 * kl).sqrt()
    assert float(z.mean()) == pytest.approx(0, abs=4 / math.sqrt(z.numel()))
    assert float(z.std()) == pytest.approx(1, abs=4 / math.sqrt(2 * z.numel()))


def test_what_is_no_chain_of_this_walk_is_refused():
    policy = small()
    domain = chains(policy)
    made = domain.sample(policy, CONTEXTS, seed=1)
    with pytest.raises(Refusal, match=r"row 1: a chain \[4, 2, 1, 8, 8\]; here it must be \[5, 2, 1, 8, 8\]"):
        chains(policy, 5).score(policy, made.encoded)
    made.encoded.responses[1][0][2, 0] += 1
    with pytest.raises(Refusal, match=r"row 2: a chain .*each step beginning where"):
        domain.score(policy, made.encoded)
    with pytest.raises(Refusal, match="row 3 is of the kind 'pairs'"):
        domain.encode([Row(3, "pairs", "boot", ("a.png", "b.png"))])
    with pytest.raises(Refusal, match="limit=3: a chain has 4 steps"):
        domain.sample(policy, CONTEXTS, limit=3)
    with pytest.raises(Refusal, match="is not the domain's"):
        domain.sample(policy, CONTEXTS, sampler=Walk(5))
    for wrong in (0.0, -1.0, math.inf):
        with pytest.raises(Refusal, match="without noise has no density"):
            Walk(4, wrong)
    with pytest.raises(Refusal, match=r"eta=1\.5: DDIM"):
        transitions(small(flowing=False), Walk(4, 1.5))
    with pytest.raises(Refusal, match="per='pixel'"):
        chains(policy, per="pixel")
    assert domain.encode([Row(1, "prompts", "boot", ())]).data is Rollouts


@pytest.mark.parametrize("kind", ["sd", "sdxl", "sd3", "flux"])
def test_chains_of_real_pipelines_are_scored_as_sampled(kind: str):
    torch.manual_seed(0)
    policy, _ = of_pipeline(pipelines.PIPELINES[kind]())
    domain = chains(policy, 2)
    made = domain.sample(policy, ["a red boot"], count=2, seed=4)
    assert made.logp is not None and made.drawn is not None
    torch.testing.assert_close(made.logp.logp, made.drawn.logp, rtol=1e-4, atol=1e-2)
    assert made.seen[0][0].size == (16, 16)


# Rollouts -----------------------------------------------------------------------------------------


def judged(made: Samples, rewards: list[float]) -> Judgement:
    reward = torch.tensor(rewards)[:, None]
    return Judgement(reward, ~reward[:, 0].isnan())


def test_advantages_are_the_worked_ones():
    policy = small()
    made = chains(policy, 1).sample(policy, CONTEXTS[:1], count=4, scored=False)
    worked = {
        "grpo": [0.146368, -1.024575, -0.439104, 1.317311],
        "dr-grpo": [0.125, -0.875, -0.375, 1.125],
        "rloo": [0.166667, -1.166667, -0.5, 1.5],
        "flow-grpo": [0.169031 * (0.7395100 + 1e-6) / (0.7395100 + 1e-4)],
    }
    for baseline, wanted in worked.items():
        found = rollout_set(made, judged(made, [1.0, 0.0, 0.5, 2.0]), baseline).encoded
        assert found.columns["advantage"][: len(wanted)].tolist() == pytest.approx(wanted, abs=1e-6)
        assert found.columns["reward"].tolist() == [1.0, 0.0, 0.5, 2.0]


def test_advantages_are_of_the_whole_set_and_what_failed_is_left_out_whole():
    policy = small()
    contexts = [torch.tensor([i]) for i in (0, 1, 2, 0)]
    made = chains(policy, 1).sample(policy, contexts, count=2, scored=False)
    said = judged(made, [1.0, 3.0, 0.1, 0.1, math.nan, 5.0, 10.0, 0.0])
    found = rollout_set(made, said, "flow-grpo")
    assert found.encoded.numbers == (1, 2, 4) and (found.failed, found.level) == (1, 1)
    everything = torch.tensor([1.0, 3.0, 0.1, 0.1, 10.0, 0.0]).double()
    wanted = torch.tensor([-1.0, 1.0, 0.0, 0.0, 5.0, -5.0]).double() / (everything.std(correction=0) + 1e-4)
    torch.testing.assert_close(found.encoded.columns["advantage"], wanted.float())
    with pytest.raises(Refusal, match="judging failed for all 4"):
        rollout_set(made, judged(made, [math.nan] * 8))
    with pytest.raises(Refusal, match="baseline='mean'"):
        rollout_set(made, said, "mean")


def test_a_run_on_a_file_says_that_it_has_no_rollouts():
    with pytest.raises(Refusal, match="neither a file nor a round of pairs has"):
        consistent(PPOClip(), Settings(), None)


@pytest.mark.parametrize("objective", [PPOClip(), CoPG(beta=1.0)], ids=repr)
def test_a_policy_gradient_over_chains_raises_what_was_good(objective: Any):
    policy = small(adapter=None)
    domain = chains(policy)
    made = domain.sample(policy, CONTEXTS, count=4, seed=7)
    ink = [float(y[-1, 1].mean()) for _, y in made.encoded.flat]
    rows = rollout_set(made, judged(made, ink), "rloo").encoded
    assert made.logp is not None
    at = lambda some: made.logp.logp[torch.tensor(rows.places(some))]  # noqa: E731  # pyright: ignore[reportOptionalMemberAccess]
    optimiser = torch.optim.SGD([p for _, p in policy.named_trainable()], lr=1e-3)
    step = Step(
        policy,
        domain,
        objective,
        optimiser,
        Accelerator(cpu=True),
        Precision("fp32", "highest", {}),
        tokens=10**6,
        clip=1e-2,
    )
    outcome = step(Material(rows, {"prev": at, "ref": at}), range(2), {})
    if isinstance(objective, PPOClip):  # every ratio is 1 before the first step
        assert outcome.loss == pytest.approx(-float(rows.columns["advantage"].mean()), abs=1e-4)
        assert outcome.units == {"PPOClip": 8 * 4}
    with torch.no_grad():
        moved = (domain.score(policy, rows).logp - made.logp.logp).sum(1)
    assert float((moved * rows.columns["advantage"]).sum()) > 0


def test_a_chain_may_be_held_against_itself_recombined():
    policy = small()
    domain = chains(policy)
    encoded = domain.sample(policy, CONTEXTS, seed=1, scored=False).encoded
    mixed = domain.recombine(encoded, [0, 1], [1, 0])
    assert torch.equal(mixed.responses[0][0], encoded.responses[1][0]) and mixed.contexts == encoded.contexts
    assert domain.cost(policy, encoded).sizes == [4 * 64] * 2
    assert domain.sample(policy, []).encoded.responses == () and isinstance(encoded, Encoded) and encoded.data is not Pairs

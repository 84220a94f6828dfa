"""Optimal control: targets and losses by hand, what ends a value and what does not, small worlds with known answers, and PEBBLE's
schedule in a world of one number."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from penchant.control.critics import advantage_weight, expectile, follow
from penchant.control.ipl import IPL, Compared, IPLSettings, compared, implied, preference_loss
from penchant.control.iql import IQL, IQLSettings
from penchant.control.living import Living, practise
from penchant.control.pebble import Pebble, PebbleSettings, Spread, novelty
from penchant.control.sac import SAC, SACSettings
from penchant.control.transitions import Memory, Transitions, transitions_of
from penchant.domains.policy.actions import Gaussian, Squashed
from penchant.domains.policy.policy import ControlPolicy, built
from penchant.errors import Refusal
from penchant.feedback.teachers import Teacher
from penchant.feedback.trajectories import Trajectory
from penchant.objectives import BradleyTerry
from penchant.rewards.learned import Fitting, adam
from penchant.rewards.stepwise import Ensemble

SMALL = (16,)


def steps(n: int = 4, seed: int = 0, ended: bool = False, observed: int = 2) -> Transitions:
    draw = torch.Generator().manual_seed(seed)
    return Transitions(
        torch.randn(n, observed, generator=draw),
        2 * torch.rand(n, 1, generator=draw) - 1,
        torch.randn(n, generator=draw),
        torch.randn(n, observed, generator=draw),
        torch.full((n,), ended),
    )


def behaviour(seed: int = 0) -> ControlPolicy:
    torch.manual_seed(seed)
    return built(2, Gaussian(1), 1, ("walk",), SMALL)


def f64(x: Any) -> Tensor:
    return torch.tensor(x, dtype=torch.float64)


# --- steps


def test_what_comes_after_a_cut_is_kept_and_what_comes_after_an_end_is_not_read():
    seen, act = np.arange(3)[:, None], np.zeros((3, 1))
    cut = Trajectory(seen, act, np.ones(3), np.array([9.0]))
    over = Trajectory(seen, act, np.ones(3), None, True)
    lost = Trajectory(seen, act, np.ones(3))
    found = transitions_of([cut, over, lost])
    assert len(found) == 8  # the last step of what was cut without a trace has no value
    assert found.after[:3, 0].tolist() == [1, 2, 9] and found.after[3:5, 0].tolist() == [1, 2]
    assert found.ended.tolist() == [False] * 5 + [True] + [False] * 2


def test_a_full_memory_forgets_the_oldest_and_tells_all_rewards_anew():
    memory = Memory(2, 1, capacity=5)
    memory.add(steps(3, seed=1))
    assert len(memory) == 3
    newer = steps(4, seed=2)
    memory.add(newer)
    assert len(memory) == 5 and torch.equal(memory.all.rewards[[3, 4, 0, 1]], newer.rewards)
    memory.relabel(lambda o, a: o[:, 0] + a[:, 0])
    kept = memory.all
    assert torch.equal(kept.rewards, kept.observations[:, 0] + kept.actions[:, 0])
    assert torch.equal(memory.sample(64).rewards.unique(), kept.rewards.unique())


# --- soft actor-critic


def test_a_squashed_action_that_is_drawn_is_as_probable_as_the_same_one_recorded():
    squashed, features = Squashed(2), torch.randn(5, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    action, logp = squashed.drawn(features, torch.randn(5, 2, dtype=torch.float64))
    assert torch.allclose(logp, squashed.logp(features, action), atol=1e-9)
    far = squashed.drawn(f64([[20.0, 0.0]])[:, [0, 1]].repeat(1, 2)[:, [0, 0, 1, 1]], f64([[0.0, 0.0]]))
    assert torch.isfinite(far[1]).all()  # where tanh rounds to 1


def test_the_target_of_soft_actor_critic_is_the_equation():
    learner = SAC(2, 1, settings=SACSettings(hidden=SMALL, temperature=0.3, discount=0.9), seed=1)
    some, noise = steps(), torch.tensor([[0.5], [-1.0], [0.0], [2.0]])
    features = learner.policy.network(some.after)
    u = features[:, :1] + features[:, 1:].clamp(-5, 2).exp() * noise
    normal = torch.distributions.Normal(features[:, :1], features[:, 1:].clamp(-5, 2).exp())
    logp = (normal.log_prob(u) - torch.log1p(-(torch.tanh(u) ** 2)))[:, 0]
    both = torch.stack([network(torch.cat([some.after, torch.tanh(u)], 1))[:, 0] for network in learner.targets.each])  # pyright: ignore
    expected = some.rewards + 0.9 * (both.min(0).values - 0.3 * logp)
    assert torch.allclose(learner.target(some, noise), expected, atol=1e-5)
    assert torch.equal(learner.target(replace(some, ended=torch.ones(4, dtype=torch.bool)), noise), some.rewards)


def test_soft_actor_critic_finds_the_best_action():
    learner = SAC(1, 1, settings=SACSettings(hidden=SMALL, rate=1e-2))
    make = torch.Generator().manual_seed(0)
    for _ in range(200):
        seen, act = torch.zeros(64, 1), 2 * torch.rand(64, 1, generator=make) - 1
        learner.update(Transitions(seen, act, -10 * (act[:, 0] - 0.5) ** 2, seen, torch.ones(64, dtype=torch.bool)))
    best = learner.policy.act(torch.tensor([[0, -1]]), torch.zeros(1, 1), torch.zeros(1, 1), 0.0)
    assert float(best) == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize(("aim", "sign"), [(5.0, 1), (-5.0, -1)])
def test_the_temperature_rises_where_the_policy_is_too_sure_and_falls_where_it_is_not(aim: float, sign: int):
    learner = SAC(2, 1, settings=SACSettings(hidden=SMALL, entropy=aim, temperature_rate=1e-2))
    learner.update(steps())
    assert np.sign(learner.alpha - 0.1) == sign


def test_slow_critics_follow_by_tau_and_forgotten_ones_are_new():
    learner = SAC(2, 1, settings=SACSettings(hidden=SMALL), seed=0)
    before = [p.clone() for p in learner.targets.parameters()]
    with torch.no_grad():
        for p in learner.critics.parameters():
            p.add_(1.0)
    follow(learner.targets, learner.critics, 0.25)
    assert all(torch.allclose(p, q + 0.25, atol=1e-6) for p, q in zip(learner.targets.parameters(), before, strict=True))
    learner.forget_critics()
    pairs = zip(learner.targets.parameters(), learner.critics.parameters(), strict=True)
    assert all(torch.equal(p, q) and not p.requires_grad for p, q in pairs)


# --- implicit Q-learning


def test_the_value_that_costs_least_is_the_expectile():
    targets, v = f64([0.0, 1.0]), f64(0.7).requires_grad_()
    expectile(targets - v, 0.7).mean().backward()
    assert v.grad is not None and abs(float(v.grad)) < 1e-12  # at 0.7: 0.7 · 0.3 = 0.3 · 0.7
    assert expectile(f64([2.0, -2.0]), 0.9).tolist() == pytest.approx([3.6, 0.4])
    assert expectile(f64([2.0, -2.0]), 0.5).tolist() == [2.0, 2.0]


def test_an_action_is_imitated_by_its_advantage_up_to_a_hundred():
    found = advantage_weight(f64([0.0, 1.0, 1000.0]), 1 / 3, 100.0)
    assert found.tolist() == pytest.approx([1.0, np.exp(3.0), 100.0])


def test_implicit_q_learning_in_a_world_of_two_actions_values_the_expectile_and_takes_the_better():
    learner = IQL(behaviour(), IQLSettings(hidden=SMALL, rate=2e-2, expectile=0.8, tau=0.2), seed=0)
    seen, act = torch.zeros(64, 2), torch.tensor([[-0.5], [0.5]]).repeat(32, 1)
    batch = Transitions(seen, act, (act[:, 0] > 0).float(), seen, torch.ones(64, dtype=torch.bool))
    for _ in range(250):
        learner.update(batch)
    assert torch.allclose(learner.quality(batch).detach(), batch.rewards.expand(2, -1), atol=0.02)
    assert float(learner.worth(seen[:1]).detach()) == pytest.approx(0.8, abs=0.03)  # the 0.8-expectile of 0 and 1
    done = learner.policy.act(torch.tensor([[0, -1]]), seen[:1], torch.zeros(1, 1), 0.0)
    # weights e^{3 · 0.2} and e^{−3 · 0.8}: 0.5 (e^{0.6} − e^{−2.4}) / (e^{0.6} + e^{−2.4})
    assert float(done) == pytest.approx(0.5 * np.tanh(1.5), abs=0.03)


def test_what_ends_has_no_value_afterwards_and_a_time_limit_ends_nothing():
    learner = IQL(behaviour(), IQLSettings(hidden=SMALL, discount=0.9))
    some = steps()
    with torch.no_grad():
        assert torch.allclose(learner.target(some), some.rewards + 0.9 * learner.worth(some.after))
    assert torch.equal(learner.target(steps(ended=True)), steps(ended=True).rewards)


# --- inverse preference learning


def test_inverse_preference_learning_is_the_papers_numbers():
    quality = f64([[1.0, 0.8, 0.5, 0.4, 0.6, 0.9]]).requires_grad_()
    rewards = implied(quality, f64([0.7, 0.5, 0.2, 0.5, 0.7, 0.6]), 0.99)
    assert rewards[0].tolist() == pytest.approx([0.307, 0.305, 0.302, -0.095, -0.093, 0.306], abs=1e-12)
    told = preference_loss(rewards.unflatten(1, (1, 2, 3)), f64([1.0]), BradleyTerry(strength=True))
    square = 0.5 * (rewards**2).mean()
    found = [float(x.detach()) for x in (told, square, told + square)]
    assert found == pytest.approx([0.372342, 0.032482, 0.404825], abs=1e-6)
    told.backward()
    assert quality.grad is not None and float(quality.grad[0, 0]) == pytest.approx(-float(1 - torch.exp(-told.detach())))


def test_the_bound_on_later_values_is_one_over_the_regulariser():
    some = steps()
    free, held = (IPL(behaviour(), IPLSettings(hidden=SMALL, regular=50.0, bound=bound)) for bound in (False, True))
    for one in (free, held):
        with torch.no_grad():
            one.value.layers[-1].bias.fill_(7.0)  # pyright: ignore
    most = 1 / (50.0 * 0.01)
    with torch.no_grad():
        assert torch.allclose(held.rewards(some), held.quality(some) - 0.99 * most)
        assert float((free.rewards(some) - free.quality(some)).min()) < -0.99 * most * 2
        over = replace(some, ended=torch.ones(4, dtype=torch.bool))
        assert torch.equal(held.rewards(over), held.quality(over))


def segment(good: float, seed: int) -> Trajectory:
    draw = np.random.default_rng(seed)
    act = np.clip(good + 0.3 * draw.normal(size=(3, 1)), -1, 1)
    return Trajectory(draw.normal(size=(3, 2)), act, act[:, 0], draw.normal(size=2))


def test_inverse_preference_learning_prefers_what_was_preferred():
    first, second = [segment(0.5, i) for i in range(24)], [segment(-0.5, 100 + i) for i in range(24)]
    said = Teacher().answer(first, second).first
    pairs = compared(first, second, torch.from_numpy(said).float())
    assert len(pairs) == 24 and torch.equal(
        pairs[torch.tensor([3])].steps.actions[:3, 0], torch.from_numpy(first[3].actions[:, 0])
    )
    learner = IPL(behaviour(), IPLSettings(hidden=SMALL, rate=1e-2, tau=0.05), seed=0)
    for _ in range(80):
        learner.update(pairs, steps(16))
    seen = torch.zeros(2, 2)
    with torch.no_grad():
        worth = learner.critics(learner.seen(seen), torch.tensor([[0.5], [-0.5]])).amin(0)
    assert float(worth[0]) > float(worth[1])
    assert float(learner.policy.act(torch.tensor([[0, -1]]), seen[:1], torch.zeros(1, 1), 0.0)) > 0.1


# --- PEBBLE


class Line:
    """A point on a line that an action moves; it earns minus its distance from 1."""

    observed, acted, choices = 1, 1, None

    def reset(self, seed: int) -> Any:
        self.x = float(np.random.default_rng(seed).uniform(-1, 0))
        return np.array([self.x])

    def step(self, action: Any) -> Any:
        self.x = float(np.clip(self.x + 0.3 * action[0], -2, 2))
        return np.array([self.x]), 3 - abs(self.x - 1), False, False, {}


def test_novelty_is_the_distance_to_the_kth_other():
    every = torch.tensor([[0.0], [1.0], [3.0], [10.0]])
    assert novelty(every, every, 1).tolist() == [1, 1, 2, 7]
    assert torch.equal(novelty(every, every, 2, at_once=1), novelty(every, every, 2))
    seen, spread = torch.randn(40, generator=torch.Generator().manual_seed(0)) + 3, Spread()
    for part in seen.split(7):
        spread.add(part)
    assert spread.deviation == pytest.approx(float(seen.std(correction=0)), rel=1e-2)


def test_pebble_asks_on_its_schedule_and_tells_all_rewards_anew():
    living = Living(Line(), limit=10, seed=0)
    learner = SAC(1, 1, settings=SACSettings(hidden=(8,)), seed=0)
    model, memory = Ensemble(1, 1, members=2, hidden=(8,)), Memory(1, 1, 2000)
    its = PebbleSettings(
        first=30, unsupervised=20, interact=30, queries=20, budget=50, segment=5, epochs=5, batch=16, after_reset=5
    )
    loop = Pebble(living, learner, Fitting(model, batch=16, optimiser=adam(3e-3)), Teacher(), memory, its)
    before = [p.clone() for p in learner.policy.parameters()]
    sessions = loop.run(130)
    assert [(s.step, s.asked, s.answered) for s in sessions] == [(50, 20, 20), (80, 20, 20), (110, 10, 10)]
    assert len(loop.asked[2]) == 50 and len(memory) == 130 and len(living.lived) == 13
    assert torch.allclose(memory.all.rewards, loop.reward(memory.all.observations, memory.all.actions), atol=1e-6)
    assert not torch.equal(before[0], next(learner.policy.parameters()))


def test_a_session_in_which_all_is_skipped_teaches_nothing():
    living, learner = Living(Line(), limit=10), SAC(1, 1, settings=SACSettings(hidden=(8,)))
    memory, model = Memory(1, 1, 100), Ensemble(1, 1, members=1, hidden=(8,))
    its = PebbleSettings(first=20, unsupervised=1, queries=4, segment=5, batch=8, after_reset=1)
    found = Pebble(living, learner, Fitting(model), Teacher(skip=100.0), memory, its).run(23)
    assert [(s.asked, s.answered) for s in found] == [(4, 0)] and found[0].accuracy != found[0].accuracy


def test_practice_begins_after_the_first_steps_and_a_time_limit_is_no_end():
    living, memory, learner = Living(Line(), limit=4), Memory(1, 1, 50), SAC(1, 1, settings=SACSettings(hidden=(8,)))
    before = [p.clone() for p in learner.policy.parameters()]
    practise(living, learner, memory, 12, first=12, batch=8)
    assert all(torch.equal(p, q) for p, q in zip(before, learner.policy.parameters(), strict=True))
    practise(living, learner, memory, 3, first=1, batch=8)
    assert not torch.equal(before[0], next(learner.policy.parameters()))
    assert len(living.lived) == 3 and not memory.all.ended.any()
    assert living.returns[0] == pytest.approx(float(memory.all.rewards[:4].sum()), abs=1e-5)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: SACSettings(discount=1.0), "discount=1.0"),
        (lambda: SACSettings(temperature=0.0), "temperature"),
        (lambda: IQLSettings(expectile=1.0), "expectile"),
        (lambda: IPLSettings(regular=0.0), "regular"),
        (lambda: PebbleSettings(queries=0), "queries=0"),
        (lambda: Memory(1, 1, 3).sample(1), "nothing is remembered"),
        (lambda: Compared(steps(5), torch.ones(2)), "one length"),
        (lambda: compared([segment(0, 0)], [segment(0, 1)[:2]], torch.ones(1)), "pair 1"),
        (lambda: Living(Line(), limit=0), "limit=0"),
        (lambda: transitions_of([]), "no trajectories"),
    ],
)
def test_what_cannot_be_controlled_is_refused(make: Any, said: str):
    with pytest.raises(Refusal, match=said):
        make()

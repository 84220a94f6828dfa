"""The bandits of recipes/bandits.py against numbers worked out by hand or in closed form; what is learned on them is a claim, of
which a small run is here and the whole among the claims."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from penchant.objectives import DPO, NLL, Labelled, Lists, Pairs, Scored
from penchant.objectives.base import Objective


@pytest.fixture
def bandits(recipe: Callable[[str], ModuleType]) -> ModuleType:
    return recipe("bandits")


def worth(reward: Callable[[Tensor], Tensor], *action: float) -> float:
    return float(reward(torch.tensor([action], dtype=torch.float64)))


def test_rewards_are_the_papers_bumps(bandits: ModuleType) -> None:
    r = bandits.REWARDS
    assert worth(r["R4"], 70) == 1 and worth(r["R4"], 60) == pytest.approx(math.exp(-1)) and worth(r["R5"], 20) == 1
    assert worth(r["R1"], *[0.7] * 10) == worth(r["R2"], *[0.7] * 10) == worth(r["R3"], *[-0.7] * 10) == 1
    # the distance is that of the whole action: a tenth off in each of ten dimensions is √0.1 in all
    assert worth(r["R1"], *[0.6] * 10) == pytest.approx(math.exp(-0.1 / 0.75**2))
    assert worth(r["R8"], 50) == worth(r["R9"], 40) == pytest.approx(math.exp(-1))
    assert worth(r["R6"], 70, 60, 0) == pytest.approx((1 + math.exp(-1) + math.exp(-49)) / 3)
    assert worth(r["R7"], 20, 20) == 1


def test_the_law_of_the_data_has_its_exact_masses_density_and_rewards(bandits: ModuleType) -> None:
    law = bandits.TanhCauchy()
    masses, every = law.masses(), torch.arange(100)[:, None]
    assert float(masses.sum()) == pytest.approx(1) and int(masses.argmax()) == 0
    expected = {0: 0.0781, 99: 0.0422, 16: 0.0268, 70: 0.0021}
    assert {i: round(float(masses[i]), 4) for i in expected} == expected
    assert 1 + int(masses[1:-1].argmax()) == 16 and int((masses.cumsum(0) >= 0.5).nonzero()[0]) == 19
    assert (round(float(masses[15:26].sum()), 3), round(float(masses[60:81].sum()), 4)) == (0.259, 0.0457)
    rewards = {name: round(float(masses @ bandits.REWARDS[name](every)), 4) for name in ("R4", "R5")}
    assert rewards == {"R4": 0.0390, "R5": 0.3772}
    torch.manual_seed(0)
    cauchy = torch.distributions.Cauchy(torch.tensor(-0.7, dtype=torch.float64), 0.4)
    squashed = torch.distributions.TransformedDistribution(cauchy, [torch.distributions.TanhTransform()])
    a = torch.tensor([[-0.9, -0.6, 0.0, 0.7]], dtype=torch.float64)
    torch.testing.assert_close(law(torch.zeros(1), a), squashed.log_prob(a))
    draws = bandits.TanhCauchy(1).sample(40_000, torch.Generator().manual_seed(0))
    counted = torch.histc(draws[:, 0], 100, -1, 1) / len(draws)
    assert float((counted[2:-2] - masses[2:-2]).abs().max()) < 0.005  # four standard errors; the cut tails lie outside


def test_all_pairs_of_a_state_and_how_many_samples_give_so_many(bandits: ModuleType) -> None:
    rewards = torch.tensor([0.1, 0.9, 0.5, 0.9], dtype=torch.float64)
    pairs = bandits.ordered(rewards)
    assert len(bandits.ordered(torch.rand(10))) == 45 and len(pairs) == 6
    assert all(rewards[w] >= rewards[l] for w, l in pairs) and (3, 1) in pairs  # of equals the one drawn later wins
    assert sorted(bandits.ordered(rewards, threshold=0.3)) == [(1, 0), (1, 2), (2, 0), (3, 0), (3, 2)]
    rows = bandits.rows(Pairs, torch.arange(20).view(2, 10, 1), torch.rand(2, 10))
    assert len(rows) == 90 and rows.numbers.count(1) == 45
    for n in range(1, 200):
        enough = bandits.samples_for(n)
        assert enough * (enough - 1) // 2 >= n > (enough - 1) * (enough - 2) // 2
        assert enough == math.ceil(0.5 * (1 + math.sqrt(1 + 8 * n)))  # the authors'
    assert bandits.samples_for(45) == 10


def lists(logits: Tensor, gains: list[list[float]]) -> Lists:
    """Samples 0, 1, 2, … of every state, with the log-probs of one softmax."""
    group = torch.arange(len(gains)).repeat_interleave(len(gains[0]))
    logp = logits.log_softmax(-1)[torch.arange(len(gains[0])).repeat(len(gains))][:, None]
    return Lists(Scored(logp, logp == logp, logp.detach() - 1), group, torch.tensor(gains, dtype=torch.float64).flatten())


def slope(objective: Objective, gains: list[list[float]]) -> Tensor:
    logits = torch.tensor([0.3, -0.2, 0.1, 0.5, -0.7], dtype=torch.float64, requires_grad=True)
    return torch.autograd.grad(objective(lists(logits, gains)).mean(), logits)[0]


GAINS = [[0.2, 0.9, 0.1], [0.4, 0.3, 0.8]]


def test_best_of_n_without_push_is_plain_and_its_pushes_are_as_said(bandits: ModuleType) -> None:
    plain = slope(bandits.BestOfN(), GAINS)
    for pushed in ("worst", "mean", "sum"):
        torch.testing.assert_close(slope(bandits.BestOfN(beta=0, pushed=pushed), GAINS), plain)
    logits = torch.tensor([0.3, -0.2, 0.1, 0.5, -0.7], dtype=torch.float64)
    y = logits.log_softmax(-1)[:3]
    said = {how: bandits.BestOfN(beta=0.5, pushed=how)(lists(logits, GAINS))[0] for how in ("worst", "mean", "sum")}
    assert float(said["worst"]) == pytest.approx(float(-y[1] + 0.5 * y[2]))
    assert float(said["mean"]) == pytest.approx(float(-y[1] + 0.25 * (y[0] + y[2])))
    assert float(said["sum"]) == pytest.approx(float(-y[1] + 0.5 * (y[0] + y[2])))


def test_a_constrained_push_changes_the_loss_and_not_its_gradient(bandits: ModuleType) -> None:
    free, held = (bandits.BestOfN(beta=0.3, pushed="sum", counted=how) for how in ("free", "constrained"))
    torch.testing.assert_close(slope(free, GAINS), slope(held, GAINS))
    some = lists(torch.zeros(5, dtype=torch.float64), GAINS)
    assert held.needs.anchors == {"ref"} and not torch.allclose(free(some), held(some))


def test_rwr_goes_from_imitation_of_all_samples_to_imitation_of_the_best(bandits: ModuleType) -> None:
    direction = lambda g: g / g.norm()  # noqa: E731
    logits = torch.tensor([0.3, -0.2, 0.1, 0.5, -0.7], dtype=torch.float64, requires_grad=True)
    some = lists(logits, GAINS)
    imitated = NLL(reduction="sum")(Labelled(some.y, torch.ones(6, dtype=torch.bool)))
    (every,) = torch.autograd.grad(imitated.mean(), logits)
    torch.testing.assert_close(slope(bandits.RWR(beta=1e6), GAINS), every, atol=1e-6, rtol=0)
    one = [GAINS[0]]
    torch.testing.assert_close(direction(slope(bandits.RWR(beta=5e-3), one)), direction(slope(bandits.BestOfN(), one)))


def test_reinforce_leaves_one_out_and_ppo_is_the_same_on_fresh_samples(bandits: ModuleType) -> None:
    some = lists(torch.zeros(5, dtype=torch.float64), [[1.0, 0.0, 0.5, 2.0]])
    torch.testing.assert_close(bandits.left_out(some), torch.tensor([1.0, -7.0, -3.0, 9.0], dtype=torch.float64) / 6)
    fresh = Lists(Scored(some.y.logp, some.y.mask, None, {"prev": some.y.logp}), some.group, some.gain)
    assert torch.equal(bandits.PPOClip()(fresh), -bandits.left_out(some))
    data = bandits.Table(bandits.TanhCauchy().masses())
    ends = {}
    for name, objective in (("REINFORCE", bandits.Reinforce()), ("PPO", bandits.PPOClip())):
        for inner in (1, 3):
            policy = bandits.Table(bandits.TanhCauchy().masses())
            way = bandits.Way(epochs=4, inner=inner, rate=0.5)
            assert list(bandits.learn(policy, objective, bandits.REWARDS["R5"], data, way, 0)) == [80, 160, 240, 320]
            ends[name, inner] = policy.theta.detach().clone()
    # one step on fresh samples: the ratio is 1, nothing is clipped
    torch.testing.assert_close(ends["PPO", 1], ends["REINFORCE", 1], atol=1e-9, rtol=0)
    assert not torch.allclose(ends["PPO", 3], ends["REINFORCE", 3], atol=1e-2)


def test_dpo_leaves_the_logits_of_other_actions_alone_and_weaker_pushes_do_not(bandits: ModuleType) -> None:
    """d(−log π_w + β log π_l)/d logit_k = (1 − β) π_k for every other action k."""
    logits = torch.tensor([0.3, -0.2, 0.1, 0.5, -0.7], dtype=torch.float64, requires_grad=True)
    pi = logits.detach().softmax(-1)
    for beta in (0.0, 0.4, 1.0):
        g = slope(bandits.BestOfN(beta=beta, pushed="worst"), [[0.2, 0.9, 0.1]])
        others = torch.tensor([0, 3, 4])
        torch.testing.assert_close(g[others], (1 - beta) * pi[others])
    logp = logits.log_softmax(-1)[:, None]
    one = lambda k: Scored(logp[[k]], logp[[k]] == logp[[k]], logp[[k]].detach() * 0 - 1)  # noqa: E731
    (g,) = torch.autograd.grad(DPO(beta=0.3)(Pairs(one(1), one(2))).sum(), logits)
    assert float(g[[0, 3, 4]].abs().max()) < 1e-15 and float(g[1]) == pytest.approx(-float(g[2])) != 0


def test_policies_start_as_the_law_of_the_data_or_its_likeliest_fit(bandits: ModuleType) -> None:
    masses, make = bandits.TanhCauchy().masses(), torch.Generator().manual_seed(0)
    tokens, reward = bandits.Tokens(masses, 0), bandits.REWARDS["R6"]
    actions = tokens.sample(5, make)
    torch.testing.assert_close(tokens(torch.zeros(5), actions), masses.log()[actions])
    start = bandits.look(tokens, reward, bandits.Tokens(masses, 0), count=50)
    assert abs(start.kl) < 1e-12 and start.error < 1e-12  # KL is 0 at the start, whatever was drawn
    table = bandits.look(bandits.Table(masses), bandits.REWARDS["R4"], bandits.Table(masses))
    assert table.kl == pytest.approx(0) and table.entropy == pytest.approx(float(-(masses * masses.log()).sum()))
    draws = bandits.TanhCauchy().sample(500, make)
    gaussian = bandits.TanhGaussian(draws)
    loss = -gaussian(torch.zeros(500), draws).sum(-1).mean()
    assert all(float(g.abs().max()) < 1e-9 for g in torch.autograd.grad(loss, list(gaussian.parameters())))
    assert float(gaussian.sample(200, make).abs().max()) <= 0.99
    away = bandits.look(gaussian, bandits.REWARDS["R1"], bandits.TanhCauchy())
    assert away.kl > -3 * away.error and away.error > 0


def test_a_later_token_does_not_change_what_was_said_of_an_earlier_one(bandits: ModuleType) -> None:
    tokens = bandits.Tokens(bandits.TanhCauchy().masses(), 0)
    torch.nn.init.normal_(tokens.head.weight, generator=torch.Generator().manual_seed(1))
    a, b = torch.tensor([[3, 4, 5, 6]]), torch.tensor([[3, 4, 9, 6]])
    one, other = (tokens(torch.zeros(1), x)[0] for x in (a, b))
    torch.testing.assert_close(one[:2], other[:2])
    assert not torch.isclose(one[3], other[3])


def test_a_short_study_has_the_claims_directions(recipe: Callable[[str], ModuleType]) -> None:
    module: Any = recipe("onpolicy_suboptimal")
    kinds = {name: replace(kind, way=replace(kind.way, epochs=30, states=3)) for name, kind in module.KINDS.items()}
    far = module.compared(kinds["tanh-Gaussian"], "R1", ("Best-of-N", "DPO"), seeds=(0,))
    rewards = {arm: (far.values(arm, "offline")[0], far.values(arm, "on-policy")[0]) for arm in far.runs}
    assert rewards["DPO"][0] > 3 * rewards["Best-of-N"][0]  # the parametric policy follows the push
    assert all(on > off for off, on in rewards.values())
    table = module.compared(kinds["table"], "R4", ("Best-of-N", "DPO"), seeds=(0,))
    assert table.values("Best-of-N", "offline")[0] > table.values("DPO", "offline")[0]  # the reverse, with free logits
    assert module.before(kinds["table"], "R4") == pytest.approx(0.0390, abs=1e-4)

"""Episodes and their log-probs to the last bit: what is drawn hangs on seeds alone, whatever goes on beside it, and half precision
in a network does not reach the actions."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from penchant.domains.base import Encoded
from penchant.domains.policy import worlds
from penchant.domains.policy.actions import Actions, Binned, Categorical, Gaussian, Squashed, WideGaussian
from penchant.domains.policy.domain import Behaviour, flat
from penchant.domains.policy.policy import built
from penchant.domains.policy.rollouts import Stage
from penchant.errors import Refusal
from penchant.feedback.behaviour import open_trajectories
from penchant.feedback.trajectories import Trajectory
from penchant.objectives import Pairs

KINDS: list[Actions] = [Squashed(1), Binned(1)]


@pytest.mark.parametrize("actions", KINDS, ids=lambda x: x.kind)
def test_episodes_are_the_same_however_many_go_on_at_once(actions: Actions):
    """Matrix products of one row and of many round otherwise; a pendulum lets last bits grow."""
    pytest.importorskip("gymnasium", reason="needs the extra embodied")
    torch.manual_seed(0)
    policy = built(3, actions, 1, ("Pendulum-v1",), hidden=(64, 64))
    asked = [torch.tensor([0, 4]), torch.tensor([0, -1]), torch.tensor([0, 9])]
    sets = [Stage(worlds.make, n).episodes(policy, asked, 2, 40, seed=2) for n in (1, 5)]
    digests = [[y.digest for y in found] for found in sets]
    assert digests[0] == digests[1] and len(set(digests[0])) == 6
    assert policy.network is not policy.acting().network, "the policy itself stays as it is"
    assert {p.dtype for p in policy.parameters()} == {torch.float32}


def test_one_rows_episodes_start_alike_so_that_they_can_be_compared():
    pytest.importorskip("gymnasium", reason="needs the extra embodied")
    policy = built(3, Gaussian(1), 1, ("Pendulum-v1",), hidden=(4,))
    domain = Behaviour(policy, stage=Stage(worlds.make, 3))
    made = domain.sample(policy, ["Pendulum-v1", "Pendulum-v1", "Pendulum-v1 seed 3"], count=3, limit=2, seed=1)
    assert made.shown is not None
    starts = [{y.observations[0].tobytes() for y in ys} for ys in made.shown]
    assert [len(x) for x in starts] == [1, 1, 1] and len(set.union(*starts)) == 3
    other = domain.sample(policy, ["Pendulum-v1"], count=1, limit=2, seed=2)
    assert other.shown is not None and other.shown[0][0].observations[0].tobytes() not in set.union(*starts)


def test_a_world_that_was_used_is_as_a_new_one():
    pytest.importorskip("metaworld", reason="needs the extra embodied")
    world = worlds.make("push-v3")
    draw = np.random.default_rng(0)
    acts = draw.uniform(-1, 1, (8, 4)).astype(np.float32)

    def played(seed: int) -> list[np.ndarray]:
        return [world.reset(seed), *(world.step(a)[0] for a in acts)]

    first, other, again = played(4), played(5), played(4)
    assert all(map(np.array_equal, first, again)) and not np.array_equal(first[-1], other[-1])


@pytest.mark.parametrize(
    "actions", [Gaussian(2, -4.0), WideGaussian(2), Squashed(2), Binned(2, bins=300)], ids=lambda x: x.kind
)
def test_half_precision_in_the_network_does_not_round_the_actions(actions: Actions):
    """Where features are exact in bfloat16 the log-probs are those of float64."""
    features = torch.randn(50, actions.size, generator=torch.Generator().manual_seed(0)).bfloat16()
    taken = torch.rand(50, 2, generator=torch.Generator().manual_seed(1)) * 1.8 - 0.9
    found = actions.logp(features, taken)
    exact = actions.double().logp(features.double(), taken.double())
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), exact, rtol=1e-4, atol=1e-3)
    assert Categorical(3).logp(torch.zeros(4, 3).bfloat16(), torch.ones(4, 1)).dtype == torch.float32


def test_the_bins_of_openvla_are_255():
    """As its tokenizer counts: 256 edges, np.digitize, and the middles between edges."""
    edges = np.linspace(-1, 1, 256)
    taken = np.random.default_rng(0).uniform(-1, 1, 5000)
    number = np.clip(np.digitize(taken, edges) - 1, 0, 254)
    bins = Binned(1, bins=255)
    assert bins.number(torch.tensor(taken)).tolist() == number.tolist()
    middles = ((edges[:-1] + edges[1:]) / 2)[number]
    np.testing.assert_allclose(bins.middle(torch.tensor(number)).numpy(), middles, atol=1e-12)


def test_under_autocast_a_policy_scores_the_actions_that_were_taken():
    torch.manual_seed(0)
    policy = built(3, Gaussian(2, -4.0), 2, ("walk",), hidden=(8,))
    make = torch.Generator().manual_seed(0)
    ys = tuple(torch.randn(5, 5, generator=make) for _ in range(2))
    rows = Encoded(Pairs, (torch.tensor([0, 0]),), (ys,), (1,))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        found = Behaviour(policy).score(policy, rows).logp
        seen = torch.stack([y[:, :3] for y in ys])
        mean = policy.network(policy.seen(torch.zeros(2, 2, dtype=torch.long), seen)).double()
    wanted = torch.distributions.Normal(mean, np.exp(-4.0)).log_prob(torch.stack([y[:, 3:] for y in ys]).double()).sum(-1)
    torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=1e-2)


def test_a_step_does_not_count_less_than_nothing():
    y = Trajectory(np.zeros((2, 3)), np.zeros((2, 2)), info={"weight": np.array([1.0, -1.0])})
    source, archive = open_trajectories([{"prompt": "walk", "chosen": y, "rejected": y[:1]}])
    policy = built(3, Gaussian(2), 2, ("walk",), hidden=(4,))
    with pytest.raises(Refusal, match=r"row 1, chosen: .*info 'weight': -1; a step counts 0 or more"):
        Behaviour(policy, opened=archive.open).encode(iter(source))
    assert flat(y).shape == (2, 5)

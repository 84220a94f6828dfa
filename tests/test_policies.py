"""Behaviour as something to align: log-probs against torch's own distributions, trajectories of unequal length, rollouts that
hang on seeds alone, feedback read from files, and the numbers of methods for policies."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save, save_file
from scipy import integrate
from torch import Tensor, nn
from torch.distributions import Categorical as TorchCategorical
from torch.distributions import Normal

from penchant.domains.base import Encoded, Want
from penchant.domains.policy import worlds
from penchant.domains.policy.actions import (
    Actions,
    Binned,
    Categorical,
    Gaussian,
    Squashed,
    Tokens,
    WideGaussian,
    actions_of,
)
from penchant.domains.policy.domain import Behaviour, flat
from penchant.domains.policy.policy import MLP, ControlPolicy, built, load
from penchant.domains.policy.rollouts import Stage
from penchant.domains.policy.tasks import context_of
from penchant.errors import Refusal
from penchant.feedback.behaviour import open_trajectories, to_bytes, write_trajectories
from penchant.feedback.problems import DataRefusal
from penchant.feedback.trajectories import Trajectory
from penchant.objectives import CPL, DPO, BradleyTerry, Pairs
from penchant.objectives.scored import Scored

OBSERVED, ACTED = 3, 2
KINDS: list[Actions] = [Gaussian(2), WideGaussian(2), Squashed(2), Binned(2, bins=8)]


def walk(steps: int, seed: int = 0, **more: Any) -> Trajectory:
    draw = np.random.default_rng(seed)
    return Trajectory(draw.normal(size=(steps, OBSERVED)), draw.uniform(-0.9, 0.9, (steps, ACTED)), **more)


def policy(actions: Actions | None = None, seed: int = 0, tasks: tuple[str, ...] = ("walk",)) -> ControlPolicy:
    torch.manual_seed(seed)
    actions = Gaussian(ACTED) if actions is None else actions
    return built(OBSERVED, actions, actions.acted, tasks, hidden=(8,))


def pairs(*both: tuple[Trajectory, Trajectory], weights: Any = None) -> Encoded:
    return Encoded(
        Pairs,
        tuple(torch.tensor([0, -1]) for _ in both),
        tuple((flat(w), flat(l)) for w, l in both),
        tuple(range(1, len(both) + 1)),
        weights=weights,
    )


# --- distributions


def test_densities_are_those_of_torch():
    torch.manual_seed(0)
    features, actions = torch.rand(5, 4, 4, dtype=torch.float64), torch.rand(5, 4, 2, dtype=torch.float64) - 0.5
    mean, log_std = features.chunk(2, -1)
    found = WideGaussian(2).double().logp(features, actions)
    torch.testing.assert_close(found, Normal(mean, log_std.exp()).log_prob(actions).sum(-1))
    plain = Gaussian(2, log_std=-0.5).double()
    torch.testing.assert_close(plain.logp(mean, actions), Normal(mean, math.exp(-0.5)).log_prob(actions).sum(-1))
    torch.testing.assert_close(plain.entropy(mean), Normal(mean, math.exp(-0.5)).entropy().sum(-1))
    chosen = torch.randint(4, (5, 4, 1))
    torch.testing.assert_close(
        Categorical(4).logp(features, chosen.double()), TorchCategorical(logits=features).log_prob(chosen[..., 0])
    )


def test_a_squashed_density_integrates_to_one_and_its_entropy_is_its_own():
    told = torch.tensor([[0.4, -0.3]], dtype=torch.float64)  # μ, log σ of one number
    one = Squashed(1)
    edge = torch.linspace(-1, 1, 400_001, dtype=torch.float64)
    middle = (edge[:-1] + edge[1:]) / 2
    width = edge[1] - edge[0]
    logp = one.logp(told.expand(len(middle), 2), middle[:, None])
    assert float((logp.exp() * width).sum()) == pytest.approx(1, abs=1e-6)
    entropy = -float((logp.exp() * logp * width).sum())
    assert float(one.entropy(told)) == pytest.approx(entropy, abs=1e-5)
    assert torch.isfinite(one.logp(told, torch.ones(1, 1, dtype=torch.float64)))


@pytest.mark.parametrize(("mean", "log_std"), [(0.0, 2.0), (5.0, 2.0), (-0.7, 0.0), (3.0, -5.0)])
def test_a_squashed_entropy_is_right_for_wide_and_narrow_distributions(mean: float, log_std: float):
    std = math.exp(log_std)
    slope = lambda u: -2 * float(np.log(np.cosh(u)))  # noqa: E731
    inside = lambda u: math.exp(-0.5 * ((u - mean) / std) ** 2) / (std * math.sqrt(2 * math.pi)) * slope(u)  # noqa: E731
    ends = (mean - 10 * std, mean + 10 * std)
    told, _ = integrate.quad(inside, *ends, points=[0.0] if ends[0] < 0 < ends[1] else None, limit=500, epsabs=1e-11)
    found = Squashed(1).entropy(torch.tensor([mean, log_std], dtype=torch.float64))
    assert float(found) == pytest.approx(log_std + 0.5 * math.log(2 * math.pi * math.e) + told, abs=1e-5)


@pytest.mark.parametrize("kind", [Gaussian(2), WideGaussian(2), Squashed(2), Binned(2, bins=5), Categorical(4)])
def test_what_is_drawn_is_as_probable_as_is_said(kind: Actions):
    """The mean of −log π over draws is the entropy."""
    torch.manual_seed(1)
    features = torch.randn(1, kind.size, dtype=torch.float64).expand(20_000, -1)
    generator = torch.Generator().manual_seed(0)
    noise = torch.stack([kind.noise(generator) for _ in range(20_000)])
    kind = kind.double()
    with torch.no_grad():
        surprise = -kind.logp(features, kind.draw(features, noise))
        entropy = float(kind.entropy(features)[0])
    assert float(surprise.mean()) == pytest.approx(entropy, abs=4 * float(surprise.std()) / math.sqrt(20_000))


def test_the_bin_of_an_action_that_was_drawn_is_the_bin_that_was_drawn():
    kind = Binned(1, bins=256)
    every = torch.arange(256)[:, None]
    assert torch.equal(kind.number(kind.middle(every).float()), every)
    assert kind.number(torch.tensor([[-1.0], [1.0], [7.0], [-7.0]]))[:, 0].tolist() == [0, 255, 255, 0]


class Speaker(nn.Module):
    """Place d reads what was seen and the bins before d."""

    def __init__(self, size: int, acted: int, bins: int) -> None:
        super().__init__()
        self.seen = nn.Linear(size, acted * bins)
        self.before = nn.Embedding(bins, bins)
        self.acted, self.bins = acted, bins

    def forward(self, features: Tensor, number: Tensor) -> Tensor:
        told = self.before(number).cumsum(1)
        earlier = torch.cat([torch.zeros_like(told[:, :1]), told[:, :-1]], 1)
        return self.seen(features).view(-1, self.acted, self.bins) + earlier


def test_tokens_that_hang_on_each_other_sum_to_one_over_all_actions_and_are_drawn_as_they_are_scored():
    torch.manual_seed(0)
    kind = Tokens(Speaker(3, 2, 4), 3, 2, bins=4).double()
    features = torch.randn(1, 3, dtype=torch.float64)
    every = torch.cartesian_prod(torch.arange(4), torch.arange(4))
    with torch.no_grad():
        p = kind.logp(features.expand(16, -1), kind.middle(every)).exp()
        generator = torch.Generator().manual_seed(0)
        noise = torch.stack([kind.noise(generator) for _ in range(20_000)])
        drawn = kind.number(kind.draw(features.expand(20_000, -1), noise))
    assert float(p.sum()) == pytest.approx(1)
    share = torch.bincount(drawn[:, 0] * 4 + drawn[:, 1], minlength=16) / 20_000
    assert float((share - p).abs().max()) < 0.015


def test_an_action_that_is_no_choice_is_refused():
    with pytest.raises(Refusal, match=r"an action is 1\.5"):
        Categorical(3).logp(torch.zeros(1, 3), torch.tensor([[1.5]]))


# --- scoring


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.kind)
def test_padding_batching_and_order_change_nothing(kind: Actions):
    model = policy(kind).double()
    rows = pairs((walk(3), walk(7, 1)), (walk(5, 2), walk(1, 3)))
    domain = Behaviour(model)
    whole = domain.score(model, rows, Want(values=frozenset({"entropy"})))
    for i, (_, y) in enumerate(rows.flat):
        alone = Encoded(Pairs, rows.contexts[:1], ((y, y),), (1,))
        one = domain.score(model, alone, Want(values=frozenset({"entropy"})))
        torch.testing.assert_close(one.logp[0], whole.logp[i, : len(y)])
        torch.testing.assert_close(one.values["entropy"][0], whole.values["entropy"][i, : len(y)])
        assert not whole.logp[i, len(y) :].any()
    assert [int(n) for n in whole.length] == [3, 7, 5, 1]


def test_several_tasks_are_told_apart():
    model = policy(tasks=("walk", "run"))
    y = flat(walk(4))
    both = Encoded(Pairs, (torch.tensor([0, -1]), torch.tensor([1, -1])), ((y, y), (y, y)), (1, 2))
    logp = Behaviour(model).score(model, both).logp
    assert torch.equal(logp[0], logp[1]) and not torch.equal(logp[0], logp[2])


def test_observations_are_read_as_they_were_normalised():
    model, y = policy(), walk(200)
    before = Behaviour(model).score(model, pairs((y, y))).logp
    model.normalise(torch.from_numpy(y.observations))
    moved = replace_observations(y, (y.observations - y.observations.mean(0)) / y.observations.std(0))
    plain = policy()
    torch.testing.assert_close(
        Behaviour(model).score(model, pairs((y, y))).logp, Behaviour(plain).score(plain, pairs((moved, moved))).logp
    )
    assert not torch.equal(before, Behaviour(model).score(model, pairs((y, y))).logp)


def replace_observations(y: Trajectory, observations: Any) -> Trajectory:
    return replace(y, observations=observations)


def scored(*logp: tuple[float, ...]) -> Scored:
    x = torch.tensor(logp, dtype=torch.float64)
    return Scored(x, torch.ones_like(x, dtype=torch.bool))


def test_trajectory_preference_optimisation_is_dpo_of_sums():
    """The worked numbers of GRAPE (arXiv 2411.19309): the margin, the loss, the same gradient for every step."""
    w, l = torch.tensor([[-1.0, -2.0, -0.5]]).double(), torch.tensor([[-1.5, -1.0, -2.5]]).double()
    refs = torch.tensor([[-1.2, -2.5, -0.9]]).double(), torch.tensor([[-1.0, -1.4, -2.0]]).double()
    w.requires_grad_(), l.requires_grad_()
    mask = torch.ones(1, 3, dtype=torch.bool)
    loss = DPO(beta=0.1)(Pairs(Scored(w, mask, refs[0]), Scored(l, mask, refs[1])))
    assert float(loss.detach()) == pytest.approx(0.611755, abs=1e-6)
    loss.sum().backward()
    assert w.grad is not None and l.grad is not None
    torch.testing.assert_close(w.grad, torch.full_like(w, -0.045760), atol=1e-6, rtol=0)
    torch.testing.assert_close(l.grad, torch.full_like(l, 0.045760), atol=1e-6, rtol=0)


def test_contrastive_preferences_of_segments_have_the_cards_numbers():
    batch = Pairs(scored((-1.0, -2.0, -1.5)), scored((-2.0, -1.0, -3.0)))
    for bias, loss in ((0.5, 0.770957), (1.0, 0.620957)):
        assert float(CPL(alpha=0.1, bias=bias)(batch)) == pytest.approx(loss, abs=1e-6)


def test_a_reward_model_scores_a_segment_by_the_weighted_sum_of_its_steps():
    torch.manual_seed(0)
    model = built(OBSERVED, None, ACTED, ("walk",), hidden=(8,))
    a, b = walk(3), walk(5, 1)
    domain, rows = Behaviour(model), pairs((a, b))
    steps = [model.network(flat(y)) for y in (a, b)]
    found = domain.score(model, rows, Want(head="reward"))
    torch.testing.assert_close(found.logp[:, 0], torch.stack([x.sum() for x in steps]))
    by = [torch.tensor([1.0, 0.0, 2.0]), torch.tensor([0.5, 0.5, 0.0, 0.0, 1.0])]
    weighed = domain.score(model, replace(rows, weights=((by[0], by[1]),)), Want(head="reward"))
    torch.testing.assert_close(
        weighed.logp[:, 0], torch.stack([(x[:, 0] * w).sum() for x, w in zip(steps, by, strict=True)])
    )
    assert float(BradleyTerry()(rows.batch(found)).detach()) > 0
    with pytest.raises(Refusal, match="no head 'lm'"):
        domain.score(model, rows)


def test_what_is_not_known_of_behaviour_is_refused():
    model = policy()
    domain, rows = Behaviour(model), pairs((walk(3), walk(3, 1)))
    for want, said in (
        (Want(values=frozenset({"error"})), "valid are entropy"),
        (Want(temperature=0.5), "temperature"),
        (Want(head="reward"), "no head 'reward'"),
    ):
        with pytest.raises(Refusal, match=said):
            domain.score(model, rows, want)


# --- keeping


@pytest.mark.parametrize("kind", [*KINDS, Categorical(3)], ids=lambda kind: kind.kind)
def test_a_saved_policy_is_the_same_policy(kind: Actions, tmp_path: Path):
    model = policy(kind, tasks=("walk", "run"))
    model.normalise(torch.randn(20, OBSERVED))
    model.save(tmp_path)
    again = load(str(tmp_path))
    assert again.tasks == model.tasks and again.actions is not None and again.actions.told() == kind.told()
    for name, x in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], x)
    assert actions_of(kind.told()).told() == kind.told()


@pytest.mark.parametrize(
    ("said", "match"),
    [
        ({"format": "another"}, "is no"),
        ({"actions": {"kind": "dice"}}, "dice"),
        ({"actions": [1]}, "an object of kind and settings"),
        ({"tasks": [1]}, "must be names"),
        ({"acted": 3}, "acted=3, but the distribution is of actions of 2"),
        ({"hidden": [9]}, "cannot be read"),
    ],
)
def test_a_folder_that_holds_no_policy_is_refused(said: dict[str, Any], match: str, tmp_path: Path):
    with pytest.raises(Refusal, match=r"holds no policy\.json"):
        load(str(tmp_path))
    policy().save(tmp_path)
    told = json.loads((tmp_path / "policy.json").read_text())
    (tmp_path / "policy.json").write_text(json.dumps(told | said))
    with pytest.raises(Refusal, match=match):
        load(str(tmp_path))


def test_broken_weights_are_refused_and_double_precision_is_kept(tmp_path: Path):
    policy().double().save(tmp_path)
    assert next(load(str(tmp_path)).parameters()).dtype == torch.float64
    file = tmp_path / "policy.safetensors"
    whole, tensors = file.read_bytes(), load_file(file)
    for broken, said in (
        (whole[:60], "cannot be read"),
        (save({**tensors, "mean": tensors["mean"] + math.nan}), "mean holds numbers that are not finite"),
        (save({**tensors, "std": tensors["std"] * 0}), "must be above 0"),
    ):
        file.write_bytes(broken)
        with pytest.raises(Refusal, match=said):
            load(str(tmp_path))


def test_a_network_of_ones_own_is_scored_and_not_saved_here(tmp_path: Path):
    own = ControlPolicy(nn.Sequential(nn.Linear(OBSERVED, ACTED)), Gaussian(ACTED), OBSERVED, ACTED, ["walk"])
    assert torch.isfinite(Behaviour(own).score(own, pairs((walk(3), walk(2, 1)))).logp).all()
    with pytest.raises(Refusal, match="MLP"):
        own.save(tmp_path)


# --- feedback


def test_trajectories_come_from_files_segments_rows_and_python(tmp_path: Path):
    y = walk(6, rewards=np.arange(6.0), final=np.ones(OBSERVED), ended=True, info={"cost": np.arange(6.0)})
    (tmp_path / "a.safetensors").write_bytes(to_bytes(y))
    inline = {"observations": y.observations.tolist(), "actions": y.actions.tolist()}
    rows = [
        {"prompt": "walk", "chosen": "a.safetensors", "rejected": "a.safetensors[1:4]", "strength": 0.5},
        {"prompt": "walk", "chosen": inline, "rejected": "a.safetensors[:2]"},
        {"prompt": "walk", "chosen": y[2:5], "rejected": walk(2, 9)},
    ]
    source, archive = open_trajectories(rows, root=tmp_path)
    read = [[archive.open(name) for name in row.responses] for row in source]
    assert read[0][0].digest == y.digest and read[0][1].digest == y[1:4].digest and source[0].strength == 0.5
    assert np.array_equal(read[1][0].observations, y.observations) and read[1][1].digest == y[:2].digest
    assert read[2][0].digest == y[2:5].digest
    model = policy()
    encoded = Behaviour(model, opened=archive.open).encode(iter(source))
    assert encoded.lengths == [6, 3, 6, 2, 3, 2] and encoded.weights is None
    assert torch.equal(encoded.responses[0][1], flat(y)[1:4])


def test_what_was_written_is_read_again_and_a_file_that_changed_is_refused(tmp_path: Path):
    rows = [{"prompt": "walk", "responses": [walk(3, i), walk(4, i + 9)], "scores": [1.0, 2.0]} for i in range(3)]
    source, archive = open_trajectories(write_trajectories(rows, tmp_path))
    assert source.kind == "lists" and len(source) == 3
    names = source[0].responses
    assert [archive.open(name).digest for name in names] == [walk(3).digest, walk(4, 9).digest]
    (tmp_path / names[0].partition("#")[0]).write_bytes(to_bytes(walk(5)))
    with pytest.raises(Refusal, match="not what it was"):
        archive.open(names[0])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("b.safetensors", "no file that is there"),
        ("../out.safetensors", "leads out"),
        ("https://example.org/a.safetensors", "address"),
        ("bad.safetensors", "no safetensors file"),
        ("nan.safetensors", "finite"),
        ("a.safetensors[4:4]", "no segment"),
        ({"observations": [[0.0, 1.0, 2.0]]}, "lacks actions"),
        ({"observations": [[0.0], [1.0, 2.0]], "actions": [[0.0], [0.0]]}, "no array"),
        ({"observations": [[0.0]], "actions": [[0.0]], "reward": [1.0]}, "did you mean 'rewards'"),
        ({"observations": [[0.0]], "actions": [[0.0]]}, "those before have"),
        ({"observations": 3, "actions": [[0.0]]}, "steps, observed"),
        ({"observations": [[1e300]], "actions": [[0.0]]}, "finite"),
        ("half.safetensors", "no safetensors file"),
        ("minari:../../out/0", "minari:NAME/EPISODE|embodied"),
        (3, "a trajectory is"),
        ("minari:none/0", "no episode|embodied"),
        ("minari:none", "minari:NAME/EPISODE|embodied"),
    ],
)
def test_broken_trajectories_are_refused_by_their_row(given: Any, said: str, tmp_path: Path):
    (tmp_path / "rows").mkdir()
    (tmp_path / "out.safetensors").write_bytes(to_bytes(walk(3)))
    (tmp_path / "rows" / "a.safetensors").write_bytes(to_bytes(walk(6)))
    (tmp_path / "rows" / "bad.safetensors").write_bytes(b"no tensors")
    save_file(
        {"observations": torch.full((2, 3), math.nan), "actions": torch.zeros(2, 2)}, tmp_path / "rows" / "nan.safetensors"
    )
    half = {"observations": torch.zeros(2, 3, dtype=torch.bfloat16), "actions": torch.zeros(2, 2)}
    save_file(half, tmp_path / "rows" / "half.safetensors")
    good = {"prompt": "walk", "chosen": "a.safetensors", "rejected": "a.safetensors[:2]"}
    with pytest.raises(DataRefusal, match=f"(?s)row 2, rejected.*({said})"):
        open_trajectories([good, {**good, "rejected": given}], root=tmp_path / "rows")


def test_masks_and_discounts_become_weights_of_steps():
    a = walk(3, info={"weight": np.array([1.0, 0.0, 2.0])})
    source, archive = open_trajectories([{"prompt": "walk", "chosen": a, "rejected": walk(2, 1)}] * 1)
    encoded = Behaviour(policy(), opened=archive.open, discount=0.5).encode(iter(source))
    assert encoded.weights is not None
    assert [w.tolist() for w in encoded.weights[0]] == [[1.0, 0.0, 0.5], [1.0, 0.5]]
    assert encoded.weight.tolist() == [[1.0, 0.0, 0.5], [1.0, 0.5, 0.0]] and encoded.accounting.weighted == 1


def test_rows_that_do_not_fit_the_policy_are_refused_and_equal_ones_left_out():
    domain = Behaviour(policy(), opened={"x": walk(3), "z": Trajectory(np.zeros((2, 4)), np.zeros((2, 2)))}.__getitem__)
    source, _ = open_trajectories([{"prompt": "walk", "chosen": walk(3), "rejected": walk(2)}])
    row = source[0]
    assert domain.encode([replace(row, responses=("x", "x"))]).accounting.dropped == {"identical": 1}
    with pytest.raises(Refusal, match=r"row 1, rejected: .*observations of 4"):
        domain.encode([replace(row, responses=("x", "z"))])
    with pytest.raises(Refusal, match=r"row 1, prompt: .*did you mean 'walk'"):
        domain.encode([replace(row, prompt="wlak")])


def test_a_prompt_names_a_task_and_perhaps_a_start():
    tasks = ("reach-v3", "push seed 3")
    assert context_of("reach-v3", tasks).tolist() == [0, -1]
    assert context_of("reach-v3 seed 17", tasks).tolist() == [0, 17]
    assert context_of("push seed 3", tasks).tolist() == [1, -1]
    assert context_of("push seed 3 seed 4", tasks).tolist() == [1, 4]


# --- rollouts


class Point:
    """A point on a line, pushed by actions; it ends beyond 1."""

    observed, acted, choices = 3, 2, None

    def reset(self, seed: int) -> np.ndarray:
        self.at, self.steps = np.random.default_rng(seed).normal(size=3).astype(np.float32) * 0.1, 0
        return self.at.copy()

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.at = (self.at + 0.3 * np.array([action[0], action[1], 0.1])).astype(np.float32)
        self.steps += 1
        far = bool(abs(self.at[0]) > 1)
        return self.at.copy(), -float(abs(self.at[0])), far, self.steps >= 30, {"far": far, "words": "no number"}


def test_rollouts_hang_on_seeds_alone_and_say_what_they_did():
    model = policy()
    asked = [torch.tensor([0, -1]), torch.tensor([0, 5]), torch.tensor([0, 5])]
    sets = [Stage(lambda task: Point(), at_once).episodes(model, asked, 2, 20, seed=3) for at_once in (1, 4, 4)]
    for one, other in zip(sets[0], sets[1], strict=True):
        assert one.digest == other.digest
    assert [y.digest for y in sets[1]] == [y.digest for y in sets[2]]
    starts = [y.observations[0].tolist() for y in sets[0]]
    assert starts[2] == starts[3] == starts[4] == starts[5] and starts[0] == starts[1] != starts[2]
    assert len({y.actions.tobytes() for y in sets[0]}) == 6
    for y in sets[0]:
        assert len(y) <= 20 and y.ended == bool(y.info["far"][-1]) and set(y.info) == {"far"} and y.final is not None
        assert y.rewards is not None and y.rewards[-1] == pytest.approx(-abs(y.final[0]))


def test_samples_are_scored_as_they_were_drawn_and_shown_as_trajectories():
    model = policy()
    domain = Behaviour(model, stage=Stage(lambda task: Point()))
    made = domain.sample(model, ["walk seed 1", "walk"], count=2, limit=6, seed=1)
    assert made.shown is not None and made.logp is not None
    for k, y in enumerate(y for ys in made.shown for y in ys):
        alone = domain.score(model, pairs((y, y))).logp[0]
        torch.testing.assert_close(made.logp.logp[k, : len(y)], alone, atol=1e-5, rtol=1e-5)
    greedy = domain.sample(model, ["walk seed 1"], count=2, limit=6, temperature=0.0, seed=1)
    assert greedy.shown is not None and greedy.shown[0][0].digest == greedy.shown[0][1].digest
    with pytest.raises(Refusal, match="top_p"):
        domain.sample(model, ["walk"], top_p=0.5)


def test_a_policy_that_does_not_fit_the_world_is_refused():
    small = built(2, Gaussian(2), 2, ("walk",), hidden=(4,))
    with pytest.raises(Refusal, match="observations of 3"):
        Stage(lambda task: Point()).episodes(small, [torch.tensor([0, 0])], 1, 3, seed=0)


def test_environments_of_gymnasium_are_worlds():
    pytest.importorskip("gymnasium", reason="needs the extra embodied")
    choosing, pushing = worlds.make("CartPole-v1"), worlds.make("Pendulum-v1")
    assert (choosing.observed, choosing.acted, choosing.choices) == (4, 1, 2)
    assert (pushing.observed, pushing.acted, pushing.choices) == (3, 1, None)
    assert np.array_equal(choosing.reset(3), choosing.reset(3)) and not np.array_equal(choosing.reset(3), choosing.reset(4))
    model = built(4, Categorical(2), 1, ("CartPole-v1",), hidden=(4,))
    y = Stage(worlds.make, 2).episodes(model, [torch.tensor([0, 7])], 1, 400, seed=0)[0]
    assert y.ended and y.rewards is not None and y.rewards.sum() == len(y) and set(np.unique(y.actions)) <= {0.0, 1.0}
    pushing.reset(0)
    seen, reward, *_ = pushing.step(np.array([99.0]))  # beyond the box, which is [−2, 2]
    assert seen.shape == (3,) and math.isfinite(reward)
    with pytest.raises(Refusal, match="neither one of Meta-World nor"):
        worlds.make("no-such-v3")


def test_a_task_of_meta_world_starts_as_its_seed_says():
    pytest.importorskip("metaworld", reason="needs the extra embodied")
    world = worlds.make("reach-v3")
    first, again, other = world.reset(4), world.reset(4), world.reset(5)
    assert np.array_equal(first, again) and not np.array_equal(first[-3:], other[-3:]) and first[-3:].any()
    _, _, _, _, told = world.step(np.zeros(4))
    assert "success" in told


def test_without_gymnasium_a_sentence_names_the_extra(monkeypatch: pytest.MonkeyPatch):
    import sys

    monkeypatch.setitem(sys.modules, "gymnasium", None)
    with pytest.raises(Refusal, match=r'pip install "penchant\[embodied\]"'):
        worlds.make("CartPole-v1")


def test_an_episode_of_a_local_minari_set_is_a_trajectory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    minari = pytest.importorskip("minari", reason="needs the extra embodied")
    import gymnasium

    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    seen = np.arange(15, dtype=np.float32).reshape(5, 3)
    buffer = minari.data_collector.EpisodeBuffer(
        id=0, observations=seen, actions=seen[:4, :2], rewards=[1.0, 2.0, 3.0, 4.0], terminations=[False] * 3 + [True],
        truncations=[False] * 4,
    )  # fmt: skip
    box = gymnasium.spaces.Box(-100, 100, (3,)), gymnasium.spaces.Box(-100, 100, (2,))
    with pytest.warns(UserWarning):
        minari.create_dataset_from_buffers("test/walk-v0", [buffer], observation_space=box[0], action_space=box[1])
    rows = [{"prompt": "walk", "chosen": "minari:test/walk-v0/0", "rejected": "minari:test/walk-v0/0[1:3]"}]
    source, archive = open_trajectories(rows)
    whole, part = (archive.open(name) for name in source[0].responses)
    assert len(whole) == 4 and whole.ended and whole.final is not None and whole.final.tolist() == [12, 13, 14]
    assert whole.rewards is not None and whole.rewards.tolist() == [1, 2, 3, 4] and part.digest == whole[1:3].digest
    assert MLP(3, 2)(torch.from_numpy(whole.observations)).shape == (4, 2)

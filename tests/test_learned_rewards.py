"""Rewards learnt from preferences between segments: the card's numbers, the identity of the weighted sum, what pads and constants
do, that a known reward is found again, and that a model in a folder is the one that was saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from penchant.domains.base import Encoded, Want
from penchant.domains.policy.domain import Behaviour, flat
from penchant.domains.policy.policy import ControlPolicy
from penchant.errors import Refusal
from penchant.feedback.teachers import Teacher
from penchant.feedback.trajectories import Trajectory
from penchant.objectives import CPL, DPO, BradleyTerry
from penchant.objectives.scored import Labelled, Pairs, Scored
from penchant.rewards.base import Context
from penchant.rewards.learned import Fitting, LearnedReward, adam, earned, load, loss_of, save, warmed, wins
from penchant.rewards.preference_transformer import PreferenceTransformer, preference_attention
from penchant.rewards.steps import Steps, steps_of
from penchant.rewards.stepwise import Ensemble, StepRewards, pooled

FIRST, SECOND = [[0.1, 0.4, -0.2]], [[0.3, 0.1, 0.2]]


def f64(x: Any) -> Tensor:
    return torch.tensor(x, dtype=torch.float64)


def scored(logp: Tensor, ref: Tensor | None = None) -> Scored:
    return Scored(logp, torch.ones_like(logp, dtype=torch.bool), ref)


def small(kind: str = "ensemble", **more: Any) -> StepRewards:
    torch.manual_seed(0)
    if kind == "ensemble":
        return Ensemble(2, 1, members=2, hidden=(16,), **more)
    return PreferenceTransformer(2, 1, size=16, layers=2, heads=2, dropout=0.0, longest=9, **more)


def walks(count: int, lengths: tuple[int, ...] = (6,), seed: int = 0) -> list[Trajectory]:
    """Whose reward is 0.3 (the first number that is seen + the action)."""
    draw = np.random.default_rng(seed)
    out = []
    for i in range(count):
        steps = lengths[i % len(lengths)]
        seen, act = draw.normal(size=(steps, 2)), draw.uniform(-1, 1, (steps, 1))
        out.append(Trajectory(seen, act, 0.3 * (seen[:, 0] + act[:, 0])))
    return out


@pytest.mark.parametrize(
    ("objective", "p", "loss"),
    [
        (BradleyTerry(strength=True), 0.0, 0.554355),
        (BradleyTerry(strength=True), 0.5, 0.704355),
        (BradleyTerry(strength=True, lapse=0.1), 0.0, 0.567399),
    ],
)
def test_segments_are_compared_by_the_sums_of_their_rewards(objective: BradleyTerry, p: float, loss: float):
    r1, r2 = f64(FIRST).requires_grad_(), f64(SECOND).requires_grad_()
    there = torch.ones(1, 3, dtype=torch.bool)
    found = loss_of(objective, pooled(r1, there, "sum"), pooled(r2, there, "sum"), f64([p]))
    assert float(found.detach()) == pytest.approx(loss, abs=5e-7)
    found.sum().backward()
    if objective == BradleyTerry(strength=True) and p == 0.0:
        assert r1.grad is not None and r2.grad is not None
        assert r1.grad[0].tolist() == pytest.approx([0.425557] * 3, abs=5e-7)
        assert r2.grad[0].tolist() == pytest.approx([-0.425557] * 3, abs=5e-7)


def test_a_constant_on_all_rewards_matters_only_between_segments_of_unequal_length():
    r1, r2 = f64(FIRST), f64(SECOND)
    whole, shorter = torch.ones(1, 3, dtype=torch.bool), torch.tensor([[True, True, False]])
    said = lambda c, mask: float(  # noqa: E731
        loss_of(BradleyTerry(strength=True), pooled(r1 + c, whole, "sum"), pooled(r2 + c, mask, "sum"), f64([1.0]))
    )
    assert said(5.0, whole) == pytest.approx(said(0.0, whole), abs=1e-12)
    assert abs(said(5.0, shorter) - said(0.0, shorter)) > 0.01


def test_contrastive_preference_learning_is_the_papers_and_unbiased_against_a_reference_it_is_dpo():
    w, l = f64([[-1.0, -2.0, -1.5]]).requires_grad_(), f64([[-2.0, -1.0, -3.0]]).requires_grad_()
    loss = CPL(alpha=0.1, bias=0.5)(scored(w), scored(l))
    loss.sum().backward()
    assert float(loss.detach()) == pytest.approx(0.770957, abs=5e-7)
    assert w.grad is not None and l.grad is not None
    assert [*w.grad[0].tolist(), *l.grad[0].tolist()] == pytest.approx([-0.053743] * 3 + [0.026871] * 3, abs=1e-6)
    w, l = w.detach(), l.detach()
    assert float(CPL(alpha=0.1, bias=1.0)(scored(w), scored(l))) == pytest.approx(0.620957, abs=5e-7)
    assert float(CPL(alpha=0.1, bias=0.5, gamma=0.99)(scored(w), scored(l))) == pytest.approx(0.770151, abs=1e-6)
    pair = Pairs(scored(w, l - 0.3), scored(l, w + 0.2))
    assert torch.equal(CPL(alpha=0.1, bias=1.0, kl=True)(pair), DPO(beta=0.1)(pair))


def test_the_weighted_sum_of_rewards_is_the_mean_of_what_every_step_attends_to():
    q, r = f64([[[0.1, 0.2], [0.3, -0.1], [0.0, 0.4]]]), f64([[1.0, 2.0, -1.0]])
    score, weight = preference_attention(q, q, r, torch.ones(1, 3, dtype=torch.bool))
    assert float(score) == pytest.approx(0.651542, abs=1e-6)
    assert weight[0].tolist() == pytest.approx([0.333302, 0.328313, 0.338385], abs=1e-6)
    z = (q @ q.mT / 2**0.5).softmax(-1) @ r[..., None]
    assert float(z.mean()) == pytest.approx(float(score), abs=1e-12)


@pytest.mark.parametrize("kind", ["ensemble", "preference-transformer"])
@pytest.mark.parametrize("score", ["own", "mean", "last"])
def test_what_stands_behind_a_segments_last_step_is_not_read(kind: str, score: str):
    named = {} if score == "own" else {"pooled" if kind == "ensemble" else "score": score}
    model = small(kind, **named).eval()
    alone, beside = walks(1, (3,)), walks(2, (3, 7))
    told = model.scores(steps_of(beside))[:, 0]
    assert torch.allclose(told, model.scores(steps_of(alone))[:, 0], atol=1e-6)
    steps = steps_of(beside)
    wild = Steps(torch.where(steps.mask[..., None], steps.observations, 1e3), steps.actions, steps.mask)
    assert torch.allclose(model.scores(wild), model.scores(steps), atol=1e-6)
    assert earned(model, steps)[0, 3:].abs().max() == 0


@pytest.mark.parametrize("kind", ["ensemble", "preference-transformer"])
def test_a_known_reward_is_found_again_and_saved(kind: str, tmp_path: Path):
    shown, unseen = walks(400), walks(400, seed=1)
    a, b = steps_of(shown[::2]), steps_of(shown[1::2])
    said = Teacher().answer(shown[::2], shown[1::2]).first
    model = small(kind)
    model.normalise(a)
    fitting = Fitting(model, optimiser=adam(5e-3), batch=32, share=warmed(10, 100) if kind != "ensemble" else None)
    accuracy = fitting.fit(a, b, torch.from_numpy(said), epochs=30)
    assert accuracy[-1] > 0.9 and all(x <= 0.97 for x in accuracy[:-1])  # it ends as soon as it is enough
    assert accuracy[-1] > 0.97 or len(accuracy) == 30
    truth = Teacher().answer(unseen[::2], unseen[1::2]).first
    told = wins(model, steps_of(unseen[::2]), steps_of(unseen[1::2])).mean(0).numpy()
    assert ((told > 0.5) == (truth > 0.5)).mean() > 0.85
    save(model, tmp_path / "kept")
    again = load(tmp_path / "kept")
    assert torch.equal(again.scores(a), model.scores(a)) and type(again) is type(model)
    judged = LearnedReward(again)([Context("walk")] * 2, unseen[:2])
    assert torch.allclose(judged.reward[:, 0], model.scores(steps_of(unseen[:2])).mean(0).detach())


def test_members_learn_the_pairs_in_orders_of_their_own_and_ties_decide_no_accuracy():
    rows = walks(40)
    a, b = steps_of(rows[::2]), steps_of(rows[1::2])
    model = Ensemble(2, 1, members=2, hidden=(8,))
    model.networks[1].load_state_dict(model.networks[0].state_dict())
    assert float(wins(model, a, b).std(0).max()) == 0
    found = Fitting(model, batch=4, optimiser=adam(1e-2)).fit(a, b, torch.full((20,), 0.5), epochs=3)
    assert len(found) == 3 and all(x != x for x in found)
    assert float(wins(model, a, b).std(0).max()) > 0


def test_an_ensemble_is_the_network_of_a_policy_with_head_reward():
    model = small().eval()
    assert isinstance(model, Ensemble)
    policy = ControlPolicy(model, None, 2, 1, ("walk",))
    rows = walks(3, (4, 6))
    encoded = Encoded(
        Labelled, (torch.tensor([0, -1]),) * 3, tuple((flat(y),) for y in rows), (1, 2, 3), {"label": torch.ones(3).bool()}
    )
    found = Behaviour(policy).score(policy, encoded, Want(head="reward"))
    assert torch.allclose(found.total, model.scores(steps_of(rows)).mean(0), atol=1e-6)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Ensemble(2, 1, members=0), "at least one member"),
        (lambda: PreferenceTransformer(2, 1, size=10, heads=3), "multiple of heads"),
        (lambda: small("preference-transformer").scores(steps_of(walks(1, (10,)))), "at most 9"),
        (lambda: loss_of(DPO(), f64([1.0]), f64([0.0]), f64([0.5])), "ties"),
        (lambda: Fitting(small()).fit(steps_of(walks(1)), steps_of(walks(1)), f64([float("nan")])), "skipped"),
        (lambda: Fitting(small()).fit(steps_of(walks(2)), steps_of(walks(1)), f64([1.0])), "2 first"),
        (lambda: steps_of([]), "one is needed"),
        (lambda: load(Path("/nowhere")), "no step_rewards.json"),
    ],
)
def test_what_cannot_be_learnt_from_is_refused(make: Any, said: str):
    with pytest.raises(Refusal, match=said):
        make()


def test_a_changed_folder_is_refused(tmp_path: Path):
    save(small(), tmp_path)
    (tmp_path / "step_rewards.json").write_text('{"kind": "oracle"}')
    with pytest.raises(Refusal, match="cannot be read"):
        load(tmp_path)


def test_the_rate_warms_up_and_falls_again():
    share = warmed(10, 110)
    assert [share(0), share(10), share(60), share(110), share(999)] == pytest.approx([0.1, 1.0, 0.55, 0.1, 0.1])

"""What the online/offline study stands on: one trainer for both, preference models that are told only what they should be, exact
KL and win rates. The whole study is a claim and runs among the claims."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from penchant.objectives import IPO, NLL, Labelled, Pairs, Scored

RECIPES = Path(__file__).resolve().parents[1] / "recipes"


@pytest.fixture(scope="module")
def study() -> Iterator[Any]:
    """The recipe, with runs of 12 steps; its world and its online runs are made once for all tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(RECIPES))
        module = importlib.import_module("online_offline_gap")
        for name, small in (("STEPS", 12), ("DATA", 320), ("LOOKS", 4), ("FITS", 60)):
            patch.setattr(module, name, small)
        module.world.cache_clear()
        module.itself.cache_clear()
        yield module
        module.world.cache_clear()
        module.itself.cache_clear()


@pytest.mark.parametrize("kind", ["table", "network"])
def test_online_is_offline_and_a_sampler(study: Any, kind: str) -> None:
    w, objective, rate = study.world(0), study.OBJECTIVES["IPO"], study.RATES[kind]
    run = study.itself(kind, "IPO", 0)
    again, mixed = study.fresh(kind, w, 0), study.fresh(kind, w, 0)
    study.walked(again, w, study.offline(again, objective, study.shuffled(run.stream, 0.0, 7), rate))
    study.walked(mixed, w, study.offline(mixed, objective, study.shuffled(run.stream, 1.0, 7), rate))
    assert torch.equal(again.logp(), run.policy.logp())
    assert float((mixed.logp() - run.policy.logp()).detach().abs().max()) > 1e-3
    pairs = lambda stream: sorted(zip(*(x.tolist() for x in study.joined(stream)), strict=True))  # noqa: E731
    assert pairs(study.shuffled(run.stream, 1.0, 7)) == pairs(run.stream)
    assert run.looks[0]["KL"] == pytest.approx(0, abs=1e-12) and run.looks[-1]["KL"] > 0.01


def test_a_policy_wins_half_against_itself_and_the_rest_against_who_wins_the_other(study: Any) -> None:
    w = study.world(0)
    one, other = w.start.exp(), study.itself("table", "IPO", 0).policy.probabilities()
    assert w.judge.wins(one, one) == pytest.approx(0.5, abs=1e-12)
    assert w.judge.wins(one, other) + w.judge.wins(other, one) == pytest.approx(1, abs=1e-12)
    assert w.judge.wins(other, one) > 0.5  # it learned


def test_the_proxy_knows_labels_alone(study: Any) -> None:
    w = study.world(0)
    assert len({id(x) for x in (w.golden, w.proxy, w.judge)}) == 3 and not torch.equal(w.golden.utility, w.proxy.utility)
    turned = study.fitted([(x, l, w) for x, w, l in w.data], 0)
    torch.testing.assert_close(turned.table(), 1 - w.proxy.table(), atol=1e-6, rtol=0)
    assert float(w.proxy.prefers(*w.held).double().mean()) > 0.8


def test_kl_on_a_policys_own_samples_is_the_exact_one(study: Any) -> None:
    w, run = study.world(0), study.itself("table", "IPO", 0)
    prompt, one, other = study.drawn(run.policy.probabilities(), 4_000, w.golden.prefers, torch.Generator().manual_seed(1))
    apart = (run.policy.logp().detach() - w.start)[prompt.repeat(2), torch.cat([one, other])]
    error = float(apart.std()) / len(apart) ** 0.5
    assert abs(float(apart.mean()) - run.looks[-1]["KL"]) < 4 * error and float(apart.mean()) > -3 * error


def test_ipo_aims_at_five_nats_and_best_of_two_imitates_winners(study: Any) -> None:
    logp = torch.tensor([[-1.0], [-2.0], [-0.5], [-3.0]], requires_grad=True)
    y = Scored(logp, torch.ones(4, 1, dtype=torch.bool), torch.zeros(4, 1))
    w, l = y.take(slice(0, None, 2)), y.take(slice(1, None, 2))
    margin = w.ratio - l.ratio
    torch.testing.assert_close(study.OBJECTIVES["IPO"](w, l), (margin - 5) ** 2)
    assert float(IPO(tau=0.1, average=False).loss(torch.tensor([5.0]), torch.tensor([0.0]))) == 0
    best = study.OBJECTIVES["Best-of-2"]
    assert not best.needs.anchors
    winners = Labelled(y, torch.tensor([True, False, True, False]))
    ours, theirs = (torch.autograd.grad(x.sum(), logp)[0] for x in (best(Pairs(w, l)), NLL(reduction="sum")(winners)))
    assert torch.equal(ours, theirs) and ours[:, 0].tolist() == [-1, 0, -1, 0]


def test_a_short_study_starts_and_correlates_telling_with_winning(study: Any) -> None:
    found = study.gap("table", seeds=(0,), some=("offline", "online", "pairs of the final policy", "Best-of-2, offline"))
    assert all(0 <= found.values(arm, "accuracy")[0] <= 1 for arm in found.runs)
    assert found.values("online", "wins, peak")[0] >= found.values("online", "wins, end")[0]
    runs = {name: [{"accuracy": x, "wins, end": y}] for name, x, y in (("a", 0.5, 0.4), ("b", 0.7, 0.2), ("c", 0.6, 0.3))}
    known = type(found)((0,), runs, "a")
    assert study.predicted(known).value == pytest.approx(-1)

"""The two things recipes stand on: policies over finite sets, whose optima are exact, and studies over seeds."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch

from penchant.objectives import DPO, IPO


@pytest.fixture
def finite(recipe: Callable[[str], ModuleType]) -> ModuleType:
    return recipe("finite")


@pytest.fixture
def study(recipe: Callable[[str], ModuleType]) -> ModuleType:
    return recipe("study")


def test_a_finite_policy_reaches_the_optimum_that_dpo_has_in_closed_form(finite: ModuleType) -> None:
    """Pairs labelled in proportion to σ(u_a − u_b), all of them in every step: π* ∝ π_ref exp(u / β)."""
    utility, beta = torch.tensor([0.3, -0.2, 0.1]), 0.5
    rows = [(a, b) for a in range(3) for b in range(3) if a != b]
    shares = [round(1000 * float(torch.sigmoid(utility[a] - utility[b]))) for a, b in rows]
    w = torch.tensor([a for (a, _), n in zip(rows, shares, strict=True) for _ in range(n // 20)])
    l = torch.tensor([b for (_, b), n in zip(rows, shares, strict=True) for _ in range(n // 20)])
    start = torch.tensor([[0.0, 0.5, -0.5]])
    policy = finite.Policy(start)
    finite.train(policy, DPO(beta=beta), finite.pairs(torch.zeros_like(w), w, l), steps=300, rate=0.05)
    best = (start + utility / beta).softmax(-1)
    torch.testing.assert_close(policy.probabilities(), best, atol=0.02, rtol=0)


def test_shared_features_and_a_given_reference_are_what_the_margin_is_measured_with(finite: ModuleType) -> None:
    """IPO's margin goes to 1/(2τ) over the reference, wherever the policy starts."""
    features = torch.tensor([[[1.0], [0.0]]])
    reference = finite.Policy(torch.tensor([[0.7, 0.0]]))
    policy = finite.Policy(torch.zeros(1, 2), features)
    zero = torch.zeros(1, dtype=torch.long)
    finite.train(policy, IPO(tau=0.5, average=False), finite.pairs(zero, zero, zero + 1), steps=400, reference=reference)
    margin = policy.logp()[0, 0] - policy.logp()[0, 1] - 0.7
    assert float(margin.detach()) == pytest.approx(1.0, abs=1e-3)


def test_a_study_gives_students_interval_and_pairs_its_differences_by_seed(study: ModuleType) -> None:
    found = study.over_seeds([1.0, 2.0, 4.0])  # mean 7/3, deviation 1.5275, t(2) = 4.3027
    assert found.value == pytest.approx(7 / 3) and found.high - found.value == pytest.approx(3.7946, abs=1e-4)
    gap = study.paired([1.1, 2.2, 4.3], [1.0, 2.0, 4.0])
    assert gap.value == pytest.approx(0.2) and gap.p == pytest.approx(0.0742, abs=1e-4)  # t = 3.4641 with 2 degrees
    assert math.isinf(study.over_seeds([1.0]).high)


def test_a_study_that_is_stopped_goes_on_where_it_was(study: ModuleType, tmp_path: Path) -> None:
    ran: list[int] = []

    def arm(seed: int) -> dict[str, float]:
        if len(ran) == 2:
            raise KeyboardInterrupt
        ran.append(seed)
        return {"reward": 2.0 * seed}

    keep = tmp_path / "runs.jsonl"
    with pytest.raises(KeyboardInterrupt):
        study.study({"DPO": arm}, [1, 2, 3], keep)
    assert ran == [1, 2]
    whole = study.study({"DPO": lambda seed: {"reward": 2.0 * seed}}, [1, 2, 3], keep)
    assert whole.values("DPO", "reward") == [2.0, 4.0, 6.0] and len(keep.read_text().splitlines()) == 3


def test_turned_labels_are_made_as_they_are_said_to_be(recipe: Callable[[str], ModuleType]) -> None:
    noisy = recipe("noisy_labels")
    clean, turned = noisy.world(0, (0.0, 0.0)), noisy.world(0, (0.0, 1.0))
    who = clean.rows.columns["annotator"]
    pairs = list(zip(clean.rows.contexts, clean.rows.responses, turned.rows.responses, strict=True))
    same = torch.tensor([a == b for _, a, b in pairs])
    assert torch.equal(same, who == 0) and 900 < int(who.sum()) < 1100
    best = [float(clean.utility[int(x), int(w)] > clean.utility[int(x), int(l)]) for x, (w, l), _ in pairs]
    assert 0.75 < sum(best) / len(best) < 0.95, "Bradley-Terry's labels are not always the better response"
    found = noisy.noisy_labels(seeds=(0,), steps=20)
    assert set(found.figures) == {"reward / best", "cosine with the taste"} and len(found.runs) == 4
    assert len(noisy.reliabilities(seeds=(0,), steps=2, shares=(0.3,)).runs) == 2

"""Whole runs on policies of agents: from trajectories, or from their own episodes, to a policy, a verdict and a report that
shows what it did; reward models of segments; what is refused."""

from __future__ import annotations

import base64
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("gymnasium", reason="policies act in gymnasium: the extra embodied")

from penchant.domains.policy.actions import Gaussian
from penchant.domains.policy.policy import built, load
from penchant.errors import Refusal
from penchant.feedback.behaviour import open_trajectories, write_trajectories
from penchant.feedback.trajectories import Trajectory
from penchant.objectives import CPL, DPO, BradleyTerry
from penchant.rewards.behaviour import Gentle, Return, Success
from penchant.run import Run, align

TASK = "Pendulum-v1"


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A policy of the pendulum that knows nothing."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("start")
    built(3, Gaussian(1, log_std=0.0), 1, (TASK,), hidden=(16,)).save(folder)
    return folder


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """48 pairs of segments: to push right is preferred to pushing left."""
    draw = np.random.default_rng(0)

    def pushed(way: float) -> Trajectory:
        steps = int(draw.integers(4, 9))
        weight = {"weight": np.ones(steps)}
        return Trajectory(draw.normal(size=(steps, 3)), way + 0.3 * draw.normal(size=(steps, 1)), info=weight)

    made = [{"prompt": f"{TASK} seed {i}", "chosen": pushed(0.5), "rejected": pushed(-0.5)} for i in range(48)]
    return write_trajectories(made, tmp_path_factory.mktemp("rows"))


def run_in(output: Path, start: Path, data: Any, objective: Any = "DPO(beta=0.1)", **more: Any) -> Run:
    usual = {"quiet": True, "threads": 1, "batch": 8, "learning_rate": 1e-2, "held_out": 24, "limit": 10}
    return align(start, data, objective, output=output, **{**usual, "sample_prompts": 3, "sample_count": 2, **more})


def test_a_policy_learns_from_preferred_segments_and_its_report_shows_episodes(tmp_path: Path, start: Path, rows: Path):
    run = run_in(tmp_path / "x", start, rows, DPO(beta=0.1), epochs=12, judge="gentle", guard="return")
    assert run.evidence.makes == "policies" and run.verdict.ok
    pairs, samples = run.evidence.pairs_after, run.evidence.samples_after
    assert pairs is not None and samples is not None
    assert sum(w > l for w, l in zip(pairs.reward_chosen, pairs.reward_rejected, strict=True)) >= 22
    assert samples.kl is not None and samples.guard is not None and samples.guarded_by == "return"
    policy = load(str(run.model))
    y = torch.zeros(1, 1, 3)
    assert policy.network(policy.seen(torch.zeros(1, 2, dtype=torch.long), y)).item() > 0.1  # it pushes right now
    page = run.report.read_text()
    shown = re.findall(r'img src="data:image/svg\+xml;base64,([A-Za-z0-9+/=]+)" alt="(?:before|after), no', page)
    assert len(shown) == 12 and all(base64.b64decode(x).count(b"<path") == 9 for x in shown)
    assert "log π per action" in page and "library_name: penchant" in (run.model / "README.md").read_text()


def test_a_policy_learns_from_its_own_episodes_and_the_pairs_are_data_again(tmp_path: Path, start: Path):
    asked = [{"prompt": f"{TASK} seed {i}"} for i in range(12)]
    more = {"rounds": 2, "samples": 4, "judge": Gentle(), "epochs": 2, "held_out": 4, "sample_prompts": 4}
    run = run_in(tmp_path / "x", start, asked, **more)
    assert run.pairs is not None
    source, archive = open_trajectories(run.pairs)
    assert len(source) == 16
    for row in source:
        better, worse = (archive.open(name) for name in row.responses)
        assert Gentle().score("", better) > Gentle().score("", worse)
        assert np.array_equal(better.observations[0], worse.observations[0])  # from the same start
    again = run_in(tmp_path / "x", start, asked, **more)
    assert again.evidence == run.evidence


def test_contrastive_preferences_train_without_a_reference(tmp_path: Path, start: Path, rows: Path):
    run = run_in(tmp_path / "x", start, rows, CPL(alpha=0.1, bias=0.5), epochs=20)
    pairs = run.evidence.pairs_after
    assert pairs is not None and sum(w > l for w, l in zip(pairs.reward_chosen, pairs.reward_rejected, strict=True)) >= 20


def test_a_reward_model_of_segments_is_trained_by_bradley_terry_and_trained_further(
    tmp_path: Path, start: Path, rows: Path
):
    run = run_in(tmp_path / "x", start, rows, BradleyTerry(), epochs=6)
    assert run.evidence.makes == "scores"
    pairs = run.evidence.pairs_after
    assert pairs is not None and sum(w > l for w, l in zip(pairs.reward_chosen, pairs.reward_rejected, strict=True)) >= 22
    assert load(str(run.model)).head == "reward"
    further = run_in(tmp_path / "y", run.model, rows, BradleyTerry(), epochs=1)
    assert further.evidence.pairs_before is not None
    assert further.evidence.pairs_before.reward_chosen == pytest.approx(pairs.reward_chosen, abs=1e-4)
    with pytest.raises(Refusal, match="is a reward model"):
        run_in(tmp_path / "z", run.model, rows)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"lora": 4}, "lora=4 says nothing to a policy"),
        ({"kappa": 3.0}, r"kappa=3\.0 says nothing"),
        ({"top_p": 0.5}, r"top_p=0\.5 says nothing"),
        ({"judge": "rules"}, "reads texts"),
        ({"objective": "MaPO()"}, "'error' is not known of behaviour"),
    ],
)
def test_what_says_nothing_to_policies_is_refused(more: dict[str, Any], said: str, tmp_path: Path, start: Path, rows: Path):
    with pytest.raises(Refusal, match=said):
        run_in(tmp_path / "x", start, rows, **more)


def test_computed_judges_of_behaviour_say_what_they_measure():
    y = Trajectory(
        np.zeros((3, 2)), np.full((3, 2), 0.5), np.array([1.0, 2.0, -0.5]), info={"success": np.array([0, 1, 0])}
    )
    assert (Return().score("", y), Success().score("", y), Gentle().score("", y)) == (2.5, 1.0, -0.25)
    bare, judge = Trajectory(np.zeros((1, 2)), np.zeros((1, 2))), Success()
    assert np.isnan(judge.score("", bare)) and np.isnan(Return().score("", bare)) and np.isnan(judge.score("", "text"))


def test_the_packaged_policy_acts_and_its_prompts_are_starts(tmp_path: Path, start: Path):
    pytest.importorskip("metaworld", reason="needs the extra embodied")
    more = {"rounds": 1, "prompts_per_round": 2, "samples": 2, "judge": "return", "guard": "success", "held_out": 16}
    more |= {"sample_prompts": 2, "sample_count": 1, "limit": 8}
    run = run_in(tmp_path / "x", Path("policy-demo"), "policy-demo", **more)
    before = run.evidence.samples_before
    assert before is not None and before.guard == [[0.0], [0.0]]  # in so few steps nobody gets there
    assert all(prompt.startswith("reach-v3 seed ") for prompt in before.prompts)
    with pytest.raises(Refusal, match="learns from data of its own"):
        run_in(tmp_path / "y", start, "policy-demo", **more)

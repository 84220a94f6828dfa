"""The alarm on likelihood that is optimised too far: by hand on made-up evaluations, and its finding, which is information."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from evidence_example import offline
from penchant.evaluation.overoptimisation import WORD, Watch, nearest_kept, over_optimised, watch
from penchant.evaluation.verdict import judge_run

PLAIN = Watch(decay=0.0)


def evals(values: list[float], accuracy: list[float], name: str = "mass/10/chosen") -> list[dict[str, Any]]:
    return [
        {"kind": "eval", "step": 10 * (i + 1), name: value, "accuracy": right}
        for i, (value, right) in enumerate(zip(values, accuracy, strict=True))
    ]


def test_the_alarm_goes_off_at_the_third_low_evaluation_after_the_best():
    found = watch(evals([0.8, 0.9, 0.85, 0.7, 0.7, 0.7], [0.5, 0.7, 0.6, 0.6, 0.6, 0.6]), "mass/10/chosen", PLAIN)
    assert found is not None and (found.raised, found.best) == (50, 20)  # 0.85, 0.7, 0.7 are 5.6 % and more below 0.9
    assert found.drop == pytest.approx(1 - 0.7 / 0.9)


def test_one_evaluation_that_is_not_low_begins_the_count_anew():
    found = watch(evals([0.9, 0.8, 0.8, 0.88, 0.8, 0.8], [0.7] + [0.6] * 5), "mass/10/chosen", PLAIN)
    assert found is not None and found.raised is None and found.best == 10


def test_no_alarm_while_unseen_pairs_still_get_better():
    falling = [0.9 - 0.1 * i for i in range(6)]
    better = watch(evals(falling, [0.5 + 0.05 * i for i in range(6)]), "mass/10/chosen", PLAIN)
    level = watch(evals(falling, [0.5] * 6), "mass/10/chosen", PLAIN)  # of equals the earliest is the best
    assert better is not None and better.raised is None and better.drop == 0
    assert level is not None and (level.raised, level.best) == (40, 10)


def test_the_moving_average_begins_without_a_pull_to_nought():
    found = watch(evals([1.0, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9], [0.7] + [0.6] * 6), "mass/10/chosen")
    # weights 0.9^k: after the second value 0.947…, 5.3 % below; every later one is lower
    assert found is not None and found.raised == 40
    assert found.drop == pytest.approx(1 - (0.9**3 + 0.9 * (0.81 + 0.9 + 1)) / (0.9**3 + 0.81 + 0.9 + 1))


def test_columns_that_are_not_followed_raise_nothing():
    assert watch(evals([1.0, 1.0], [0.5, 0.5]), "entropy/10/chosen") is None
    assert over_optimised(replace(offline(), history=[])) is None


def test_the_finding_names_the_step_to_stop_at_and_is_no_failure():
    run = offline()
    steps = [line for line in run.history if line["kind"] == "step"]
    turned = evals([0.9, 0.95] + [0.6] * 16, [0.5, 0.7] + [0.65] * 16, "mass/10/chosen")
    for line in turned:
        line["entropy/10/chosen"] = 1.5
    run = replace(run, history=steps + turned, settings={**run.settings, "save_every": 50, "keep": 2})
    plain, verdict = judge_run(replace(run, history=steps)), judge_run(run)
    found = next(f for f in verdict.findings if f.word == WORD)
    assert found.holds and found.evidence["stop_at"] == 20 and "Stopping at step 20" in found.sentence
    assert "entropy" not in found.sentence and "its checkpoint is gone" in found.sentence
    assert (verdict.word, verdict.ok) == (plain.word, plain.ok)
    calm = replace(run, history=steps + evals([0.9] * 18, [0.6] * 18))
    assert not next(f for f in judge_run(calm).findings if f.word == WORD).holds


def test_the_nearest_checkpoint_is_one_that_is_kept():
    assert nearest_kept(120, 200, 50, 2) is None  # 150 and 200 are
    assert nearest_kept(170, 200, 50, 2) == 150
    assert nearest_kept(120, 210, 50, 9) == 100
    assert nearest_kept(210, 210, 50, 1) == 210

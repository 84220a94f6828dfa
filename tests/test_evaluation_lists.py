"""What graded lists say of a model: rankings with ties, numbers worked out by hand; and whole runs on lists, from rows to a
table that shows them."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import pytest
import torch

from penchant.errors import Refusal
from penchant.evaluation import lists
from penchant.evaluation.evidence import RunEvidence
from penchant.evaluation.listwise import list_ranking
from penchant.evaluation.table import before_after
from penchant.objectives import Lists, Scored, read
from penchant.report.ranking import ranking_section
from penchant.run import align

GOOD = ["good day", "happy cat", "thank you", "yes please", "good night", "the cat is happy"]
FAIR = ["the cat sat", "what is it", "the mat", "a cat on the mat"]
BAD = ["bad day", "sad cat", "no", "bad night", "the cat is sad", "it is bad"]


def graded(n: int, top: float = 1.0) -> list[dict[str, Any]]:
    """Lists of three or four answers under different prompts, a good one above a fair one above bad ones."""
    draw = random.Random(0)
    rows = []
    for i in range(n):
        scores = [top, top / 2, 0.0, 0.0][: 3 + i % 2]
        answers = [draw.choice(GOOD), draw.choice(FAIR), *draw.sample(BAD, 2)][: len(scores)]
        both = draw.sample(list(zip(answers, scores, strict=True)), len(scores))
        prompt = f"what is it {'day' if i % 2 else 'night'} {i}"
        rows.append({"prompt": prompt, "responses": [a for a, _ in both], "scores": [s for _, s in both]})
    return rows


def test_a_ranking_is_measured_by_its_first_place_its_pairs_and_its_discounted_gain() -> None:
    reward, gain = [0.3, 0.1, 0.2], [1.0, 3.0, 2.0]
    assert lists.best_first(reward, gain) == 0 and lists.in_order(reward, gain) == 0
    assert lists.best_first(gain, gain) == lists.in_order(gain, gain) == lists.ndcg(gain, gain) == 1
    worth, discount = [0.0, 1.0, math.sqrt(2) - 1], [1, 1 / math.log2(3), 0.5]
    mine = worth[0] * discount[0] + worth[2] * discount[1] + worth[1] * discount[2]
    assert lists.ndcg(reward, gain) == pytest.approx(mine / (discount[0] + worth[2] * discount[1]))


def test_a_model_that_knows_nothing_gets_what_a_guess_gets() -> None:
    level, gain = [0.0] * 4, [1.0, 0.0, 0.0, 1.0]
    assert lists.best_first(level, gain) == lists.in_order(level, gain) == 0.5
    drawn = [lists.ndcg(torch.randperm(4, generator=torch.Generator().manual_seed(i)).tolist(), gain) for i in range(3000)]
    assert lists.ndcg(level, gain) == pytest.approx(sum(drawn) / 3000, abs=0.01)


def test_lists_without_a_preference_are_left_out_and_ragged_ones_keep_their_order() -> None:
    logp = torch.tensor([[-1.0], [-2.0], [-3.0], [-4.0], [-5.0]])
    y = Scored(logp, torch.ones(5, 1, dtype=torch.bool), torch.zeros(5, 1))
    batch = Lists(y, torch.tensor([0, 0, 1, 1, 1]), torch.tensor([1.0, 1.0, 0.0, 0.5, 1.0]))
    found = lists.list_evidence(read("LiPO(beta=1)"), [batch], [7, 9])
    assert (found.numbers, found.reward, found.gain) == ([9], [[-3.0, -4.0, -5.0]], [[0.0, 0.5, 1.0]])
    with pytest.raises(ValueError, match="2 scored lists but 1 row numbers"):
        lists.list_evidence(read("LiPO()"), [batch], [7])


@pytest.mark.parametrize("objective", ["LiPO(beta=0.5)", "PRO()"])
def test_a_run_on_lists_learns_and_shows_how_they_are_ranked(tmp_path: Path, tiny_folder: Path, objective: str) -> None:
    how: dict[str, Any] = {"threads": 1, "precision": "fp32", "sample_prompts": 2, "limit": 4, "batch": 8, "quiet": True}
    run = align(
        tiny_folder, graded(96), objective, output=tmp_path / "x", learning_rate=3e-3, epochs=3, held_out=0.25, **how
    )
    assert run.verdict.word == "learned"
    before, after = run.evidence.lists_before, run.evidence.lists_after
    assert before is not None and after is not None and before.numbers == after.numbers and len(after.numbers) == 24
    assert {len(reward) for reward in after.reward} == {3, 4}
    table = {row.name: row for row in before_after(run.evidence, resamples=200)}
    assert table["pairs in order on unseen lists"].after.value > 0.7
    assert table["best first on unseen lists"].word == table["NDCG on unseen lists"].word == "better"
    ranked = list_ranking(run.evidence, resamples=200)
    assert ranked is not None and ranked.pairwise.value > ranked.pairwise_before.value
    section = ranking_section(run.evidence)
    assert section is not None and section.title == "Ranking of unseen lists" and "Of 24 lists" in section.said[0]
    pairs = sum(g > h for gain in after.gain for g in gain for h in gain)
    assert sum(int(row[1]) for row in section.tables[0].rows) == pairs
    again = RunEvidence.from_json(json.loads(json.dumps(run.evidence.to_json())))
    assert again.lists_after == after


def test_scores_that_the_method_is_not_defined_for_are_refused_by_row_before_training(
    tmp_path: Path, tiny_folder: Path
) -> None:
    with pytest.raises(Refusal, match=r"row 1, scores: (5|10); LiPO\(.*\) takes scores in \[0, 1\]\. Rescale them"):
        align(tiny_folder, graded(12, top=10.0), "LiPO()", output=tmp_path / "x", quiet=True, threads=1)
    assert not (tmp_path / "x" / "checkpoints").exists()

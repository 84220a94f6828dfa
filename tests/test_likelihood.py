"""The monitor of likelihood that is optimised too far: its numbers by hand, and that a run writes them."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from evidence_example import offline
from penchant.domains.base import Want
from penchant.domains.text.logits import plain_values
from penchant.errors import Refusal
from penchant.evaluation.diversity import across_prompts
from penchant.evaluation.likelihood import TopK
from penchant.objectives import Scored
from penchant.report.likelihood import likelihood_section
from penchant.rewards.ngrams import VOCABULARY, across
from test_align import run_in
from test_overoptimisation import evals


def test_mass_and_entropy_of_the_most_probable_are_means_over_tokens_in_bits():
    z = torch.tensor(
        [[[3.0, 2, 1, 0, -1, -2], [6.0, 4, 2, 0, -2, -4]], [[0.75, 0.5, 0.25, 0, -0.25, -0.5], [9.0] * 6]]
    ).double()
    mask = torch.tensor([[True, True], [True, False]])
    said = plain_values(z, torch.zeros(2, 2).long(), mask, Want(TopK(3).values))
    found = TopK(3, renormalise=True)(Scored(said.pop("logp"), mask, values=said, weight=torch.rand(2, 2)))
    assert found["renormalised/3"] == pytest.approx((1.200893 + 0.636311 + 1.555369) / 3, abs=1e-6)
    assert found["mass/3"] == pytest.approx((0.952574 + 0.997527 + 0.679179) / 3, abs=1e-6)
    assert found["entropy/3"] == pytest.approx((1.210712 + 0.638301 + 1.435448) / 3, abs=1e-6)


def test_over_the_whole_vocabulary_mass_is_one_and_the_two_entropies_are_the_entropy():
    z, mask = torch.tensor([[[3.0, 2, 1, 0, -1, -2], [5.0] * 6]]).double(), torch.tensor([[True, False]])
    values = lambda z, k: plain_values(z, torch.zeros(1, 2).long(), mask, Want(TopK(k).values))  # noqa: E731
    found = [
        TopK(k, renormalise=True)(Scored(said.pop("logp"), mask, values=said))
        for said, k in ((values(z, 6), 6), (values(z + 7, 6), 6), (values(torch.zeros_like(z), 3), 3))
    ]
    assert found[0] == pytest.approx({"mass/6": 1.0, "entropy/6": 1.476253, "renormalised/6": 1.476253}, abs=1e-6)
    assert found[1] == pytest.approx(found[0])  # a constant added to the logits
    assert found[2]["mass/3"] == pytest.approx(0.5)
    assert found[2]["renormalised/3"] == pytest.approx(1.584963, abs=1e-6)  # log₂ 3


def test_a_run_follows_them_on_held_out_pairs(tmp_path: Path, tiny_folder: Path):
    run = run_in(tmp_path / "x", tiny_folder, steps=2, epochs=1, evaluate_every=1)
    lines = [x for x in run.history if x["kind"] == "eval"]
    after = run.evidence.samples_after
    assert len(lines) == 2 and after is not None
    told = across([texts[:1] for texts in after.texts])  # the last step is the end, and the seed is the same
    assert {name: lines[-1][name] for name in told} == pytest.approx(told) and told["distinct"] > 0
    for line in lines:
        for side in ("chosen", "rejected"):
            assert 0 < line[f"mass/10/{side}"] <= 1 and 0 < line[f"entropy/10/{side}"] < 3.33
            assert line[f"entropy/10/{side}"] < line[f"renormalised/10/{side}"] < 3.33
    assert lines[0] != lines[1]


def test_variety_is_counted_across_prompts_and_not_between_the_answers_to_one():
    one, other = "a b c d e", "a b c f g"
    found = across([[one, one], [other, other]])  # the second answers repeat the first, in a set of their own
    shares = [7 / 10, 6 / 8, 5 / 6, 4 / 4, 2 / 2]  # a, b, c and a b, b c and a b c come twice
    assert [found[f"distinct/{n}"] for n in range(1, 6)] == pytest.approx(shares)
    assert found["distinct"] == pytest.approx(sum(shares) / 5)
    v = VOCABULARY
    ead = [n / (v * (1 - ((v - 1) / v) ** c)) for n, c in ((7, 10), (6, 8), (5, 6), (4, 4), (2, 2))]
    assert found["ead"] == pytest.approx(sum(ead) / 5)
    assert across([["x"], [""]]) == {
        **dict.fromkeys(found, 0.0),
        "distinct/1": 1.0,
        "distinct": 0.2,
        "ead": pytest.approx(0.2),
    }
    assert across([]) == dict.fromkeys(found, 0.0)


def test_the_change_of_variety_has_an_interval_over_prompts_and_knows_no_order_of_them():
    before = [[f"word {i} and word {i + 1}"] for i in range(30)]
    after = [["the same again"] for _ in range(30)]
    old, new, change = across_prompts(before, after)["distinct"]
    assert change.value == pytest.approx(new.value - old.value) and change.high < 0 and change.n == 30
    turned = across_prompts(before[::-1], after[::-1])["distinct"][2]
    assert (turned.low, turned.high) == pytest.approx((change.low, change.high))
    assert across_prompts(before, before)["ead"][2].high == 0
    assert math.isinf(across_prompts(before[:1], after[:1])["distinct"][2].low)
    assert all(
        0 <= x.low <= x.high <= 1 for name, both in across_prompts(before, after).items() if name != "ead" for x in both[:2]
    )
    with pytest.raises(Refusal, match="to the same"):
        across_prompts(before, after[1:])


def test_the_report_shows_where_to_stop_and_says_where_nobody_asked():
    run = offline()
    rising = evals([0.9, 0.92, 0.95] + [0.6] * 15, [0.6, 0.7, 0.8] + [0.7] * 15)
    alarmed = likelihood_section(replace(run, history=[x for x in run.history if x["kind"] == "step"] + rising))
    assert alarmed is not None and "Stopping at step" in alarmed.said[0]
    assert [row[0] for row in alarmed.tables[0].rows][-2:] == ["Mean of the five", "Adjusted mean (EAD)"]
    unasked = likelihood_section(replace(run, history=[]))
    assert unasked is not None and "--evaluate-every" in unasked.said[0] and not unasked.charts
    assert likelihood_section(replace(run, history=[], samples_after=None)) is None

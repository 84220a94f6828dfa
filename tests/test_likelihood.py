"""The monitor of likelihood that is optimised too far: its numbers by hand, and that a run writes them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from penchant.domains.base import Want
from penchant.domains.logits import plain_values
from penchant.evaluation.likelihood import TopK
from penchant.objectives import Scored
from test_align import run_in


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
    run = run_in(tmp_path / "x", tiny_folder, steps=2, epochs=1, evaluate_every=1, sample_prompts=0)
    lines = [x for x in run.history if x["kind"] == "eval"]
    assert len(lines) == 2
    for line in lines:
        for side in ("chosen", "rejected"):
            assert 0 < line[f"mass/10/{side}"] <= 1 and 0 < line[f"entropy/10/{side}"] < 3.33
    assert lines[0] != lines[1]

"""Whole runs on models of pictures: from rows to a model, a verdict and a report with pictures in it; on a file and on their own
samples; judged, guarded, refused, resumed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("diffusers", reason="pictures need the extra diffusion")

from PIL import Image

import pipelines
from penchant.domains.diffusion.demo import RealPictures, real_pictures, trained
from penchant.domains.diffusion.domain import KAPPA
from penchant.domains.diffusion.loading import load, of_classes_model
from penchant.errors import Refusal
from penchant.evaluation.evidence import RunEvidence
from penchant.feedback.pictures import open_pictures
from penchant.objectives import DPO, MaPO, read
from penchant.report.page import render
from penchant.rewards.function import FunctionJudge
from penchant.rewards.pictures import Compressible, Ink, Recognised
from penchant.run import Run, align
from penchant.running.pictures import betas_of, pictured
from penchant.running.subjects import is_pictured


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that is told one of three classes and knows nothing."""
    torch.manual_seed(0)
    network, scheduler = pipelines.of_classes(3)
    folder = tmp_path_factory.mktemp("classes")
    of_classes_model(network, scheduler, ["a", "b", "c"]).save(folder)
    return folder


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """36 pairs of noise, the brighter one chosen."""
    folder = tmp_path_factory.mktemp("rows")
    draw, lines = np.random.default_rng(0), []
    for i in range(36):
        for side, low in (("light", 120), ("dark", 0)):
            Image.fromarray(draw.integers(low, low + 130, (8, 8), dtype=np.uint8)).save(folder / f"{i}-{side}.png")
        lines.append(json.dumps({"prompt": "abc"[i % 3], "chosen": f"{i}-light.png", "rejected": f"{i}-dark.png"}))
    (folder / "rows.jsonl").write_text("\n".join(lines) + "\n")
    return folder / "rows.jsonl"


def run_in(output: Path, model: Path, rows: Any, objective: Any = "DPO(beta=0.1)", **more: Any) -> Run:
    usual = {"quiet": True, "threads": 1, "precision": "fp32", "batch": 8, "learning_rate": 1e-3, "split": "row"}
    usual |= {"held_out": 12, "sample_prompts": 9, "sample_count": 1, "denoising_steps": 2}
    return align(model, rows, objective, output=output, **{**usual, **more})


def test_a_run_on_pictures_learns_and_its_report_shows_them(tmp_path: Path, classes: Path, rows: Path):
    run = run_in(
        tmp_path / "x", classes, rows, epochs=6, judge="ink", guard=FunctionJudge(lambda p, image: image.width, "width")
    )
    assert run.evidence.makes == "pictures" and run.evidence.choices["pictures"]["kappa"] == KAPPA["pixels"]
    pairs = run.evidence.pairs_after
    assert pairs is not None and len(pairs.numbers) == 12 and pairs.groups == list(range(12))
    assert sum(w > l for w, l in zip(pairs.reward_chosen, pairs.reward_rejected, strict=True)) >= 11
    samples = run.evidence.samples_after
    assert samples is not None and samples.kl is None and samples.guard == [[8.0]] * 9 and samples.guarded_by == "width"
    page = run.report.read_text()
    assert page.count("data:image/png;base64,") == 18 and "What it made, before and after" in page
    assert "guard" in page and "unseen prompts" not in page
    again, _ = load(str(run.model))
    before, _ = load(str(classes))
    assert any(not torch.equal(a, b) for a, b in zip(again.parameters(), before.parameters(), strict=True))
    card = (run.model / "README.md").read_text()
    assert "library_name: diffusers" in card and "of the samples: `width`" in card


def test_the_same_call_again_is_the_same_run_and_another_scale_is_another(tmp_path: Path, classes: Path, rows: Path):
    first = run_in(tmp_path / "x", classes, rows, paper_beta=1000.0)
    assert run_in(tmp_path / "x", classes, rows, paper_beta=1000.0).evidence == first.evidence
    assert first.evidence.choices["pictures"]["kappa"] == 5000.0
    with pytest.raises(Refusal, match="paper_beta"):
        run_in(tmp_path / "x", classes, rows, paper_beta=100.0)


def test_a_run_samples_has_them_judged_and_its_pairs_are_data_again(tmp_path: Path, classes: Path, rows: Path):
    more = {"rounds": 2, "samples": 4, "judge": "ink", "epochs": 2, "held_out": 1, "split": "prompt"}
    run = run_in(tmp_path / "x", classes, rows, **more)
    assert run.pairs is not None
    source, gallery = open_pictures(run.pairs)
    assert len(source) == 4 and source.kind == "pairs"  # two of three prompts, in two rounds
    judge = Ink()
    for row in source:
        better, worse = (judge.score(row.prompt, gallery.open(name)) for name in row.responses)
        assert better > worse
    lines = [line for line in run.history if line["kind"] == "round"]
    assert [line["round"] for line in lines] == [1, 2] and all(0 < line["score"] < 1 for line in lines)


def test_an_adapter_on_a_pipeline_of_prompts_is_left_for_diffusers(tmp_path: Path, rows: Path):
    torch.manual_seed(0)
    pipelines.sd().save_pretrained(tmp_path / "sd")
    asked = [{"prompt": f"{p} cat {i}", "chosen": c, "rejected": r} for i, (p, c, r) in enumerate(_triples(rows))]
    file = rows.parent / "prompts.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in asked))
    run = run_in(tmp_path / "x", tmp_path / "sd", file, MaPO(), lora=4, split="prompt", held_out=6, sample_prompts=1)
    assert run.evidence.choices["pictures"]["kappa"] == KAPPA["sd"] and run.evidence.choices["trained_parameters"] > 0
    assert (run.model / "pytorch_lora_weights.safetensors").is_file() and not (run.model / "unet").exists()
    assert "load_lora_weights" in (run.model / "README.md").read_text()


def _triples(rows: Path) -> list[tuple[str, str, str]]:
    said = [json.loads(line) for line in rows.read_text().splitlines()]
    return [(row["prompt"], row["chosen"], row["rejected"]) for row in said]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"top_p": 0.9}, "top_p=0.9 says nothing to a model of pictures"),
        ({"max_length": 64}, "max_length=64 says nothing"),
        ({"kappa": 10.0, "paper_beta": 10.0}, "leave one of them out"),
        ({"objective": "BradleyTerry()"}, "no such head"),
        ({"objective": "SPPO()", "judge": "ink"}, "'prev'|strength|rounds"),
        ({"objective": "MaPO() + DPO()", "paper_beta": 10.0}, "2 beta"),
        ({"judge": "vader"}, "vader.* reads texts"),
        ({"judge": "self"}, "reads texts"),
        ({"guard": "self"}, "reads texts"),
    ],
)
def test_what_says_nothing_to_pictures_is_refused(
    more: dict[str, Any], said: str, tmp_path: Path, classes: Path, rows: Path
):
    with pytest.raises(Refusal, match=said):
        run_in(tmp_path / "x", classes, rows, **more)


def test_settings_and_values_of_pictures_are_refused_for_texts_in_a_sentence(tmp_path: Path, tiny_folder: Path):
    data = [{"prompt": f"day {i}", "chosen": "good", "rejected": "bad"} for i in range(20)]
    with pytest.raises(Refusal, match=r"kappa=3\.0 says nothing to a language model"):
        align(tiny_folder, data, "DPO()", output=tmp_path / "x", quiet=True, kappa=3.0)
    with pytest.raises(Refusal, match="error"):
        align(tiny_folder, data, "MaPO()", output=tmp_path / "x", quiet=True, threads=1, precision="fp32")


def test_samples_stay_out_of_evidence_and_report_where_they_are_not_wanted(tmp_path: Path, classes: Path, rows: Path):
    run = run_in(tmp_path / "x", classes, rows, report_samples=False)
    left = [file.read_text() for file in (run.report, *run.folder.glob("*.json"))]
    assert not any("data:image/png" in text for text in left)
    assert "Samples were left out of this report, as asked." in run.report.read_text()


def test_a_report_shows_no_address_that_is_not_a_picture(tmp_path: Path, classes: Path, rows: Path):
    run = run_in(tmp_path / "x", classes, rows)
    told = run.evidence.to_json()
    told["samples_after"]["shown"][0][0] = 'x" onerror="alert(1)'
    told["samples_after"]["shown"][1][0] = "https://example.org/a.png"
    page = render(RunEvidence.from_json(told), run.verdict)
    assert "onerror" not in page and "example.org" not in page and page.count('<img src="data:image/png') >= 16


def test_the_betas_of_an_expression_are_found_within_wrappers():
    assert betas_of(DPO(beta=0.25)) == [0.25]
    assert betas_of(read("Consensus(DPO(beta=0.5)) + 0.1 * NLL()")) == [0.5]


def test_only_folders_of_pictures_are_taken_for_such(classes: Path, tiny_folder: Path, tmp_path: Path):
    assert is_pictured(str(classes), None)
    assert not is_pictured(str(tiny_folder), None) and not is_pictured(str(tmp_path / "none"), None)


def test_what_a_report_shows_of_a_large_picture_is_small():
    assert len(pictured(Image.effect_noise((2000, 1000), 80))) < 60_000
    assert pictured(Image.new("L", (8, 8))).startswith("data:image/png;base64,")


def test_computed_judges_of_pictures_say_what_they_measure():
    half = Image.fromarray(np.repeat(np.array([[0], [255]], dtype=np.uint8), 2, 1))
    assert Ink().score("", half) == 0.5
    plain, noise = Image.new("L", (64, 64)), Image.effect_noise((64, 64), 100)
    assert Compressible().score("", plain) > Compressible().score("", noise)
    judge = Ink()
    assert np.isnan(judge.score("", "no picture")) and judge.failures


def test_the_guard_reads_real_pictures_that_it_was_not_trained_on(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PENCHANT_FASHION_MNIST", "")
    real, judge = real_pictures(), Recognised()
    levels = ((real.pixels[:100, 0] + 1) * 127.5).round().byte().numpy()
    right = [judge.score(str(int(k)), Image.fromarray(x)) for x, k in zip(levels, real.labels[:100], strict=True)]
    assert np.mean(right) > 0.95
    assert np.isnan(judge.score("a hat", Image.fromarray(levels[0])))


def test_the_demo_model_is_the_same_for_one_seed_and_reads_its_classes():
    pixels = torch.rand(8, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    real = RealPictures("noise", ("a", "b"), pixels, torch.arange(8) % 2)
    first, second = (trained(real, seed=3, steps=2) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert first.conditioner.encode("b")[0].tolist() == [1]

"""Who prefers in a run: labels, the judge, the model as it writes and as it gives probability; and the page that shows them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from evidence_example import offline, samples
from penchant.cli import main
from penchant.evaluation.profile import by_generation, by_labels, by_score, profile
from penchant.feedback import open_source
from penchant.report.profile import LABELS, TRAINING, WRITING, profile_section, profiles


def test_labels_prefer_the_chosen_by_their_strength():
    rows = [{"prompt": "?", "chosen": "a b", "rejected": "a", "strength": s} for s in (1.0, 0.5, 0.2)]
    found = by_labels(list(open_source(rows)))
    assert [(c.p, c.text_a, c.text_b) for c in found] == [(1.0, "a b", "a"), (0.5, "a b", "a"), (0.2, "a b", "a")]
    score = profile(found).scores["length"]
    assert (score.concordant, score.discordant) == (1, 1)  # the tie is left out


def test_a_model_that_writes_more_friendly_answers_is_seen_to():
    found = profile(by_generation(samples("plain"), samples("warm", seed=2)), refits=0)
    assert found.n == 56 and found.scores["sentiment"].sure
    assert found.vector["sentiment"] > 0.8


def test_a_judge_prefers_of_every_two_answers_that_it_could_judge():
    given = replace(samples("plain", count=3), scores=[[1.0, None, 0.5]] + [[0.5, 0.5, 0.5]] * 13)
    found = by_score(given)
    assert len(found) == 1 + 3 * 13 and found[0].p == 1.0 and {c.p for c in found[1:]} == {0.5}
    own = by_score(given, "logp per token")
    means = [p / n for p, n in zip(given.logp[0], given.lengths[0], strict=True)]
    assert [c.p for c in own[:3]] == [float(np.sign(means[a] - means[b]) / 2 + 0.5) for a, b in ((0, 1), (0, 2), (1, 2))]


def test_the_page_holds_labels_against_what_training_moved():
    run = offline()
    assert [one.agent for one in profiles(run)] == [LABELS, TRAINING, WRITING]
    part = profile_section(run)
    assert part is not None and part.tables[0].rows[0][0] == "Sentiment" and "★" in part.tables[0].rows[0][1]
    assert len(part.charts) == 1 and "250 pairs" in part.said[0]
    assert profile_section(replace(run, factors=None, samples_after=None)) is None


@pytest.mark.parametrize("texts", ["kept", "left out"])
def test_a_run_without_texts_still_knows_what_its_pairs_differ_in(texts: str):
    from penchant.evaluation.evidence import without_texts

    run = offline() if texts == "kept" else without_texts(offline())
    assert [one.agent for one in profiles(run)][:2] == [LABELS, TRAINING]


def test_the_command_prints_the_profile_of_labels_and_of_a_judge(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    rows = [{"prompt": f"p{i}", "chosen": "what a lovely day " * (i % 3 + 1), "rejected": "it is bad"} for i in range(24)]
    file = tmp_path / "pairs.jsonl"
    file.write_text("\n".join(json.dumps(row) for row in rows))
    assert main(["evaluate", str(file), "--profile", "--judge", "vader"]) == 0
    said = capsys.readouterr().out
    assert (
        "labels (n = 24)" in said
        and "vader (n = 24)" in said
        and "sentiment" in said
        and "0 pairs could not be judged" in said
    )
    assert main(["evaluate", str(file), "--profile", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["profiles"]["labels"]["scores"]["sentiment"]["tau"]["value"] == 1.0 and told["agreement"] is None
    assert main(["evaluate", str(file), "--profile", "--data", "x"]) == 2

"""Claims on the packaged model with real text, several arms and three seeds each: the recipes run whole, and their tables are
printed for docs/claims.md. They take minutes to an hour, so `make test` leaves them out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.claims, pytest.mark.filterwarnings("default")]


def test_an_imitation_term_lifts_the_chosen_the_more_the_larger_it_is(real: Any, tmp_path: Path) -> None:
    found = real("displacement").displacement(output=str(tmp_path))
    print(f"displacement:\n{found}")
    lifted = [found.estimate(arm, "unseen chosen").value for arm in found.runs]
    assert lifted == sorted(lifted)
    assert found.difference("eta=0.05", "unseen chosen").low > 0


def test_a_mean_over_tokens_tells_pairs_apart_as_well_as_a_sum(real: Any, tmp_path: Path) -> None:
    pairs, answers = real("length").length(output=str(tmp_path))
    print(f"length, pairs:\n{pairs}\n\nlength, answers:\n{answers}")
    assert all(pairs.estimate(arm, "accuracy").low > 0.5 for arm in pairs.runs)


def test_a_fifth_of_flipped_labels_leaves_clean_pairs_told_apart(real: Any, tmp_path: Path) -> None:
    found = real("flipped_labels").flipped_labels(output=str(tmp_path))
    for name, study in found.items():
        print(f"flipped labels, {name}:\n{study}\n")
    assert all(found["20% flipped"].estimate(arm, "accuracy").low > 0.75 for arm in found["20% flipped"].runs)


def test_graded_solutions_are_ranked_no_worse_than_by_chance(real: Any, tmp_path: Path) -> None:
    found = real("graded_solutions").graded_solutions(output=str(tmp_path))
    print(f"graded solutions:\n{found}")
    assert all(found.estimate(arm, "pairs").value > 0.5 for arm in found.runs)

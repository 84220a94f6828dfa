"""Claims on files of pairs: the recipes run whole on the packaged model, and their figures are printed for docs/claims.md.
They take minutes to an hour, so `make test` leaves them out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.claims, pytest.mark.filterwarnings("default")]


def test_forty_steps_tell_agreeable_statements_from_their_opposite(real: Any, tmp_path: Path) -> None:
    module = real("persona_canary")
    found = module.canary(output=str(tmp_path / "canary"))
    print("persona canary:", found)
    assert found.accuracy >= module.LEAST


def test_a_small_model_learns_what_people_prefer_on_unseen_conversations(real: Any, tmp_path: Path) -> None:
    found = real("human_pairs").human_pairs(output=str(tmp_path / "human"))
    print("human pairs:", found)
    assert found.low > 0.5

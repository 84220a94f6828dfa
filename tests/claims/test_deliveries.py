"""Claims on what people compare behaviour by: the recipe on deliveries runs whole, its figures printed for docs/claims.md."""

from __future__ import annotations

from typing import Any

import pytest

from penchant.evaluation.statistics import share

pytestmark = [pytest.mark.claims, pytest.mark.filterwarnings("default")]


def test_regret_does_not_fit_labels_by_return_and_neither_is_ahead_of_the_other_on_its_own(recipe: Any) -> None:
    module = recipe("regret")
    found = module.table()
    print(module.shown(found))
    for figure in found.figures:
        assert found.difference("return → regret", figure).high < 0
        assert share(found.values("regret → regret", figure)).low > 0.7
        own = found.difference("regret → regret", figure, "return → return")
        assert own.low < 0 < own.high or own.value == 0  # a null: 30 boards do not tell them apart


def test_partial_return_learns_no_constant_and_regret_does(recipe: Any) -> None:
    module = recipe("regret")
    found = module.constant()
    print(module.shown(found))
    for noise in module.NOISE:
        assert max(found.values("return → return", f"both {noise}")) == 0
        assert share(found.values("regret → regret", f"both {noise}")).low > 0.7

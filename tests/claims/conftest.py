"""How claims reach the recipes: imported by name from their folder, with real data where a recipe reads it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def real(recipe: Any, monkeypatch: pytest.MonkeyPatch, shared_data: Path) -> Any:
    """Imports a recipe by name, with the folder of real data and the packaged model, which is converted once for all."""
    monkeypatch.setattr(recipe("data"), "HOME", shared_data)
    monkeypatch.delenv("PENCHANT_CACHE")
    return recipe

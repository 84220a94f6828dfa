"""What all tests share: one thread, a tiny model and tokenizer of our own making, and the folder of real data."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ["HF_HUB_OFFLINE"] = "1"

import pytest
import torch

torch.set_num_threads(1)

RECIPES = Path(__file__).resolve().parents[1] / "recipes"
SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or fills the user's cache."""
    monkeypatch.setenv("PENCHANT_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(autouse=True)
def plain_products() -> Iterator[None]:
    """Every test leaves float32 products as torch has them: a run in it may have chosen others, for the whole process."""
    yield
    torch.set_float32_matmul_precision("highest")


@pytest.fixture
def recipe(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """Imports a file of recipes/ by name."""
    monkeypatch.syspath_prepend(str(RECIPES))
    return importlib.import_module


@pytest.fixture
def shared_data() -> Path:
    """Real preference data with licences; tests that need it are skipped, with the reason, where it is absent."""
    if not SHARED.is_dir():
        pytest.skip(f"the folder of real data is not here: {SHARED.name}")
    return SHARED


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny language model with a chat template, as a folder that `load` reads. Not to be written into."""
    from tiny import tiny_model

    return tiny_model(tmp_path_factory.mktemp("tiny"))

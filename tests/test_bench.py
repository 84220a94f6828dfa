"""What the documents quote is what was measured: the newest file in benchmarks/results, to the letter. Nothing is timed here."""

from __future__ import annotations

import ast
import importlib
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A module of benchmarks/ by name, none of which is imported by anything else here."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    names = {path.stem for path in BENCHMARKS.glob("*.py")}
    yield importlib.import_module
    for name in names & set(sys.modules):
        del sys.modules[name]


def test_documents_quote_the_newest_results_to_the_letter(bench: Any):
    documents = bench("documents")
    held = documents.kept(documents.newest())
    quoted = set()
    for page in documents.PAGES:
        text = page.read_text(encoding="utf-8")
        assert documents.filled(text, held) == text, f"{page.name} is not what `make bench` measured; it writes it anew"
        quoted |= {found[2] for found in documents.PLACE.finditer(text)}
    assert quoted == set(documents.SAID)


def test_every_row_names_a_function_that_is_there(bench: Any):
    runner = bench("bench")
    for row, place in runner.ROWS.items():
        module, _, name = place.partition(":")
        tree = ast.parse((BENCHMARKS / f"{module}.py").read_text(encoding="utf-8"))
        assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, row


def test_a_target_is_reached_or_missed_by_how_much(bench: Any):
    figure = bench("figures").Figure
    assert figure("x", 5.0, at_least=4, stretch=6).reached == "reached"
    assert figure("x", 6.0, at_least=4, stretch=6).reached == "reached, stretch too"
    assert figure("x", 3.0, at_least=4).reached == "missed by 25%"
    assert figure("x", 0.5, at_most=0.4).reached == "missed by 25%"
    assert figure("x", 0.3, at_most=0.4, stretch=0.2).reached == "reached"
    assert figure("x", 0.3).reached == "no target"


def test_a_ratio_is_taken_within_a_round(bench: Any):
    figures = bench("figures")
    made = figures.ratio({"peer": [10.0, 40.0, 12.0], "ours": [2.0, 4.0, 3.0]}, "peer", "ours", "x")
    assert (made.value, made.low, made.high, made.rounds) == (5.0, 4.0, 10.0, 3)


def test_contestants_take_turns_and_the_warm_up_does_not_count(bench: Any):
    turns: list[str] = []
    seconds = bench("figures").in_turns(
        {"a": lambda: turns.append("a"), "b": lambda: turns.append("b")}, 2, warm=["b"], say=False
    )
    assert turns == ["b", "a", "b", "a", "b"] and {name: len(x) for name, x in seconds.items()} == {"a": 2, "b": 2}


def test_a_row_without_figures_is_named_and_every_row_is_known(bench: Any):
    command, documents = bench("bench"), bench("documents")
    assert tuple(command.ROWS) == documents.ROWS
    assert "step" in documents.the_missed({"rows": {}}) and "growth" in documents.the_missed({"rows": {}})

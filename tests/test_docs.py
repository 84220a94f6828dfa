"""The documents tell the truth: Python in them compiles and names what exists, commands in them are taken by the parser.
It does not judge their prose."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import re
import shlex
import types
from pathlib import Path
from typing import Any

import pytest

import penchant
import penchant.run
from penchant import cli
from penchant.command.recipe import ASKED, read_recipe
from penchant.engine.settings import Settings
from penchant.objectives.reader import read
from penchant.rewards import Judge
from penchant.running.grid import points, read_grid

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w+)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(*languages: str) -> list[tuple[str, str]]:
    """(where, text) of every block in one of these languages."""
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for match in BLOCK.finditer(text):
            if match[1] in languages:
                found.append((f"{page.name}:{text[: match.start()].count(chr(10)) + 1}", match[2]))
    return found


def penchant_lines(text: str) -> list[str]:
    """The lines of a shell block that call penchant, with continued lines joined."""
    joined = text.replace("\\\n", " ")
    asked = [line.partition(" > ")[0].strip() for line in joined.splitlines()]  # where output goes, the shell says
    return [line for line in asked if line.startswith("penchant ")]


PYTHON = blocks("python")
SHELL = [(where, line) for where, text in blocks("sh", "bash", "console") for line in penchant_lines(text)]
RECIPES = blocks("yaml")


def test_there_is_something_to_check():
    assert len(PYTHON) >= 4 and len(SHELL) >= 8 and RECIPES


@pytest.mark.parametrize(("where", "text"), PYTHON, ids=[where for where, _ in PYTHON])
def test_python_in_the_documents_compiles_and_names_what_exists(where: str, text: str):
    tree = ast.parse(text, where)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "pn":
            assert node.attr in penchant.__all__, f"{where}: pn.{node.attr} is not part of the public face"
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            for name in names:
                if name and name.split(".")[0] == "penchant":
                    assert importlib.util.find_spec(name), f"{where}: there is no module {name}"
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "pn.align":
            given = {k.arg: k.value for k in node.keywords if k.arg}
            Settings.of({name: ast.literal_eval(x) for name, x in given.items() if name in Settings.model_fields})
            assert set(given) <= {*Settings.model_fields, *ASKED}, where


WHOLE = [(where, text) for where, text in PYTHON if "import penchant as pn" in text]


@pytest.mark.parametrize(("where", "text"), WHOLE, ids=[where for where, _ in WHOLE])
def test_whole_examples_run_and_ask_align_for_what_it_takes(where: str, text: str, monkeypatch: pytest.MonkeyPatch):
    """They run as they stand, but for `align`, which only notes what it was asked."""
    asked: list[inspect.BoundArguments] = []
    true = inspect.signature(penchant.run.align)

    def align(*words: object, **named: object) -> types.SimpleNamespace:
        asked.append(true.bind(*words, **named))
        return types.SimpleNamespace(verdict="learned", report="report.html")

    compared: list[inspect.BoundArguments] = []
    whole = inspect.signature(penchant.run.compare)

    def compare(*words: object, **named: object) -> None:
        compared.append(whole.bind(*words, **named))

    monkeypatch.setattr(penchant.run, "align", align)
    monkeypatch.setattr(penchant.run, "compare", compare)
    namespace: dict[str, Any] = {}
    exec(compile(text, where, "exec"), namespace)
    if "train" in namespace:
        namespace["train"](*["smollm2"][: len(inspect.signature(namespace["train"]).parameters)])
    assert len(asked) == text.count("pn.align(") and len(compared) == text.count("pn.compare(")
    for call in compared:
        some = [read(one) if isinstance(one, str) else one for one in call.arguments["objectives"]]
        assert points(some, call.arguments["grid"] or {}, Settings.of(call.arguments.get("settings", {})), "pairs")
    for call in asked:
        objective = call.arguments["objective"]
        assert isinstance(objective, penchant.Objective) and read(repr(objective)) == objective
        assert call.arguments["output"]
        if "judge" in call.arguments:
            assert isinstance(call.arguments["judge"], Judge) and call.arguments["settings"]["rounds"] >= 1
    for name, comment in re.findall(r"^print\((\w+)\)  # (.+)$", text, re.MULTILINE):
        assert repr(namespace[name]) == comment


@pytest.mark.parametrize(("page", "library"), [("pictures.md", "diffusers"), ("policies.md", "gymnasium")])
def test_short_examples_of_pictures_and_policies_run_in_their_order(
    page: str, library: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    pytest.importorskip(library, reason="these examples need an extra")
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {}
    short = [(where, text) for where, text in PYTHON if where.startswith(f"{page}:") and (where, text) not in WHOLE]
    for where, text in short:
        exec(compile(text, where, "exec"), namespace)
    assert len(short) >= 2 and capsys.readouterr().out


@pytest.mark.parametrize(("where", "line"), SHELL, ids=[where for where, _ in SHELL])
def test_commands_in_the_documents_are_taken(where: str, line: str):
    words = shlex.split(line, comments=True)[1:]
    if "--help" in words:
        words.remove("--help")
        assert not words or words[0] in cli.build()[1]
        return
    arguments = cli.parse(words)
    if arguments.command == "compare":
        from penchant.command.flags import given

        some = [read(one) for one in arguments.objective]
        assert points(some, read_grid(arguments.grid), Settings.of(given(arguments, Settings)), "pairs")
    elif vars(arguments).get("objective") is not None:
        read(arguments.objective)
    if arguments.command == "align":
        from penchant.command.flags import given

        Settings.of(given(arguments, Settings))


@pytest.mark.parametrize(("where", "text"), RECIPES, ids=[where for where, _ in RECIPES])
def test_recipes_in_the_documents_are_taken(where: str, text: str, tmp_path: Path):
    path = tmp_path / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    recipe = read_recipe(path, Settings.model_fields)
    read(recipe["objective"])
    Settings.of({name: value for name, value in recipe.items() if name not in ASKED})


def test_the_site_asks_nothing_of_other_hosts():
    config = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert "font: false" in config
    assert not re.search(r"https?://", config)
    for page in PAGES:
        assert not re.search(r"<(script|link|img|iframe)\b", page.read_text(encoding="utf-8")), page.name


def test_links_between_the_documents_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#\s]+)\)", page.read_text(encoding="utf-8")):
            made = target in ("settings.md", "methods/index.md") or target.startswith("docs/methods")
            if not target.startswith("http") and not made:
                assert (page.parent / target).exists(), f"{page.name} links to {target}, which is not there"

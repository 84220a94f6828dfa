"""The house stands as it was drawn: arrows run down only, heavy things load late, files stay readable and safe.
Nothing here knows what the code computes."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src" / "penchant"
FILES = sorted(SOURCE.rglob("*.py"))

LEVELS = (
    ("__main__",),
    ("cli", "command", "run", "running", "judging"),
    ("report", "evaluation"),
    ("engine",),
    ("rollouts", "steering", "control"),
    ("rewards", "domains"),
    ("feedback", "references"),
    ("objectives",),
    ("errors", "files", "http", "words", "version"),
)
"""The ring from above to below: a room may import its own level and those under it."""

LEVEL = {room: depth for depth, rooms in enumerate(LEVELS) for room in rooms}


def name_of(file: Path) -> str:
    parts = ("penchant", *file.relative_to(SOURCE).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room_of(module: str) -> str:
    """The room a module lies in: `domains` for penchant.domains.text.domain; the empty word for penchant itself."""
    return module.split(".")[1] if "." in module else ""


@cache
def tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"), str(file))


MODULES = {name_of(file) for file in FILES}


def imported(nodes: Iterator[ast.AST], module: str) -> set[str]:
    """The penchant modules these nodes import."""
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.split(".")[0] == "penchant"}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} imports relatively; write the whole name, so that arrows can be read."
            if node.module and node.module.split(".")[0] == "penchant":
                for alias in node.names:
                    whole = f"{node.module}.{alias.name}"
                    found.add(whole if whole in MODULES else node.module)
    return found - {module}


def on_import(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes that run when a module is imported: no function bodies, nothing under TYPE_CHECKING."""
    for child in ast.iter_child_nodes(node):
        typing_only = isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING")
        if not typing_only and not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield child
            yield from on_import(child)


def circle(arrows: dict[str, set[str]]) -> list[str]:
    """A way round that comes back to where it began; empty where there is none."""
    done: set[str] = set()

    def walk(here: str, path: list[str]) -> list[str]:
        if here in path:
            return [*path[path.index(here) :], here]
        if here not in done:
            for there in sorted(arrows.get(here, ())):
                if found := walk(there, [*path, here]):
                    return found
            done.add(here)
        return []

    return next((found for start in sorted(arrows) if (found := walk(start, []))), [])


def test_every_room_has_its_place_in_the_ring():
    assert {room_of(module) for module in MODULES} - {""} <= set(LEVEL)


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_arrows_run_down_only(file: Path):
    module = name_of(file)
    if module == "penchant":
        return  # the public face names everything and loads it only when asked; see test_public_api.py
    upward = [
        f"{module} imports {other}"
        for other in imported(ast.walk(tree(file)), module)
        if room_of(other) and LEVEL[room_of(other)] < LEVEL[room_of(module)]
    ]
    assert not upward, f"{'; '.join(upward)}: what a lower room needs from above, it is given as a callable."


def test_no_module_imports_itself_by_a_detour():
    arrows: dict[str, set[str]] = {}
    for file in FILES:
        here = name_of(file)
        # Python loads a module's own package before the module, so naming it is no detour.
        arrows[here] = {there for there in imported(on_import(tree(file)), here) if not here.startswith(f"{there}.")}
    assert circle(arrows) == []


def test_rooms_of_one_level_do_not_import_each_other_in_a_circle():
    arrows: dict[str, set[str]] = {}
    for file in FILES:
        if here := room_of(name_of(file)):
            there = {room_of(other) for other in imported(ast.walk(tree(file)), name_of(file))}
            arrows.setdefault(here, set()).update(there - {here, ""})
    assert circle(arrows) == []


def test_the_face_is_imported_by_nobody():
    for file in FILES:
        for node in ast.walk(tree(file)):
            face = isinstance(node, ast.ImportFrom) and node.module == "penchant"
            assert not face, f"{name_of(file)} imports from the face; import from the room itself"


def loaded_by(code: str) -> set[str]:
    """The top-level modules that are in memory after running `code` in a fresh interpreter."""
    script = f"import sys\n{code}\nprint(*{{name.split('.')[0] for name in sys.modules}})"
    here = {**os.environ, "PYTHONPATH": str(SOURCE.parent)}
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=True, env=here)
    return set(run.stdout.splitlines()[-1].split())


def test_the_objectives_need_torch_and_no_other_heavy_library():
    loaded = loaded_by("import penchant.objectives as o; o.DPO(beta=0.1)")
    assert "torch" in loaded
    assert not loaded & {"transformers", "datasets", "accelerate", "peft", "pydantic", "matplotlib", "yaml", "rich"}


def test_import_penchant_loads_nothing_heavy():
    loaded = loaded_by("import penchant; dir(penchant)")
    assert not loaded & {"torch", "numpy", "transformers", "pydantic", "rich"}


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_a_file_is_short_and_says_what_it_is(file: Path):
    text = file.read_text(encoding="utf-8")
    lines = text.count("\n")
    assert lines <= 400, f"{name_of(file)} has {lines} lines: it is doing two things."
    assert ast.get_docstring(tree(file)), f"{name_of(file)} does not say what it is."


def unsafe(node: ast.AST) -> str | None:
    """What makes a node unsafe to have in a library that reads other people's files."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
        for name in names:
            if name.split(".")[0] in ("pickle", "cPickle", "dill", "cloudpickle", "shelve", "marshal", "joblib"):
                return f"imports {name}"
    if isinstance(node, ast.Call):
        called = ast.unparse(node.func)
        if called in ("eval", "exec", "compile", "torch.load", "torch.save", "os.system", "__import__"):
            return f"calls {called}"
        for keyword in node.keywords:
            if keyword.arg in ("trust_remote_code", "shell", "allow_pickle") and ast.unparse(keyword.value) != "False":
                return f"says {keyword.arg}={ast.unparse(keyword.value)}"
        if called.startswith("yaml.") and called not in ("yaml.safe_load", "yaml.safe_dump"):
            takes = [ast.unparse(argument) for argument in node.args]
            if called == "yaml.load" and takes[1:] != ["_Loader"]:
                return "loads YAML with another loader than the safe one of command/recipe.py"
    return None


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_nothing_is_unpickled_or_evaluated(file: Path):
    assert [said for node in ast.walk(tree(file)) if (said := unsafe(node))] == []


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from pickle import loads",
        "torch.load(p)",
        "eval(x)",
        "f(trust_remote_code=True)",
        "yaml.load(t, Loader)",
    ],
)
def test_the_search_for_unsafe_code_finds_it(line: str):
    assert any(unsafe(node) for node in ast.walk(ast.parse(line)))


def test_the_search_for_circles_finds_them():
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"a"}}) == ["a", "b", "c", "a"]
    assert circle({"a": {"b", "c"}, "b": {"c"}}) == []

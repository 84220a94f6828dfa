"""The public face is kept: its names and signatures are those of `public_api.txt`, and asking for them loads what they need
and no more. What they do is tested elsewhere."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import penchant
from penchant.objectives.describe import describe

HERE = Path(__file__).resolve().parent
SNAPSHOT = HERE / "public_api.txt"
MEND = (
    "The public face has changed. If that is meant: a name that goes needs a deprecation over two minor versions, and the "
    f"changelog a line; then run `python {Path(__file__).name} > public_api.txt` in the folder tests."
)


def signature(thing: object) -> str:
    """Parameters with their types and defaults: an objective's as it describes them, others in the words of the source."""
    if isinstance(thing, type) and issubclass(thing, penchant.Objective) and thing is not penchant.Objective:
        fields = [
            f"{field.name}: {field.type}{f' in {field.allowed}' if field.allowed else ''} = {field.default!r}"
            for field in describe(thing).fields
        ]
        return f"({', '.join(fields)})"
    return str(inspect.signature(thing)).replace("'", "")  # pyright: ignore[reportArgumentType]


def members(thing: type) -> list[str]:
    """The public methods and properties a class defines or inherits from penchant, with their signatures."""
    found: dict[str, str] = {}
    for part in reversed(thing.__mro__):
        if part.__module__.split(".")[0] != "penchant":
            continue
        for name, value in vars(part).items():
            if name.startswith("_"):
                continue
            if isinstance(value, property):
                found[name] = name
            elif inspect.isfunction(value):
                found[name] = f"{name}{signature(value)}"
            elif isinstance(value, classmethod):
                found[name] = f"{name}{signature(value.__func__)} [class]"
    return [found[name] for name in sorted(found)]


def public_api() -> str:
    """Names, signatures and, where a class is made to be used rather than called, its members."""
    lines = []
    for name in sorted(penchant.__all__, key=str.casefold):
        thing = getattr(penchant, name)
        lines.append(f"{name}{'' if isinstance(thing, type) and issubclass(thing, Exception) else signature(thing)}")
        if name in ("Run", "Scored", "Pairs", "Objective"):
            lines += [f"  .{member}" for member in members(thing)]
    return "\n".join(lines) + "\n"


def test_names_and_signatures_are_those_of_the_snapshot():
    # in a process of its own: here the shapes are executed, which wraps what is shown
    run = subprocess.run(
        [sys.executable, "-W", "error::SyntaxWarning", __file__],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": str(HERE.parent / "src")},
    )
    assert run.stdout.splitlines() == SNAPSHOT.read_text(encoding="utf-8").splitlines(), MEND


def test_the_face_is_small_listed_and_leads_to_the_things_themselves():
    assert 12 <= len(penchant.__all__) <= 20
    assert set(penchant.__all__) <= set(dir(penchant))
    from penchant.objectives.dpo import DPO
    from penchant.objectives.reader import read

    assert penchant.DPO is DPO and penchant.read_objective is read


def test_type_checkers_see_exactly_the_names_that_are_there():
    tree = ast.parse(Path(str(penchant.__file__)).read_text(encoding="utf-8"))
    (typed,) = (node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    names = {a.asname or a.name for node in typed.body if isinstance(node, ast.ImportFrom) for a in node.names}
    assert names == set(penchant.__all__)


@pytest.mark.parametrize("name", ["aling", "torch", "comapre"])
def test_an_unknown_name_is_an_attribute_error_that_names_it(name: str):
    with pytest.raises(AttributeError, match=f"'penchant' has no attribute '{name}'"):
        getattr(penchant, name)


if __name__ == "__main__":
    sys.stdout.write(public_api())

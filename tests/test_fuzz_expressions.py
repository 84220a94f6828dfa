"""Expressions and recipes that somebody wrote to do harm, or while asleep: what is read is an objective that can be written
again, everything else is one clean sentence, and nothing is ever evaluated."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from hostile_rows import TEXTS
from penchant import cli
from penchant.command.recipe import read_recipe
from penchant.engine.settings import Settings
from penchant.errors import Refusal
from penchant.objectives import Objective, catalogue, read
from penchant.objectives.composed import COMPOSED
from test_fuzz_rows import RAW

ANNOTATIONS = {
    said.encode()
    for method in catalogue().values()
    for cls in method.__mro__
    for said in vars(cls).get("__annotations__", {}).values()
    if isinstance(said, str)
}
ACTS = frozenset(
    {"compile", "exec", "import", "os.system", "os.exec", "os.posix_spawn", "subprocess.Popen", "socket.connect"}
)
"""What evaluating a text, or running what it names, would be audited as."""
_seen: list[str] | None = None
_ours = False


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    """Notes an act, but for Python's own reading of the classes' annotations, which are kept as text."""
    global _ours
    if _seen is None or event not in ACTS:
        return
    if event == "compile":
        _ours = arguments[0] in ANNOTATIONS
    if not (_ours and event in ("compile", "exec")):
        _seen.append(f"{event} {arguments!r:.100}")


sys.addaudithook(_audit)  # for good: a hook cannot be taken away, so this one listens only while it is asked to


@contextmanager
def watched() -> Iterator[list[str]]:
    """What is compiled, imported or started meanwhile."""
    global _seen, _ours
    _seen, _ours = (acts := []), False
    try:
        yield acts
    finally:
        _seen = None


EVIL = [
    "__import__('os').system('true')",
    "DPO().__class__.__mro__[-1].__subclasses__()",
    "eval('1')",
    "exec('1')",
    "open('/etc/passwd')",
    "(lambda: DPO())()",
    "[DPO() for x in (1,)]",
    "f'{DPO()}'",
    "DPO(beta=f'{1}')",
    "DPO(**{'beta': 0.1})",
    "DPO(*[0.1])",
    "DPO() if 1 else 2",
    "DPO(beta=(yield))",
    "DPO(beta:=0.1)",
    "import os",
    "DPO();DPO()",
    "DPO()\n+NLL()",
    "DPO()#",
    "DPО()",
    "ＤＰＯ()",
    "DPO（）",
    "DPO(beta=０.1)",
    "DPO(beta=٣)",
    "DPO(beta=1_0)",
    "DPO(beta=0x1)",
    "DPO(beta=1j)",
    "DPO(beta=--1)",
    "DPO(beta=+1)",
    "DPO(beta=1e-400)",
    "DPO(beta=-0.0)",
    "DPO(beta=" + "9" * 1900 + ")",
    "DPO(beta=0." + "9" * 1900 + ")",
    "2*" * 900 + "DPO()",
    "(" * 1990,
    "DPO(" * 400,
    "Unbiased(" * 200 + "DPO()" + ")" * 200,
    "TokenWeighted(" * 12 + "DPO()" + ")" * 12,
    "+".join(["TokenWeighted(BetaDPO())"] * 32),
    "-DPO()",
    "DPO() - NLL()",
    "DPO() / 2",
    "DPO() ** 2",
    "DPO() @ NLL()",
    "DPO.data",
    "DPO()()",
    "DPO()[0]",
    "{DPO()}",
    "DPO(beta='0.1')",
    'DPO(beta="\\x41")',
    "NLL('sum'*9)",
    "True*True",
    "None",
    "...",
    "",
    "Consensus(DPO)",
    "Consensus(base=0.1)",
    "Sum(DPO())",
    "Objective()",
    "Paired()",
    "Wrapper(DPO())",
    "_Parser()",
    "read('DPO()')",
    "catalogue()",
]
PIECES = [
    "(",
    ")",
    ",",
    "=",
    "+",
    "*",
    "-",
    ".",
    "'",
    '"',
    "[",
    "{",
    "__class__",
    "lambda",
    " ",
    "1e309",
    "0",
    "beta",
    "True",
    "\x00",
    "\n",
]


def expressions(count: int) -> Iterator[str]:
    """Valid expressions with pieces put in, taken out, doubled or exchanged; and the evil ones."""
    draw = random.Random(0)
    good = [*(one.written for one in COMPOSED), "Consensus(SimPO(beta=2.5)) + 0.1*NLL()", "TokenWeighted(LiPO())"]
    good += [f"{name}()" for name in catalogue()]
    yield from EVIL
    for _ in range(count):
        text = " + ".join(draw.choices(good, k=draw.choice([1, 1, 1, 2])))
        for _ in range(draw.choice([0, 1, 1, 2, 5])):
            a, b = sorted(draw.choices(range(len(text) + 1), k=2))
            other = draw.choice(
                [*PIECES, *PIECES, draw.choice(EVIL), draw.choice(TEXTS), str(draw.random() * 10 ** draw.randint(-9, 9))]
            )
            text = draw.choice(
                [
                    text[:a] + other + text[a:],
                    text[:a] + text[b:],
                    text[:b] + text[a:b] + text[b:],
                    text[:a] + other + text[b:],
                ]
            )
        yield text


def test_no_expression_is_evaluated_and_each_is_an_objective_or_a_sentence() -> None:
    ends = {"objective": 0, "refusal": 0}
    for text in expressions(1500):
        with watched() as acts:
            try:
                made: Objective | None = read(text)
            except Refusal as refused:
                made, said = None, str(refused)
        assert not acts, (text, acts)
        if made is None:
            ends["refusal"] += 1
            assert 20 < len(said) < 1200 and "\n" not in said and said[-1] in ".?" and not RAW.search(said), said
        else:
            ends["objective"] += 1
            again = read(repr(made))
            assert again == made and repr(again) == repr(made) and hash(again) == hash(made)
    assert min(ends.values()) > 200, ends


def test_the_watch_sees_an_evaluation() -> None:
    with watched() as acts:
        eval("1 + 1")
    assert acts


ASKED = "model: /nowhere/m\ndata: x.jsonl\nobjective: DPO()\noutput: out\n"
BOMB = "history: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"k{i}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for i, (a, b) in enumerate(zip("abcdefgh", "bcdefghi", strict=True))
)
RECIPES = {
    "a bomb of aliases": BOMB + ASKED,
    "a circle": ASKED + "history: &a [*a]\n",
    "an anchor": ASKED + "epochs: &a 3\n",
    "merged": ASKED + "<<: {epochs: 3}\n",
    "an object of Python": ASKED + "epochs: !!python/object/apply:os.system [touch done]\n",
    "a name of Python": ASKED + "epochs: !!python/name:os.system\n",
    "a tag of its own": ASKED + "epochs: !mine 3\n",
    **{
        f"not a {tag}": ASKED + f'epochs: !!{tag} "abc"\n'
        for tag in ("int", "float", "timestamp", "bool", "binary", "set", "omap")
    },
    "no date": ASKED + "epochs: 2024-99-99\n",
    "5000 digits": ASKED + f"epochs: {'9' * 5000}\n",
    "5000 digits in words": ASKED + f"epochs: '{'9' * 5000}'\n",
    "very deep": ASKED + f"history: {'[' * 1500}{']' * 1500}\n",
    "deep": ASKED + f"history: {'[' * 100}{']' * 100}\n",
    "deep keys": ASKED + "".join("  " * k + "a:\n" for k in range(300)),
    "a key that is a list": ASKED + "? [a]\n: 3\n",
    "twice": ASKED + ASKED,
    "two documents": ASKED + "---\n" + ASKED,
    "NUL": ASKED + "epochs: \0\n",
    "NUL in a name": ASKED.replace("out", '"a\\0b"'),
    "escapes": ASKED + "epochs: \"\\e[31mred\"\n'\\e[2J': 3\n",
    "a raw escape": ASKED + "epochs: \x1b[31m\n",
    "sexagesimal": ASKED.replace("out", "12:30:45"),
    "infinite": ASKED + "learning_rate: .inf\n",
    "a mapping for a list": ASKED + "history: {a: b}\ngoals: [[1], [2]]\n",
    "bytes": b"\xff\xfe\x00",
    "nothing but a word": "model",
    "an unknown encoding": ASKED.encode("utf-16"),
}


@pytest.mark.parametrize("content", RECIPES.values(), ids=RECIPES)
def test_a_strange_recipe_is_one_clean_sentence_and_runs_nothing(
    content: str | bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "recipe.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with watched() as acts:
        try:
            Settings.of({k: x for k, x in read_recipe(path, Settings.model_fields).items() if k in Settings.model_fields})
            raise AssertionError("it was read")
        except Refusal:
            pass
    assert not [act for act in acts if not act.startswith(("import", "compile"))]
    assert cli.main(["align", str(path)]) == 2
    said = capsys.readouterr().err
    assert said.startswith("penchant: ") and len(said) < 1200 and not RAW.search(said)
    assert not (tmp_path / "done").exists()


HUGE = "9" * 5000


@pytest.mark.parametrize(
    "flags",
    [
        ["--epochs", HUGE],
        ["--epochs", "1e400"],
        ["--epochs", "\ud800"],
        ["--epochs", "\x1b[31m"],
        ["--goals", "nan,inf"],
        ["--goals", "1"],
        ["--goals", f"1,{HUGE}"],
        ["--held-out", "-1"],
        ["--trackers", "\x1b[2J,x"],
        ["--objective", "(" * 3000],
        ["--objective", "\udcff"],
        ["--judge", "a:b:c"],
        ["--judge", "__import__('os'):system"],
        ["--judge", "\x1b[31m"],
        ["--model", "~nobody-of-this-name/x"],
        ["--history", "x,\x1b[31m"],
        ["--lora", "-1"],
        ["--\x1b[31m"],
        ["--seed", "1j"],
        ["\x1b]0;x\x07"],
    ],
    ids=repr,
)
def test_a_strange_flag_is_one_clean_sentence(flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["--model", "/nowhere/m", "--data", "x.jsonl", "--objective", "DPO()", "--output", "/nowhere/out"]
    assert cli.main(["align", *asked, *flags]) == 2
    said = capsys.readouterr().err
    assert said.startswith("penchant: ") and len(said) < 1200 and not RAW.search(said)

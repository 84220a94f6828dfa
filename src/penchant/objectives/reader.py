"""Reads an objective as it is written in Python: names, numbers, words, `+`, `*` and parentheses. It is not an evaluator:
no name exists here but the objectives of this folder and their fields."""

from __future__ import annotations

import dataclasses
import math
import re
import typing
from typing import Any

from penchant.errors import Refusal, nearest
from penchant.objectives import catalogue, known
from penchant.objectives.base import Objective, check_field
from penchant.words import brief

MOST_TEXT, MOST_DEPTH, MOST_TERMS = 2000, 16, 32

Value = float | int | bool | str | Objective

_TOKEN = re.compile(
    r"""\s*(?:(?P<number>-?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?(?![\w.]))
            |(?P<name>[A-Za-z_][A-Za-z_0-9]*)
            |(?P<word>"[^"\\\n]*"|'[^'\\\n]*')
            |(?P<mark>[+*(),=]))""",
    re.VERBOSE,
)


def read(text: str) -> Objective:
    """The objective that `text` writes, such as `Consensus(SimPO(beta=2.5)) + 0.1*NLL()`; `read(repr(o)) == o`. Raises
    Refusal, and nothing else, where the text writes none."""
    if len(text) > MOST_TEXT:
        raise Refusal(f"the objective has {len(text)} characters; at most {MOST_TEXT} are read.")
    parser = _Parser(text)
    value = parser.sum()
    if parser.kind != "end":
        raise parser.refuse("expected `+`, `*` or the end")
    if not isinstance(value, Objective):
        raise Refusal(f"{brief(text)} is a {_kind(value)}, not an objective; write one such as DPO(beta=0.1).")
    if len(repr(value)) > MOST_TEXT:  # what is read is written down with all its numbers, and read again
        raise Refusal(f"the objective has {len(repr(value))} characters with all its fields; at most {MOST_TEXT} are read.")
    return value


class _Parser:
    """Recursive descent: sums of products of atoms; an atom is a number, a word, an objective or a sum in parentheses."""

    def __init__(self, text: str) -> None:
        self.text, self.at, self.depth = text.rstrip(), 0, 0
        self.kind, self.token, self.end = "", "", 0
        self.step()

    def step(self) -> None:
        """On to the next token."""
        self.at = self.end
        if self.at == len(self.text):
            self.kind, self.token = "end", ""
            return
        match = _TOKEN.match(self.text, self.at)
        if match is None:
            raise self.refuse("cannot read")
        self.kind = str(match.lastgroup)
        self.token, self.at, self.end = match[self.kind], match.start(self.kind), match.end()

    def took(self, mark: str) -> bool:
        """Steps over `mark` if it comes next."""
        found = self.kind == "mark" and self.token == mark
        if found:
            self.step()
        return found

    def refuse(self, what: str) -> Refusal:
        here = brief(self.text[self.at :].lstrip(), 24) if self.at < len(self.text) else "its end"
        stop = "" if what.endswith((".", "?")) else "."
        return Refusal(f"the objective {brief(self.text, 120)}, at {here}: {what}{stop}")

    def sum(self) -> Value:
        self.depth += 1
        if self.depth > MOST_DEPTH:
            raise Refusal(f"the objective is nested more than {MOST_DEPTH} deep.")
        value = self.product()
        while self.took("+"):
            other = self.product()
            if not (isinstance(value, Objective) and isinstance(other, Objective)):
                raise self.refuse("only objectives can be added")
            value = value + other
            if len(value.terms) > MOST_TERMS:
                raise Refusal(f"the objective has more than {MOST_TERMS} terms.")
        self.depth -= 1
        return value

    def product(self) -> Value:
        value = self.atom()
        while self.took("*"):
            match value, self.atom():
                case (bool(), _) | (_, bool()):
                    raise self.refuse("`*` takes a number and an objective, not True or False")
                case (int() | float()) as x, Objective() as objective:
                    value = objective * x
                case Objective() as objective, (int() | float()) as x:
                    value = objective * x
                case (int() | float()) as x, (int() | float()) as y:
                    value = self.finite(float(x) * float(y))
                case _:
                    raise self.refuse("`*` takes a number and an objective")
        return value

    def atom(self) -> Value:
        kind, token = self.kind, self.token
        if self.took("("):
            value = self.sum()
            if not self.took(")"):
                raise self.refuse("expected `)`")
            return value
        if kind == "number":
            self.finite(float(token))
            self.step()
            return int(token) if token.lstrip("-").isdigit() else float(token)
        if kind == "word":
            self.step()
            return token[1:-1]
        if kind == "name":
            return self.named(token)
        raise self.refuse("expected an objective or a number")

    def finite(self, x: float) -> float:
        if not math.isfinite(x):
            raise self.refuse("a number must be finite")
        return x

    def named(self, name: str) -> Value:
        """True, False, or an objective with its fields."""
        if name in ("True", "False"):
            self.step()
            return name == "True"
        if name.casefold() in ("inf", "nan", "infinity"):
            raise self.refuse("a number must be finite")
        if name not in catalogue():
            other = " or ".join(known(name))
            hint = f"it is called {other} here." if other else nearest(name, catalogue())
            raise self.refuse(f"there is no objective {brief(name)}; {hint}")
        self.step()
        if not self.took("("):
            raise self.refuse(f"expected `(`; an objective is written {name}()")
        return self.build(catalogue()[name])

    def build(self, cls: type[Objective]) -> Objective:
        """The objective, from the arguments up to the closing parenthesis."""
        fields = {f.name: f for f in dataclasses.fields(cls)}  # pyright: ignore[reportArgumentType]
        hints = typing.get_type_hints(cls, include_extras=True)
        free = list(fields)
        given: dict[str, Any] = {}
        while not self.took(")"):
            if given and not self.took(","):
                raise self.refuse("expected `,` or `)`")
            if given and self.took(")"):
                break
            name, value = self.argument()
            if name is None and free and len(free) + len(given) == len(fields):
                name = free[0]
            if name not in fields:
                said = "takes no more values without a name" if name is None else f"has no field {brief(name)}"
                hint = f"; {nearest(name, fields)}" if name and fields else "."
                raise self.refuse(f"{cls.__name__} {said}{hint} Its fields are: {', '.join(fields) or 'none'}")
            if name in given:
                raise self.refuse(f"{cls.__name__} is given {name} twice")
            check_field(cls, name, value, hints[name])
            free.remove(name)
            given[name] = value
        for name in free:
            if fields[name].default is dataclasses.MISSING and fields[name].default_factory is dataclasses.MISSING:
                raise self.refuse(f"{cls.__name__} needs its field {name!r}, such as {cls.__name__}({name}=…)")
        return cls(**given)

    def argument(self) -> tuple[str | None, Value]:
        """`name=value`, or a value alone."""
        if self.kind == "name" and self.text[self.end :].lstrip().startswith("="):
            name = self.token
            self.step()
            self.step()
            return name, self.sum()
        return None, self.sum()


def _kind(value: Value) -> str:
    return "number" if isinstance(value, int | float) else "word"

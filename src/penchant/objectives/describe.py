"""What can be said of an objective from its class alone: equation, source, fields, data, needs. The command line, the
docs and the model card all speak from here; nothing is written a second time."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import textwrap
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from penchant.objectives.base import Objective, Paired, Range, kinds_of


@dataclass(frozen=True)
class FieldDescription:
    """One hyper-parameter."""

    name: str
    type: str
    """In words: number, whole number, True or False, word, pairwise objective."""
    default: Any
    """None where the field must be given."""
    allowed: str
    """The interval, or the words to choose from; empty where the type says it all."""
    doc: str


@dataclass(frozen=True)
class Description:
    """An objective in words."""

    name: str
    equation: str
    source: str
    """Authors, arXiv number and equation, as the class gives them."""
    arxiv: str
    """The arXiv number alone, or empty."""
    doc: str
    fields: tuple[FieldDescription, ...]
    data: tuple[str, ...]
    """The batches it takes: Pairs, Labelled, Lists, Rollouts."""
    unit: str
    needs: tuple[str, ...]
    """Anchors, values and columns by name, "mismatched", and the head where it is not the one that makes text."""
    breaks: Mapping[str, str]
    wraps: bool
    """Whether it is made from another objective."""
    file: Path
    known_as: tuple[str, ...] = ()
    """Other names the field has for it."""


def describe(cls: type[Objective]) -> Description:
    """All that the class says of itself."""
    doc = inspect.getdoc(cls) or ""
    first, _, rest = doc.partition("\n")
    equation, _, source = first.partition(" " * 4)
    arxiv = re.search(r"arXiv (\d{4}\.\d{4,5})", source)
    fields = describe_fields(cls)
    needs = cls.needs
    return Description(
        name=cls.__name__,
        equation=equation.strip(),
        source=source.strip(),
        arxiv=arxiv[1] if arxiv else "",
        doc=rest.strip(),
        fields=fields,
        data=tuple(kind.__name__ for kind in kinds_of(cls)),
        unit=cls.unit if isinstance(cls.unit, str) else cls().unit,
        needs=(
            *sorted(needs.anchors | needs.values | needs.columns),
            *(["mismatched"] if needs.mismatched else []),
            *([] if needs.head == "lm" else [f"{needs.head} head"]),
        ),
        breaks=cls.breaks,
        wraps=any(field.type in ("pairwise objective", "objective") for field in fields),
        file=Path(inspect.getfile(cls)),
        known_as=vars(cls).get("known_as", ()),
    )


@cache
def describe_fields(cls: type) -> tuple[FieldDescription, ...]:
    """The fields of any dataclass that documents them as this project does, by a docstring under each."""
    hints = typing.get_type_hints(cls, include_extras=True)
    docs = field_docs(cls)
    described = []
    for field in dataclasses.fields(cls):
        kind, allowed = _words(hints[field.name])
        default = None if field.default is dataclasses.MISSING else field.default
        described.append(FieldDescription(field.name, kind, default, allowed, docs.get(field.name, "")))
    return tuple(described)


def field_docs(cls: type) -> dict[str, str]:
    """The docstring under each field, by field, from the source of the class and of the classes it inherits from."""
    docs: dict[str, str] = {}
    for part in reversed(cls.__mro__[:-1]):
        body = ast.parse(textwrap.dedent(inspect.getsource(part))).body[0]
        assert isinstance(body, ast.ClassDef)
        for here, below in zip(body.body, body.body[1:], strict=False):
            match here, below:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(doc))):
                    docs[name] = inspect.cleandoc(doc)
                case _:
                    pass
    return docs


def _words(hint: Any) -> tuple[str, str]:
    """A field's type in words, and what it allows."""
    if typing.get_origin(hint) is Annotated:
        (allowed,) = (extra for extra in hint.__metadata__ if isinstance(extra, Range))
        return "number", str(allowed)
    if typing.get_origin(hint) is Literal:
        return "word", " | ".join(map(str, typing.get_args(hint)))
    if isinstance(hint, type) and issubclass(hint, Objective):
        return ("pairwise objective" if issubclass(hint, Paired) else "objective"), ""
    return {bool: "True or False", int: "whole number", str: "word"}.get(hint, str(hint)), ""

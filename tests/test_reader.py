"""What the reader of objective expressions promises: it reads back what `repr` wrote, and refuses everything else."""

from __future__ import annotations

import dataclasses
import math
import typing
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penchant.errors import Refusal
from penchant.objectives import DPO, IPO, KTO, NLL, ORPO, Objective, SimPO, Sum, catalogue, read
from penchant.objectives.base import Range, kinds_of
from penchant.objectives.reader import MOST_DEPTH, MOST_TERMS, MOST_TEXT

# The strategies draw recipes, (class, fields), and the test builds them: the shape checker that runs while objectives are
# built uses `random`, which hypothesis forbids inside strategies.
Recipe = tuple[type[Objective], dict[str, Any]]


def values(hint: Any) -> st.SearchStrategy[Any]:
    """Allowed values of a field, from its annotation."""
    if typing.get_origin(hint) is typing.Annotated:
        (allowed,) = (extra for extra in hint.__metadata__ if isinstance(extra, Range))
        return st.floats(allow_nan=False, allow_infinity=False).map(abs).filter(lambda x: x in allowed)
    if typing.get_origin(hint) is typing.Literal:
        return st.sampled_from(typing.get_args(hint))
    if isinstance(hint, type) and issubclass(hint, Objective):
        return st.sampled_from([DPO, SimPO, ORPO]).flatmap(recipes)
    return {bool: st.booleans(), int: st.integers(1, 9)}[hint]


def recipes(cls: type[Objective]) -> st.SearchStrategy[Recipe]:
    hints = typing.get_type_hints(cls, include_extras=True)
    fields = {f.name: values(hints[f.name]) for f in dataclasses.fields(cls)}  # pyright: ignore[reportArgumentType]
    return st.tuples(st.just(cls), st.fixed_dictionaries(fields))


def build(recipe: Recipe) -> Objective:
    cls, fields = recipe
    return cls(**{name: build(x) if isinstance(x, tuple) else x for name, x in fields.items()})


singles = st.sampled_from(list(catalogue().values())).flatmap(recipes)
weights = st.floats(-1e6, 1e6)


@settings(max_examples=150, deadline=None)
@given(singles)
def test_it_reads_back_what_repr_wrote(recipe: Recipe):
    objective = build(recipe)
    again = read(repr(objective))
    assert again == objective and hash(again) == hash(objective) and repr(again) == repr(objective)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(weights, singles), min_size=1, max_size=4))
def test_it_reads_back_sums(drawn: list[tuple[float, Recipe]]):
    terms = [(weight, build(recipe)) for weight, recipe in drawn]
    shared = [kind for kind in kinds_of(terms[0][1]) if all(kind in kinds_of(term) for _, term in terms)]
    if not shared:
        with pytest.raises(Refusal, match="no common kind of data"):
            Sum(tuple(terms))
        return
    if len({term.needs.head for _, term in terms}) > 1:
        with pytest.raises(Refusal, match="reads one head"):
            Sum(tuple(terms))
        return
    objective = Sum(tuple(terms))
    again = read(repr(objective))
    assert again == objective and hash(again) == hash(objective)


@settings(max_examples=400, deadline=None)
@given(
    st.text(max_size=60)
    | st.lists(
        st.sampled_from(
            [
                "DPO",
                "NLL",
                "KTO",
                "(",
                ")",
                "beta",
                "flip",
                "=",
                ",",
                "+",
                "*",
                " ",
                "0.1",
                "-3",
                "1e999",
                "'sum'",
                "True",
                "inf",
            ]
        ),
        max_size=14,
    ).map("".join)
)
def test_any_text_is_an_objective_or_a_refusal(text: str):
    try:
        assert isinstance(read(text), Objective)
    except Refusal as refused:
        assert len(str(refused)) > 20


@pytest.mark.parametrize(
    ("text", "objective"),
    [
        ("DPO()", DPO()),
        (" DPO ( beta = 1e-2 , ) ", DPO(beta=0.01)),
        ("DPO(0.3)", DPO(0.3)),
        ("IPO(0.3, average=False)", IPO(0.3, average=False)),
        ("NLL('token')", NLL(reduction="token")),
        ("DPO() + 0.1*NLL()", DPO() + 0.1 * NLL()),
        ("0.5 * (DPO() + 2*0.25*NLL()) * 2", DPO() + 0.5 * NLL()),
        ("DPO() + -0.1 * SimPO(gamma=0)", DPO() + -0.1 * SimPO(gamma=0)),
        ("KTO(beta=.2) + NLL()", KTO(beta=0.2) + NLL()),
        ("1 * DPO()", Sum(((1.0, DPO()),))),
    ],
)
def test_it_reads_what_python_reads(text: str, objective: Objective):
    assert read(text) == objective


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "expected an objective or a number"),
        ("DPOO()", "no objective 'DPOO'; did you mean 'DPO'"),
        ("DPO(bta=0.1)", "no field 'bta'; did you mean 'beta'? Its fields are: beta"),
        ("DPO(label_smoothing=0.1)", "no field 'label_smoothing'"),
        ("DPO(0.1, 0.2)", "takes no more values without a name"),
        ("DPO(0.1, beta=0.2)", "given beta twice"),
        ("DPO(beta=0)", "must lie in (0, inf)"),
        ("DPO(beta=-0.1)", "must lie in (0, inf)"),
        ("CDPO(flip=0.5)", "must lie in [0, 0.5)"),
        ("DPO(beta=True)", "must be a number"),
        ("DPO(beta=1e999)", "must be finite"),
        ("DPO(beta=inf)", "must be finite"),
        ("DPO(beta=nan)", "must be finite"),
        (f"DPO(beta=1{'0' * 400})", "must be finite"),
        ("1e200*1e200*DPO()", "must be finite"),
        ("DPO()*1e200*1e200", "must be a finite number"),
        ("NLL(reduction='mean')", "must be one of 'response', 'token', 'sum'"),
        ("DPO(beta=DPO())", "must be a number"),
        ("DPO", "is written DPO()"),
        ("DPO() NLL()", "expected `+`, `*` or the end"),
        ("DPO() + 1", "only objectives can be added"),
        ("DPO() * NLL()", "`*` takes a number and an objective"),
        ("True * DPO()", "`*` takes a number and an objective, not True or False"),
        ("DPO() * 'sum'", "`*` takes a number and an objective"),
        ("0.1", "is a number, not an objective"),
        ("'DPO'", "is a word, not an objective"),
        ("DPO() + KTO()", "read no common kind of data"),
        ("(DPO()", "expected `)`"),
        ("DPO(beta=0.1", "expected `,` or `)`"),
        ("__import__('os')", "there is no objective '__import__'"),
        ("DPO().__class__", "cannot read"),
        ("DPO()\x00", "cannot read"),
        ("(" * 900 + "DPO()", f"nested more than {MOST_DEPTH} deep"),
        ("+".join(["DPO()"] * (MOST_TERMS + 1)), f"more than {MOST_TERMS} terms"),
        ("DPO()" + " " * MOST_TEXT, f"at most {MOST_TEXT} are read"),
    ],
)
def test_a_refusal_says_what_and_where(text: str, said: str):
    with pytest.raises(Refusal) as refused:
        read(text)
    message = str(refused.value)
    assert said in message and message.endswith((".", "?")) and not message.endswith(("..", "?."))


def test_a_refusal_hides_escape_sequences():
    with pytest.raises(Refusal) as refused:
        read("\x1b[31mDPO()")
    assert "\x1b" not in str(refused.value)


def test_weights_are_finite():
    with pytest.raises(Refusal, match="finite"):
        Sum(((math.inf, DPO()),))

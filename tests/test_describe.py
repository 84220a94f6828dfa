"""What an objective says of itself, from its class alone; the command line, the docs and the model card print this."""

import pytest

from penchant.objectives import CDPO, IPO, KTO, NLL, catalogue, describe, read
from penchant.objectives.composed import COMPOSED, Composed, composed
from penchant.objectives.wrapper import Wrapper


def test_equation_source_and_fields_come_from_the_class():
    said = describe(CDPO)
    assert said.equation.startswith("-(1−ε) log σ(s)")
    assert said.source == "Mitchell 2023, cdpo.pdf, eq. 3"
    assert [(f.name, f.type, f.default, f.allowed) for f in said.fields] == [
        ("beta", "number", 0.1, "(0, inf)"),
        ("flip", "number", 0.1, "[0, 0.5)"),
    ]
    assert said.fields[1].doc == "ε, the share of labels taken to be wrong."
    assert (said.data, said.unit, said.needs) == (("Pairs",), "pair", ("ref",))
    assert said.file.name == "cdpo.py" and not said.wraps


def test_words_choices_and_further_needs_are_named():
    assert describe(KTO).needs == ("ref", "mismatched")
    assert describe(KTO).arxiv == "2402.01306"
    assert describe(IPO).fields[1].type == "True or False"
    (reduction,) = describe(NLL).fields
    assert (reduction.type, reduction.allowed) == ("word", "response | token | sum")
    assert describe(NLL).data == ("Pairs", "Labelled")
    assert "descent" in describe(NLL).breaks


def test_a_wrapper_says_that_it_wraps():
    (base,) = describe(Wrapper).fields
    assert (base.name, base.type, base.default) == ("base", "pairwise objective", None)
    assert describe(Wrapper).wraps


@pytest.mark.parametrize("cls", catalogue().values(), ids=catalogue())
def test_every_objective_gives_equation_source_and_a_word_on_each_field(cls: type):
    said = describe(cls)
    assert len(said.equation) > 10 and said.source and said.data and said.unit
    assert len(said.equation) + len(said.source) < 116, "the first line is one line"
    for field in said.fields:
        assert field.doc, f"{said.name}.{field.name} has no docstring under it"
        assert field.type in ("number", "whole number", "True or False", "word", "pairwise objective", "objective")


@pytest.mark.parametrize("one", COMPOSED, ids=[one.name for one in COMPOSED])
def test_a_method_that_is_a_sum_can_be_read(one: Composed):
    objective = read(one.written)
    assert len(objective.terms) == 2 and read(repr(objective)) == objective


def test_sums_are_found_by_the_name_the_field_has_for_them_in_any_case():
    assert [one.name for one in composed("rpo")] == ["RPO", "RPO, average"]
    assert [one.name for one in composed("slic")] == ["SLiC, whole"] and composed("DPO") == []

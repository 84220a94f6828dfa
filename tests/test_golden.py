"""Loss and gradient of every objective against numbers that somebody else computed (tests/golden), and against a second
derivation (tests/twins.py, twins_lists.py and twins_coupled.py). The format is described in tests/golden/README.md."""

from __future__ import annotations

import dataclasses
import json
import math
import typing
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import twins
import twins_coupled
import twins_lists
from penchant.objectives import Labelled, Lists, Objective, Pairs, Rollouts, Scored, catalogue, read

FOLDER = Path(__file__).with_name("golden")
GOLDEN = {path.stem: json.loads(path.read_text("utf-8")) for path in sorted(FOLDER.glob("*.json"))}
CASES = [(name, case) for name, file in GOLDEN.items() for case in file["cases"]]
IDS = [f"{name}: {case['case']}" for name, case in CASES]


def steps(response: dict[str, Any], key: str) -> list[float]:
    """The log-probs per step."""
    x = response.get(key, 0)
    n = response.get("steps") or len(response["logp"])
    return [float(v) for v in x] if isinstance(x, list) else [x / n] * n


def scored(responses: list[dict[str, Any]]) -> Scored:
    lists = [steps(r, "logp") for r in responses]
    widest = max(map(len, lists))
    table = lambda rows: torch.tensor([r + [math.nan] * (widest - len(r)) for r in rows], dtype=torch.float64)  # noqa: E731
    mask = torch.tensor([[t < len(r) for t in range(widest)] for r in lists])
    ref = table([steps(r, "ref") for r in responses]) if any("ref" in r for r in responses) else None
    names = {name: None for r in responses for name in r.get("anchors", {})}
    anchors = {name: table([steps({**r, **r["anchors"]}, name) for r in responses]) for name in names}
    values = {
        name: table([steps({**r, **r["values"]}, name) for r in responses]).requires_grad_()
        for name in {name: None for r in responses for name in r.get("values", {})}
    }
    weight = table([steps(r, "weight") for r in responses]) if any("weight" in r for r in responses) else None
    return Scored(table(lists).requires_grad_(), mask, ref, anchors, values, weight)


def column(x: list[float]) -> Tensor:
    return torch.tensor(x, dtype=torch.float64 if any(isinstance(v, float) for v in x) else None)


def batch_of(case: dict[str, Any]) -> Pairs | Labelled | Lists | Rollouts:
    columns = {name: column(x) for name, x in case.get("columns", {}).items()}
    if "pairs" in case:
        return Pairs(scored([p["w"] for p in case["pairs"]]), scored([p["l"] for p in case["pairs"]]), **columns)
    if "lists" in case:
        group = torch.tensor([i for i, answers in enumerate(case["lists"]) for _ in answers])
        flat = [r for answers in case["lists"] for r in answers]
        gain = torch.tensor([float(r["gain"]) for r in flat], dtype=torch.float64)
        if "advantage" not in flat[0]:
            return Lists(scored(flat), group, gain, **columns)
        advantage = torch.tensor([float(r["advantage"]) for r in flat], dtype=torch.float64)
        return Rollouts(scored(flat), group, gain, advantage, **columns)
    label = torch.tensor([r["label"] for r in case["responses"]])
    other = scored(case["mismatched"]).detach() if "mismatched" in case else None
    return Labelled(scored(case["responses"]), label, other, **columns)


def run(case: dict[str, Any]) -> tuple[Tensor, list[tuple[Scored, Tensor]]]:
    """The loss values, and the gradient of their sum by the log-probs of each set of responses."""
    objective, batch = read(case["objective"]), batch_of(case)
    values = objective(batch, state=numbers(case.get("state", {})))
    sides = [batch.w, batch.l] if isinstance(batch, Pairs) else [batch.y]
    found = torch.autograd.grad(values.sum(), [y.logp for y in sides], allow_unused=True)
    zero = [torch.zeros_like(y.logp) if g is None else g for y, g in zip(sides, found, strict=True)]
    return values, list(zip(sides, zero, strict=True))


@pytest.mark.parametrize(("name", "case"), CASES, ids=IDS)
def test_golden(name: str, case: dict[str, Any]):
    within = case.get("within", 1e-6)
    values, sides = run(case)
    assert values.tolist() == pytest.approx(case["loss"], abs=within, rel=1e-9)
    if "grad" not in case:
        return
    if "pairs" in case:
        expected = [[g[side] for g in case["grad"]] for side in ("w", "l")]
    else:
        expected = [[g for answers in case["grad"] for g in answers] if "lists" in case else case["grad"]]
    for (y, grad), wanted in zip(sides, expected, strict=True):
        for row, mask, number in zip(grad, y.mask, wanted, strict=True):
            per_step = number if isinstance(number, list) else [number] * int(mask.sum())
            assert row[mask].tolist() == pytest.approx(per_step, abs=within, rel=1e-9)
            assert not row[~mask].any()


@pytest.mark.parametrize(("name", "case"), [c for c in CASES if "slopes" in c[1]])
def test_the_gradient_through_values_is_the_recorded_one(name: str, case: dict[str, Any]):
    batch = batch_of(case)
    assert isinstance(batch, Pairs)
    loss = read(case["objective"])(batch, state=numbers(case.get("state", {}))).sum()
    for side, y in (("w", batch.w), ("l", batch.l)):
        for value, x in y.values.items():
            (found,) = torch.autograd.grad(loss, x, retain_graph=True, allow_unused=True)
            found = torch.zeros_like(x) if found is None else found
            for i, wanted in enumerate(case["slopes"]):
                number = wanted[side][value]
                mine = found[i][y.mask[i]].tolist()
                assert mine == pytest.approx(number if isinstance(number, list) else [number] * len(mine), abs=1e-11)


def numbers(state: dict[str, Any]) -> dict[str, Tensor]:
    return {name: torch.tensor(x, dtype=torch.float64) for name, x in state.items()}


@pytest.mark.parametrize(("name", "case"), [c for c in CASES if "mismatched" in c[1] or "before" in c[1]])
def test_the_state_is_the_recorded_one(name: str, case: dict[str, Any]):
    objective, batch = read(case["objective"]), batch_of(case)
    before = numbers(case["before"]) if "before" in case else objective.init()
    state = objective.update(before, objective.statistics(batch, before))
    assert {name: x.item() for name, x in state.items()} == pytest.approx(case["state"], abs=1e-12)


def exact(response: dict[str, Any]) -> twins.Response:
    """The very numbers that the batch holds, as decimals: spreading a sum evenly rounds it."""
    logp, ref = ([Decimal(x) for x in steps(response, key)] for key in ("logp", "ref"))
    anchors = {
        name: [Decimal(x) for x in steps({**response, **response["anchors"]}, name)] for name in response.get("anchors", {})
    }
    values = {
        name: [Decimal(x) for x in steps({**response, **response["values"]}, name)] for name in response.get("values", {})
    }
    return twins.Response(logp, ref, response.get("label", True), Decimal(float(response.get("gain", 0))), anchors, values)


def twin_of(case: dict[str, Any]) -> Any:
    """The method's second derivation for this kind of data; None where it has none. It gives one number per row, so it is
    silent where a list has a value for each of its pairs or responses."""
    kind = next(key for key in ("pairs", "responses", "lists") if key in case)
    objective = read(case["objective"])
    if kind == "lists" and objective.unit != "list":
        return None
    return (twins.ALL | twins_lists.ALL | twins_coupled.ALL).get((type(objective).__name__, kind))


DERIVED = [c for c in CASES if twin_of(c[1]) and not c[1]["source"].startswith("by definition")]


@pytest.mark.parametrize(("name", "case"), DERIVED, ids=[f"{name}: {case['case']}" for name, case in DERIVED])
def test_the_second_derivation_agrees(name: str, case: dict[str, Any]):
    objective = read(case["objective"])
    values, sides = run(case)
    fields = {f.name: getattr(objective, f.name) for f in dataclasses.fields(typing.cast(Any, objective))}
    fields = {k: Decimal(v) if isinstance(v, float) else v for k, v in fields.items()}
    fields |= {k: Decimal(float(x)) for k, x in case.get("state", {}).items()}
    columns = {k: [Decimal(float(x)) for x in xs] for k, xs in case.get("columns", {}).items()}
    if "pairs" in case:
        rows = [[exact(p["w"]), exact(p["l"])] for p in case["pairs"]]
        ours = list(zip(*(list(zip(grad, y.mask, strict=True)) for y, grad in sides), strict=True))
    else:
        rows = [list(map(exact, answers)) for answers in case.get("lists", [[r] for r in case.get("responses", [])])]
        flat = zip(sides[0][1], sides[0][0].mask, strict=True)
        ours = [tuple(islice(flat, len(row))) for row in rows]
    theirs = lambda: twin_of(case)(rows, columns, **fields)  # noqa: E731
    assert values.tolist() == pytest.approx([float(x) for x in theirs()], rel=1e-11, abs=1e-12)
    slopes = iter(twins.slopes(theirs, [y for row in rows for y in row]))
    for found in ours:
        for grad, mask in found:
            assert grad[mask].tolist() == pytest.approx(next(slopes), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("name", catalogue())
def test_every_objective_has_golden_numbers(name: str):
    file = GOLDEN.get(name.casefold())
    assert file is not None, f"write tests/golden/{name.casefold()}.json; its README tells how"
    assert file["objective"] == name and set(file) == {"objective", "cases"}
    sources = {case["source"].partition(":")[0] for case in file["cases"]}
    assert len(sources) >= 2, "one source is not enough: add a case that was computed by another route"
    cases = [read(case["objective"]) for case in file["cases"]]
    said = " ".join(map(repr, cases))
    for field in dataclasses.fields(typing.cast(Any, catalogue()[name])):
        inner = isinstance(getattr(cases[0], field.name, None), Objective)
        assert inner or isinstance(field.default, bool) or field.name in said, f"no case shows {field.name}"
    assert all(len(case["case"]) > 3 for case in file["cases"])

"""Rows of one prompt read as one: the same numbers and gradients as row by row, fewer tokens, and never a difference that hangs
on which rows were scored together beyond rounding."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor

from architectures import SIZE, TOKENIZER
from penchant.domains.base import Cost, Encoded, Want
from penchant.domains.text.merging import merge, parts
from penchant.domains.text.paths import ScoringPath
from penchant.domains.text.policy import TextPolicy
from penchant.domains.text.tree import pack
from penchant.engine.step import Material, Step
from penchant.objectives import DPO, Pairs
from penchant.objectives.base import zeros
from test_engine import FP32
from test_logits import taught
from test_tree import CPU, DOMAIN, gradients, ids, shaken, uneven
from tiny import tiny_llama


def all_pairs(prompts: int, count: int) -> Encoded:
    """Every pair of `count` responses to each prompt, as rounds of sampling give them, the prompts' rows one in turn."""
    contexts = [ids(9 + 4 * p, p) for p in range(prompts)]
    answers = [[ids(3 + (5 * p + 3 * k) % 7, 50 + 10 * p + k) for k in range(count)] for p in range(prompts)]
    rows = [(p, w, l) for w, l in combinations(range(count), 2) for p in range(prompts)]
    return Encoded(
        Pairs,
        tuple(contexts[p].clone() for p, _, _ in rows),
        tuple((answers[p][w].clone(), answers[p][l].clone()) for p, w, l in rows),
        tuple(range(1, len(rows) + 1)),
    )


ROWS = all_pairs(3, 4)
EXTRAS = Want(frozenset({"entropy", "kl", "ref", "mass/3", "entropy/3"}))


def policy_on(path: str, **settings: Any) -> TextPolicy:
    policy = TextPolicy(tiny_llama(SIZE, **settings), TOKENIZER)
    policy.hold(TextPolicy(tiny_llama(SIZE, seed=1, **settings), TOKENIZER))
    policy.follow(ScoringPath(path, "hidden"))  # pyright: ignore[reportArgumentType]
    return policy


@pytest.mark.parametrize("path", ["tree", "packed", "padded"])
def test_what_is_read_once_has_the_values_of_every_row_and_its_gradients_added_up(path: str):
    policy = policy_on(path)
    read: list[int] = []
    body: Any = policy.plain_model.get_input_embeddings()
    body.register_forward_hook(lambda module, given, made: read.append(given[0].numel()))
    scored = DOMAIN.score(policy, ROWS, EXTRAS)
    tables = {"logp": scored.logp, **scored.values}
    expected = policy.plainly(ROWS.contexts, ROWS.responses, EXTRAS)
    prompts = sum(9 + 4 * p for p in range(3))
    distinct = [3 + (5 * p + 3 * k) % 7 for p in range(3) for k in range(4)]
    once = {"tree": prompts + sum(distinct) - 12, "packed": 4 * prompts + sum(distinct) - 12}
    assert read[0] == once.get(path, 12 * (17 + max(distinct) - 1))
    assert tables.keys() == expected.keys()
    for name, x in expected.items():
        torch.testing.assert_close(tables[name], x, rtol=1e-4, atol=1e-5)
    weights = {name: uneven(len(scored)) * (1 + i) for i, name in enumerate(sorted(tables))}
    loss = lambda of: sum((weights[name] * x.sum(-1)).sum() for name, x in sorted(of.items()))  # noqa: E731
    ours, theirs = (gradients(loss(of), policy.model) for of in (tables, expected))  # pyright: ignore[reportArgumentType]
    assert float((ours - theirs).norm() / theirs.norm()) < 1e-5


def test_responses_that_are_taught_differently_are_not_one():
    policy = policy_on("tree")
    each = tuple(
        tuple(taught(len(y), SIZE, seed=7 * i + k) for k, y in enumerate(ys)) for i, ys in enumerate(ROWS.responses)
    )
    rows, want = replace(ROWS, advantages=each), Want(frozenset({"advantage"}))
    whole = DOMAIN.score(policy, rows, want).value("advantage")
    for i in (0, 7, 17):
        alone = DOMAIN.score(policy, rows.select([i]), want).value("advantage")
        torch.testing.assert_close(whole[2 * i : 2 * i + 2, : alone.shape[1]], alone, rtol=0, atol=1e-5)


def test_a_pair_and_its_mirror_have_exactly_opposite_margins():
    """Both are the same two branches of one tree, so that nothing is left to rounding."""
    policy, pairs = policy_on("tree"), ROWS.select([0, 4, 8])
    mirrored = replace(
        ROWS.select([0, 4, 8, 8, 0, 4]),
        responses=(*pairs.responses, *((l, w) for w, l in (pairs.responses[i] for i in (2, 0, 1)))),
    )
    w, l = DOMAIN.score(policy, mirrored).total.view(-1, 2).T
    margin = w - l
    assert margin.abs().min() > 0
    assert torch.equal(margin[:3], -margin[[4, 5, 3]])


def test_swapped_in_another_scoring_the_margin_is_negated_to_the_last_digits_of_float64():
    policy = policy_on("tree")
    policy.double()
    swapped = replace(ROWS, responses=tuple((l, w) for w, l in ROWS.responses))
    a, b = (DOMAIN.score(policy, rows).total.view(-1, 2) for rows in (ROWS, swapped))
    torch.testing.assert_close(a[:, 0] - a[:, 1], b[:, 1] - b[:, 0], rtol=0, atol=1e-12)


def test_rows_are_merged_token_by_token_and_only_under_one_prompt():
    x, y, a, b = (torch.tensor(t) for t in ([1, 2], [1], [2, 3], [3]))
    merged = merge([x, y, x, y], [(a, b), (b, a), (b, b), ()])
    assert [t.tolist() for t in merged.contexts] == [[1, 2], [1]]
    assert [[t.tolist() for t in ys] for ys in merged.responses] == [[[2, 3], [3]], [[3], [2, 3]]]
    assert merged.place == [0, 1, 2, 3, 1, 1]
    apart = merge([x, x], [(a, b), (b,)], alike=False)
    assert [[t.tolist() for t in ys] for ys in apart.responses] == [[[2, 3], [3], [3]]] and apart.place == [0, 1, 2]


def test_what_rows_cost_together_is_what_is_read_of_them():
    policy = policy_on("tree")
    for path in ("tree", "packed"):
        policy.follow(ScoringPath(path, "hidden"))  # pyright: ignore[reportArgumentType]
        cost = DOMAIN.cost(policy, ROWS)
        for budget in (1, 40, 60, 100_000):
            groups = cost.micro_batches(budget)
            assert sorted(i for group in groups for i in group) == list(range(len(ROWS)))
            for group in groups:
                some = ROWS.select(group)
                merged = merge(some.contexts, some.responses)
                read = pack(merged.contexts, merged.responses, path == "tree", CPU).tokens.shape[1]
                assert read == sum({part: n for i in group for part, n in cost.parts[i].items()}.values())
                assert read <= budget or len(group) == 1
    prompts = [
        {ROWS.contexts[i].numpy().tobytes() for i in group} for group in DOMAIN.cost(policy, ROWS).micro_batches(130)
    ]
    assert sum(map(len, prompts)) == 3, "no prompt's rows are torn apart where they fit into one group"


def test_rows_of_one_prompt_stand_together_and_fill_up_what_is_left():
    shapes = ((0, 1), (1, 2), (0, 3), (1, 4), (0, 1))
    found = parts([ids(4, x) for x, _ in shapes], [[ids(3, 9), ids(4, y)] for _, y in shapes], True)
    assert [sum(x.values()) for x in found] == [9] * 5
    cost = Cost([9] * 5, padded=False, parts=found)
    assert cost.micro_batches(24) == [[0, 1, 2, 3, 4]]
    assert cost.micro_batches(23) == [[0, 2, 4], [1, 3]], "12 tokens each: both prompts would need 24"
    assert cost.micro_batches(11) == [[0], [2], [4], [1], [3]]


@pytest.mark.parametrize("path", ["tree", "packed"])
def test_a_step_hangs_on_neither_the_micro_batches_nor_the_order_of_rows_with_prompts_in_common(path: str):
    count = len(ROWS)

    def stepped(path: str, budget: int, order: list[int]) -> Tensor:
        policy = policy_on(path)
        with torch.no_grad():
            ref = 1.1 * policy.plainly(ROWS.contexts, ROWS.responses)["logp"]
        shaken(policy)
        anchor = lambda at: ref[ROWS.places(at)][:, : max(ROWS.select(at).lengths)]  # noqa: E731
        optimiser = torch.optim.SGD([p for _, p in policy.named_trainable()], lr=0.1)
        step = Step(policy, DOMAIN, DPO(), optimiser, Accelerator(cpu=True), FP32, tokens=budget, clip=1e9)
        step(Material(ROWS, {"ref": anchor}), order, zeros(DPO()))
        return torch.cat([p.grad.flatten() for _, p in policy.named_trainable() if p.grad is not None])

    expected = stepped("padded", 1, list(range(count)))  # every row alone
    for budget, order in ((1, list(range(count))), (60, list(range(count))[::-1]), (10_000, list(range(count)))):
        found = stepped(path, budget, order)
        assert float((found - expected).norm() / expected.norm()) < 1e-5, budget
        assert torch.equal(stepped(path, budget, order), found), "the same rows, the same bits"

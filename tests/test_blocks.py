"""Attention written out in pieces against one dense mask over everything, in float64: values and gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from penchant.domains.text import tree as trees
from penchant.domains.text.blocks import attend
from penchant.domains.text.tree import Tree, pack

HEADS, SHARED, SIZE = 4, 2, 3


def packed() -> Tree:
    """Two prompts: one with three responses, and one so many that they attend in parts."""
    some = lambda n: torch.zeros(n, dtype=torch.long)  # noqa: E731
    layout = pack(
        [some(9), some(40)], [[some(n) for n in (5, 1, 8)], [some(30) for _ in range(5)]], True, torch.device("cpu")
    )
    assert layout.tree is not None and [block.splits for block in layout.tree.blocks] == [False, True]
    return layout.tree


def dense(tree: Tree, window: int | None) -> Tensor:
    """Who sees whom, token by token, straight from the blocks."""
    n = len(tree.positions)
    sees = torch.zeros(n, n, dtype=torch.bool)
    for block in tree.blocks:
        prompt, at = list(range(block.start, block.start + block.prompt)), block.start + block.prompt
        for length in (0, *block.branches):
            line = [*prompt, *range(at, at + length)]
            for i, row in enumerate(line):
                sees[row, line[max(0, i + 1 - (window or n)) : i + 1]] = True
            at += length
    return sees


def drawn(tree: Tree, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    make = torch.Generator().manual_seed(0)
    shapes = [(1, heads, len(tree.positions), SIZE) for heads in (HEADS, SHARED, SHARED)]
    return [torch.randn(shape, generator=make, dtype=torch.float64).to(dtype).requires_grad_() for shape in shapes]


@pytest.mark.parametrize("window", [None, 6])
def test_pieces_give_the_values_and_gradients_of_one_dense_mask(window: int | None, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(trees, "ROWS", 7)  # so that parts are several pieces, and pieces begin within a branch
    tree = packed()
    query, key, value = given = drawn(tree)
    ours = attend(query, key, value, tree.pieces(window), 0.3)
    every = [x.repeat_interleave(HEADS // SHARED, 1) for x in (key, value)]
    plain = scaled_dot_product_attention(query, *every, dense(tree, window), scale=0.3).transpose(1, 2)
    torch.testing.assert_close(ours, plain, rtol=0, atol=1e-12)
    slope = torch.randn(plain.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for a, b in zip(torch.autograd.grad(ours, given, slope), torch.autograd.grad(plain, given, slope), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


def test_in_16_bits_it_errs_no_more_than_the_librarys_attention():
    tree = packed()
    exact = drawn(tree)
    sees, pieces = dense(tree, None), tree.pieces(None)

    def plain(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        every = [x.repeat_interleave(HEADS // SHARED, 1) for x in (k, v)]
        return scaled_dot_product_attention(q, *every, sees).transpose(1, 2)

    def apart(y: Tensor, given: list[Tensor]) -> list[float]:
        slope = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(y.dtype)
        wide = plain(*exact)
        both = zip(
            (y, *torch.autograd.grad(y, given, slope)),
            (wide, *torch.autograd.grad(wide, exact, slope.double())),
            strict=True,
        )
        return [float((a.detach().double() - b.detach()).norm() / b.detach().norm()) for a, b in both]

    given = drawn(tree, torch.bfloat16)
    ours = apart(attend(given[0], given[1], given[2], pieces, SIZE**-0.5), given)
    theirs = apart(plain(*given), given)
    assert max(ours) < 0.02 and all(a < 1.2 * b for a, b in zip(ours, theirs, strict=True)), (ours, theirs)

"""Attention over a packed sequence in one kernel, held against the calls block by block: on this device it is written out, which
shows that the mathematics is right and says nothing of its speed."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.attention import flex_attention as library

from architectures import SIZE, TOKENIZER, built
from penchant.domains.base import Encoded
from penchant.domains.text import flex, paths
from penchant.domains.text.flex import BLOCK, Sight
from penchant.domains.text.paths import ScoringPath, probe
from penchant.domains.text.policy import TextPolicy
from penchant.domains.text.tree import Tree, pack
from test_tree import DOMAIN, gradients, rows
from tiny import tiny_llama

pytestmark = [
    pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile:UserWarning"),
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning"),
]
CPU = torch.device("cpu")
PAIRS = rows((40, (30, 7)), (3, (1, 90)), (130, (20, 25)), (1, (4, 4)))
LISTS = rows((50, (30, 1, 12, 40, 9, 5, 22, 17)), (8, (6,) * 8))
MODELS = ["llama", "qwen3", "gemma2, caps and a window", "mistral, a window", "granite, divided logits", "mixtral, experts"]


@pytest.fixture
def backward(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library forbids gradients on this device, though it has written them out."""
    monkeypatch.setattr(library, "_validate_device", lambda *tensors: None)


@pytest.mark.parametrize("some", [PAIRS, LISTS], ids=["pairs", "lists of 8"])
@pytest.mark.parametrize("name", MODELS)
def test_one_kernel_says_what_the_blocks_say_and_so_do_its_gradients(name: str, some: Encoded, backward: None):
    policy = TextPolicy(built(name), TOKENIZER)
    found = probe(policy)
    weights = torch.randn(len(some.lengths), generator=torch.Generator().manual_seed(5))
    for path in ("tree", "packed"):
        made: list[tuple[Tensor, Tensor]] = []
        for kernel in ("blocks", "flex"):
            policy.follow(ScoringPath(path, "hidden", found.scale, found.cap, kernel=kernel))
            scored = DOMAIN.score(policy, some)
            made.append((scored.logp, gradients((weights * scored.total).sum(), policy.model)))
        (logp, slope), (ours, bent) = made
        torch.testing.assert_close(ours, logp, rtol=0, atol=1e-4)
        assert float((bent - slope).norm() / slope.norm()) < 1e-4


def test_in_one_kernel_a_responses_tokens_change_no_other_by_a_bit():
    policy = TextPolicy(tiny_llama(SIZE), TOKENIZER)
    policy.follow(ScoringPath("tree", "hidden", kernel="flex"))
    changed = ((LISTS.responses[0][0] + 1) % SIZE, *LISTS.responses[0][1:])
    other = Encoded(LISTS.data, LISTS.contexts, (changed, LISTS.responses[1]), LISTS.numbers)
    with torch.no_grad():
        ours, theirs = (DOMAIN.score(policy, x).logp for x in (LISTS, other))
    assert torch.equal(ours[1:], theirs[1:]) and (ours[0] != theirs[0]).any()


def seen(sight: Sight, window: int | None) -> Tensor:
    """What the function that the kernel is given says of every pair."""
    at = torch.arange(len(sight.row))
    return sight.mask(window).mask_mod(at, at, at[:, None], at[None])


@pytest.mark.parametrize("window", [None, 9])
def test_blocks_that_are_skipped_hold_nothing_and_whole_ones_everything(window: int | None):
    some = rows((300, (40, 200)), (5, (6, 6)), (2, (900, 3)), (260, (1, 1)))
    layout = pack(some.contexts, some.responses, True, CPU)
    assert layout.tree is not None
    sight = layout.tree.sight
    assert len(sight.row) % BLOCK == 0
    pairs = seen(sight, window)
    assert pairs.diagonal().all(), "padding too sees itself"
    tokens = len(layout.tree.positions)
    assert torch.equal(pairs[:tokens, :tokens], torch.block_diag(*_dense(layout.tree, window)).bool())
    assert not pairs[:tokens, tokens:].any() and not pairs[tokens:, :tokens].any()
    partly, wholly = sight.blocks(window)
    tiles = pairs.view(len(partly), BLOCK, len(partly), BLOCK).transpose(1, 2)
    assert not tiles[~(partly | wholly)].any()
    assert tiles[wholly].all() and bool(wholly.any()) == (window is None)
    assert int((partly | wholly).sum()) < len(partly) * (len(partly) + 1) / 2, "rows apart are skipped"


def _dense(tree: Tree, window: int | None) -> list[Tensor]:
    """Every row's own mask, from the definition."""
    out = []
    for block in tree.blocks:
        span = slice(block.start, block.start + block.size)
        branch, position = tree.branch[span], tree.positions[span]
        at = torch.arange(block.size)
        mask = (at[None] <= at[:, None]) & ((branch[None] == 0) | (branch[None] == branch[:, None]))
        out.append(mask if window is None else mask & (position[:, None] - position[None] < window))
    return out


def test_one_kernel_is_taken_where_its_values_and_gradients_are_right(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(paths, "KERNELS", {"cpu": ("flex", "blocks")})
    policy = TextPolicy(tiny_llama(SIZE), TOKENIZER)
    found = probe(policy)
    assert (found.name, found.kernel) == ("tree", "blocks")
    assert "tree in one kernel: NotImplementedError: 'FlexAttention does not support backward on CPU" in found.said
    monkeypatch.setattr(library, "_validate_device", lambda *tensors: None)
    found = probe(policy)
    assert (found.name, found.kernel, found.said) == ("tree", "flex", "")
    assert str(found) == "prompts shared and rows packed, attention in one kernel"
    assert found.bears(ScoringPath("tree", "hidden")) and not ScoringPath("tree", "hidden").bears(found)

    attend = flex.attend

    def wrong(query: Tensor, key: Tensor, value: Tensor, *how: object) -> Tensor:
        """Right values, and no gradient through the keys."""
        return attend(query, key.detach(), value, *how)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(flex, "attend", wrong)
    found = probe(policy)
    assert found.kernel == "blocks" and "gradients are" in found.said


@pytest.mark.claims
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_compiled_the_kernel_says_the_same(monkeypatch: pytest.MonkeyPatch):
    """Forward alone: the library compiles no gradient here."""
    policy = TextPolicy(tiny_llama(SIZE, hidden_size=64), TOKENIZER)
    made = []
    kernel = torch.compile(library.flex_attention, dynamic=False)
    monkeypatch.setattr(flex, "_kernel", lambda device: kernel)
    for name in ("blocks", "flex"):
        policy.follow(ScoringPath("tree", "hidden", kernel=name))
        with torch.no_grad():
            made.append(DOMAIN.score(policy, PAIRS).logp)
    torch.testing.assert_close(*made, rtol=0, atol=1e-4)

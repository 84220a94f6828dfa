"""What the batches and the reductions promise, whatever objective reads them."""

import pytest
import torch

from penchant.objectives import DPO, Labelled, Lists, Pairs, Scored


def scored(*rows: list[float], ref: list[list[float]] | None = None) -> Scored:
    steps = max(map(len, rows))
    mask = torch.tensor([[i < len(r) for i in range(steps)] for r in rows])
    fill = lambda rows: torch.tensor([r + [float("-inf")] * (steps - len(r)) for r in rows])  # noqa: E731
    return Scored(fill(list(rows)), mask, None if ref is None else fill(ref))


def test_pads_are_never_read_even_where_they_are_minus_infinity():
    y = scored([-1.0, -2.0], [-3.0])
    assert y.total.tolist() == [-3.0, -3.0]
    assert y.mean.tolist() == [-1.5, -3.0]
    logp = y.logp.clone().requires_grad_()
    Scored(logp, y.mask).total.sum().backward()
    assert logp.grad is not None and logp.grad.tolist() == [[1.0, 1.0], [1.0, 0.0]]


def test_a_missing_anchor_is_a_sentence():
    with pytest.raises(ValueError, match="needs the anchor 'ref', but the batch was scored with: none"):
        DPO()(scored([-1.0]), scored([-1.0]))


def test_several_anchors_are_weighed_against_the_policy():
    y = Scored(torch.tensor([[-1.0, -2.0]]), torch.ones(1, 2) > 0, torch.tensor([[-2.0, -2.0]]))
    y = Scored(y.logp, y.mask, y.ref, {"prev": torch.tensor([[-4.0, -8.0]])})
    assert y.against("prev").tolist() == [9.0]
    assert y.against({"ref": 0.5, "prev": 0.25}).tolist() == [-3.0 + 2.0 + 3.0]


def test_a_family_of_anchors_is_found_by_number_and_its_absence_is_a_sentence():
    zero = torch.zeros(1, 1)
    y = Scored(zero, zero == 0, zero, {f"history/{k}": zero for k in (1, 0, 2)})
    assert y.family("history") == ["history/0", "history/1", "history/2"]
    with pytest.raises(ValueError, match=r"needs the anchors 'history' \(history/0, history/1, …\), but .* with: ref\."):
        Scored(zero, zero == 0, zero).family("history")


def test_units_are_counted_from_masks_and_padding_rows_count_nothing():
    w, l = scored([-1.0, -2.0], [-1.0]), scored([-1.0], [-1.0])
    empty = Scored(torch.zeros(1, 2), torch.zeros(1, 2, dtype=torch.bool))
    pairs = Pairs(w, l)
    assert (pairs.size("pair"), pairs.size("response"), pairs.size("token")) == (2, 4, 5)
    assert Pairs(empty, empty).size("pair") == 0
    assert len(Pairs(empty, empty).kept().w) == 0
    assert Labelled(w, torch.tensor([True, False])).size("response") == 2


def test_ragged_lists_become_dense_rows():
    lists = Lists(scored([-1.0], [-2.0], [-3.0]), torch.tensor([7, 2, 7]), torch.tensor([0.0, 1.0, 2.0]))
    dense, mask = lists.dense(lists.y.total)
    assert dense.tolist() == [[-2.0, 0.0], [-1.0, -3.0]]
    assert mask.tolist() == [[True, False], [True, True]]
    assert lists.size("list") == 2


def test_half_precision_is_summed_in_float32():
    y = Scored(torch.full((1, 512), -1.001, dtype=torch.bfloat16), torch.ones(1, 512, dtype=torch.bool))
    assert y.total.dtype == torch.float32
    assert y.total.item() == pytest.approx(512 * y.logp[0, 0].float().item(), rel=1e-6)

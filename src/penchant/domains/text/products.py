"""A model's linear layers made ready for many small products: their weights are laid out once as the library wants them, in
the number format of the forward pass. It changes when that is done, not what is computed; nothing of it is trained."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial

import torch
from torch import Tensor, nn

ROWS = 16
"""Rows of a product that the layout is chosen for."""


@contextmanager
def laid_out(model: nn.Module) -> Iterator[None]:
    """In here every plain linear layer multiplies with a copy of its weights that is ready for use: on a CPU in the blocks
    that oneDNN would else make at every call, elsewhere in the format of autocast, which would else be cast at every call.
    The weights must not change in here. Without gradient."""
    layers = [layer for layer in model.modules() if type(layer) is nn.Linear]
    try:
        for layer in layers:
            product = _product(layer.weight.detach(), None if layer.bias is None else layer.bias.detach())
            if product is not None:
                vars(layer)["forward"] = product  # before the class's own; Module.__setattr__ has no part in it
        yield
    finally:
        for layer in layers:
            vars(layer).pop("forward", None)


def _product(weight: Tensor, bias: Tensor | None) -> Callable[[Tensor], Tensor] | None:
    """x ↦ x Wᵀ + b with W laid out now; None where that gains nothing."""
    device = weight.device.type
    autocast = torch.is_autocast_enabled(device)
    kind = torch.get_autocast_dtype(device) if autocast else weight.dtype
    bias = None if bias is None else bias.to(kind)
    if device == "cpu" and blocks(kind):
        packed = torch.ops.mkldnn._reorder_linear_weight(weight.to(kind).contiguous(), ROWS)
        return partial(_blocked, packed=packed, bias=bias, kind=kind)
    if kind == weight.dtype:
        return None
    return partial(_plain, weight=weight.to(kind), bias=bias, kind=kind)


def _blocked(x: Tensor, packed: Tensor, bias: Tensor | None, kind: torch.dtype) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x.to(kind), packed, bias, "none", [], "")


def _plain(x: Tensor, weight: Tensor, bias: Tensor | None, kind: torch.dtype) -> Tensor:
    return nn.functional.linear(x.to(kind), weight, bias)


@cache
def blocks(kind: torch.dtype) -> bool:
    """Whether this machine's torch multiplies with blocked weights in this format, and right: it is tried, because the
    operators are torch's own compiler's and promised to nobody."""
    if kind not in (torch.float32, torch.bfloat16):
        return False
    make = torch.Generator().manual_seed(0)
    weight, x = torch.randn(48, 64, generator=make).to(kind), torch.randn(ROWS, 64, generator=make).to(kind)
    try:
        packed = torch.ops.mkldnn._reorder_linear_weight(weight, ROWS)
        found = torch.ops.mkldnn._linear_pointwise(x, packed, None, "none", [], "")
    except (AttributeError, RuntimeError):
        return False
    exact = x.double() @ weight.double().T
    error, plain = (float((y.double() - exact).abs().max()) for y in (found, x @ weight.T))
    return found.dtype == kind and error <= 4 * plain

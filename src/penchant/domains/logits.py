"""What logits say of a response, step by step: log π, and the values an objective may want with gradient. It is written
twice, plainly and in chunks of rows that are computed anew in the backward pass; no model is known here."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from penchant.domains.base import Want

VALUES = frozenset({"entropy", "kl"})
"""What can be wanted of a step besides its log-prob: H(π) and KL(π_ref ‖ π) of its whole distribution."""
CHUNK = 2**20
"""Logits in a chunk: 4 MiB as float32, so that what is done to them finds them in a core's cache."""

Rows = Float[Tensor, "n steps vocabulary"]
Steps = Float[Tensor, "n steps"]


def plain_values(
    z: Rows, answer: Int[Tensor, "n steps"], mask: Bool[Tensor, "n steps"], want: Want, ref: Rows | None = None
) -> dict[str, Steps]:
    """log π(answer) = z[answer] − logsumexp(z) in float32, which errs ten times less than log_softmax, and every wanted
    value. `ref`: the reference's logits, where "kl" is wanted. The slow path that `chunked_values` is held against."""
    z = _scaled(z, want)
    norm = z.logsumexp(-1)
    logp = z - norm[..., None]
    out = {"logp": z.gather(-1, answer[..., None])[..., 0] - norm}
    if "entropy" in want.values:
        out["entropy"] = -(logp.exp() * logp).sum(-1)
    if "kl" in want.values:
        assert ref is not None
        other = _scaled(ref.detach(), want)
        log_q = other - other.logsumexp(-1, keepdim=True)
        out["kl"] = (log_q.exp() * (log_q - logp)).sum(-1)
    return {name: torch.where(mask, x, 0.0) for name, x in out.items()}


def chunked_values(
    z: Rows, answer: Int[Tensor, "n steps"], mask: Bool[Tensor, "n steps"], want: Want, ref: Rows | None = None
) -> dict[str, Steps]:
    """The same numbers and gradients as `plain_values`, from the steps of `mask` alone and a chunk of rows at a time: in
    float32 there is never more than a chunk of logits, and the gradient has the logits' own type."""
    rows = mask.flatten().nonzero()[:, 0]
    names = ["logp", *sorted(want.values)]
    columns = _Chunked.apply(z, None if ref is None else ref.detach(), answer.flatten()[rows], rows, want, names)
    out = {}
    for name, x in zip(names, columns, strict=True):  # type: ignore[arg-type]
        out[name] = torch.zeros(mask.numel(), device=z.device, dtype=x.dtype).index_put((rows,), x).view(mask.shape)
    return out


class _Chunked(torch.autograd.Function):
    """With p = softmax(z), q = softmax(z_ref) and the slopes g of what follows:

    ∂ log p_y = 1_y − p,    ∂ H(p) = −p (log p + H),    ∂ KL(q ‖ p) = p − q
    ∂z = g_logp 1_y + p (g_kl − g_logp − g_H (log p + H)) − g_kl q
    """

    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, z: Tensor, ref: Tensor | None, answer: Tensor, rows: Tensor, want: Want, names: list[str]
    ) -> tuple[Tensor, ...]:
        flat, other = _flat(z), None if ref is None else _flat(ref)
        made = [torch.empty(len(rows), device=z.device, dtype=_wide(z)) for _ in (*names, "norm", "norm of ref")]
        out = dict(zip((*names, "norm", "norm of ref"), made, strict=True))
        for part in _parts(rows, z.shape[-1]):
            x = _scaled(flat[rows[part]], want)
            out["norm"][part] = norm = x.logsumexp(-1)
            out["logp"][part] = x.gather(-1, answer[part, None])[:, 0] - norm
            x.sub_(norm[:, None])
            if "kl" in out:
                assert other is not None
                y = _scaled(other[rows[part]], want)
                out["norm of ref"][part] = norm = y.logsumexp(-1)
                y.sub_(norm[:, None])
                out["kl"][part] = (y.exp() * y.sub_(x)).sum(-1)
            if "entropy" in out:
                out["entropy"][part] = -(x.exp() * x).sum(-1)
        ctx.save_for_backward(z, ref, answer, rows, out["norm"], out["norm of ref"], out.get("entropy"))
        ctx.want, ctx.names = want, names
        return tuple(out[name] for name in names)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore
        z, ref, answer, rows, norm, norm_ref, entropy = ctx.saved_tensors
        slope = dict(zip(ctx.names, slopes, strict=True))
        grad = torch.zeros_like(z, memory_format=torch.contiguous_format)
        flat, other, into = _flat(z), None if ref is None else _flat(ref), _flat(grad)
        for part in _parts(rows, z.shape[-1]):
            x = _scaled(flat[rows[part]], ctx.want).sub_(norm[part, None])
            factor = -slope["logp"][part, None]
            if "kl" in slope:
                factor = factor + slope["kl"][part, None]
            if "entropy" in slope:
                x = x.exp() * (factor - slope["entropy"][part, None] * (x + entropy[part, None]))
            else:
                x.exp_().mul_(factor)
            if other is not None and "kl" in slope:
                q = _scaled(other[rows[part]], ctx.want).sub_(norm_ref[part, None]).exp_()
                x.sub_(q.mul_(slope["kl"][part, None]))
            x.scatter_add_(-1, answer[part, None], slope["logp"][part, None])
            if ctx.want.temperature != 1:
                x.div_(ctx.want.temperature)
            into[rows[part]] = x.to(grad.dtype)
        return grad, None, None, None, None, None


def _wide(z: Tensor) -> torch.dtype:
    """float32, or float64 where the logits are."""
    return torch.promote_types(z.dtype, torch.float32)


def _scaled(z: Tensor, want: Want) -> Tensor:
    """z / temperature in float32."""
    z = z.to(_wide(z))
    return z if want.temperature == 1 else z / want.temperature


def _flat(z: Tensor) -> Tensor:
    return z.reshape(-1, z.shape[-1])


def _parts(rows: Tensor, vocabulary: int) -> list[slice]:
    """Slices of the rows, of at most CHUNK logits each."""
    size = max(1, CHUNK // vocabulary)
    return [slice(i, i + size) for i in range(0, len(rows), size)]

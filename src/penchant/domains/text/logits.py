"""What logits say of a response, step by step: log π, and the values an objective may want with gradient. It is written
twice, plainly and in chunks of rows that are computed anew in the backward pass, from logits or from the hidden states they
are made of; no model is known here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from penchant.domains.base import Sparse, Want
from penchant.domains.text.extras import ADVANTAGE, SECOND, WHOLE, picked, top

CHUNK = 2**20
"""Logits in a chunk: 4 MiB as float32, so that what is done to them finds them in a core's cache."""
PRODUCT = 2**23
"""Logits in a chunk that is a product of hidden states and head: 32 MiB, so that the product has rows enough to be fast."""

Grid = Float[Tensor, "n steps vocabulary"]
Steps = Float[Tensor, "n steps"]


@dataclass(frozen=True, eq=False)
class Head:
    """How hidden states become logits: z = cap · tanh(s / cap) with s = scale · (W h + b), or s itself without a cap."""

    weight: Float[Tensor, "vocabulary size"]
    bias: Float[Tensor, "vocabulary"] | None = None
    scale: float = 1.0
    cap: float | None = None


@dataclass(frozen=True, eq=False)
class Rows:
    """What predicts the steps: hidden states with the head to be put on them, or logits, where there is no head."""

    states: Float[Tensor, "rows size"]
    index: Int[Tensor, "answers"]
    """The row that predicts each step; no row twice."""
    head: Head | None = None


def plain_values(
    z: Grid,
    answer: Int[Tensor, "n steps"],
    mask: Bool[Tensor, "n steps"],
    want: Want,
    ref: Grid | None = None,
    advantages: Sparse | None = None,
) -> dict[str, Steps]:
    """log π(answer) = z[answer] − logsumexp(z) in float32, which errs ten times less than log_softmax, and every wanted
    value. `ref`: the reference's logits, where a value reads them. `advantages`: a teacher's, of all steps of `mask` one after
    the other. The slow path that `chunked_values` is held against."""
    z = _scaled(z, want)
    norm = z.logsumexp(-1)
    logp = z - norm[..., None]
    out = {"logp": z.gather(-1, answer[..., None])[..., 0] - norm}
    if "entropy" in want.values:
        out["entropy"] = -(logp.exp() * logp).sum(-1)
    if want.values & SECOND:
        assert ref is not None
        other = _scaled(ref.detach(), want)
        log_q = other - other.logsumexp(-1, keepdim=True)
        out["kl"] = (log_q.exp() * (log_q - logp)).sum(-1)
        out["ref"] = log_q.gather(-1, answer[..., None])[..., 0]
    some = {}
    for name in want.values - WHOLE:
        logs = logp[mask]
        some[name] = picked(name, logs.gather(-1, _ids(name, logs, advantages)), advantages)
    whole = {name: torch.where(mask, x, 0.0) for name, x in out.items() if name in {"logp", *want.values}}
    return whole | placed(some, mask)


def chunked_values(
    z: Grid,
    answer: Int[Tensor, "n steps"],
    mask: Bool[Tensor, "n steps"],
    want: Want,
    ref: Grid | None = None,
    advantages: Sparse | None = None,
) -> dict[str, Steps]:
    """The same numbers and gradients as `plain_values`, from the steps of `mask` alone and a chunk of rows at a time: in
    float32 there is never more than a chunk of logits, and the gradient has the logits' own type."""
    index = mask.flatten().nonzero()[:, 0]
    other = None if ref is None else Rows(_flat(ref), index)
    return placed(row_values(Rows(_flat(z), index), answer.flatten()[index], want, other, advantages), mask)


def row_values(
    rows: Rows,
    answer: Int[Tensor, "answers"],
    want: Want,
    ref: Rows | None = None,
    advantages: Sparse | None = None,
) -> dict[str, Float[Tensor, "answers"]]:
    """The same for steps one after the other. From hidden states there are never more logits than a chunk in any type, and
    the head's gradient is summed in float32. Under autocast the products, not the sums, are in its type."""
    device, head = rows.states.device.type, rows.head
    own = rows.states.dtype if head is None else head.weight.dtype
    product = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else own
    names = ("logp", *sorted(want.values))
    work = _Work(want, names, product, head, ref, advantages)
    weight, bias = (None, None) if head is None else (head.weight, head.bias)
    columns: Any = _Chunked.apply(rows.states, weight, bias, rows.index, answer, work)
    return dict(zip(names, columns, strict=True))


def placed(columns: dict[str, Float[Tensor, "answers"]], mask: Bool[Tensor, "n steps"]) -> dict[str, Steps]:
    """Values of steps one after the other to [n, steps], exactly 0 where there is no step."""
    index = mask.nonzero(as_tuple=True)  # no view is given out: FSDP hangs its backward pass on what a forward returns
    zeros = {name: torch.zeros(mask.shape, device=mask.device, dtype=x.dtype) for name, x in columns.items()}
    return {name: zeros[name].index_put(index, x) for name, x in columns.items()}


@dataclass(frozen=True, eq=False)
class _Work:
    """What is to be computed, besides the tensors that have gradients."""

    want: Want
    names: tuple[str, ...]
    product: torch.dtype
    """The type of the products with the head."""
    head: Head | None
    ref: Rows | None
    advantages: Sparse | None

    @property
    def picks(self) -> list[str]:
        """The wanted values that are functions of a few answers' log-probs."""
        return [name for name in self.names if name in self.want.values - WHOLE]

    def parts(self, rows: int, vocabulary: int) -> list[slice]:
        """Slices of the rows, of at most a chunk of logits each."""
        size = max(1, (CHUNK if self.head is None else PRODUCT) // vocabulary)
        return [slice(i, i + size) for i in range(0, rows, size)]


class _Chunked(torch.autograd.Function):
    """With p = softmax(x), q = softmax(x_ref) and the slopes g of what follows:

    ∂ log p_y = 1_y − p,    ∂ H(p) = −p (log p + H),    ∂ KL(q ‖ p) = p − q
    ∂ F(log p_a, a in T) = Σ_a s_a (1_a − p),    s_a = ∂F / ∂ log p_a
    ∂x = g_logp 1_y + Σ_a g_F s_a 1_a + p (g_kl − g_logp − g_F Σ_a s_a − g_H (log p + H)) − g_kl q

    and through x = z / temperature, z = cap · tanh(s / cap), s = scale · (W h + b) to h, W and b. Where the head is frozen and
    log π all that is wanted, ∂ log p_y / ∂h is a row for each step, made forwards: the logits are not made again backwards.
    """

    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, states: Tensor, weight: Tensor | None, bias: Tensor | None, index: Tensor, answer: Tensor, work: _Work
    ) -> tuple[Tensor, ...]:
        wide = torch.promote_types(states.dtype if weight is None else work.product, torch.float32)
        made = [torch.empty(len(index), device=states.device, dtype=wide) for _ in (*work.names, "norm", "norm of ref")]
        out = dict(zip((*work.names, "norm", "norm of ref"), made, strict=True))
        ids: dict[str, list[Tensor]] = {name: [] for name in work.picks}
        logits, other = _Logits(states, work.head, work), _Logits.of(work.ref, work)
        frozen = ctx.needs_input_grad[:3] == (True, False, False) and work.head is not None
        ctx.pulls = torch.empty_like(states[index]) if frozen and work.names == ("logp",) else None
        for part in work.parts(len(index), logits.size):
            x = logits(index[part])
            bend = logits.slope(x) if ctx.pulls is not None else 1.0
            out["norm"][part] = norm = x.logsumexp(-1)
            out["logp"][part] = x.gather(-1, answer[part, None])[:, 0] - norm
            x.sub_(norm[:, None])
            if not SECOND.isdisjoint(out):
                assert other is not None and work.ref is not None
                y = other(work.ref.index[part])
                out["norm of ref"][part] = norm = y.logsumexp(-1)
                y.sub_(norm[:, None])
                if "ref" in out:
                    out["ref"][part] = y.gather(-1, answer[part, None])[:, 0]
                if "kl" in out:
                    out["kl"][part] = (y.exp() * y.sub_(x)).sum(-1)
            if "entropy" in out:
                out["entropy"][part] = -(x.exp() * x).sum(-1)
            found: dict[int | None, Tensor] = {}  # which are the most probable is found once for all values of so many
            for name in work.picks:
                k = top(name)
                if k not in found:
                    found[k] = _ids(name, x, _part(work.advantages, part))
                out[name][part] = picked(name, x.gather(-1, found[k]), _part(work.advantages, part))
                ids[name].append(found[k])
            if ctx.pulls is not None:
                x.exp_().neg_().scatter_add_(-1, answer[part, None], torch.ones_like(x[:, :1]))
                ctx.pulls[part] = logits.back(x.mul_(bend), index[part], None, None).to(states.dtype)
        kept = [torch.cat(ids[name]) if ids[name] else index[:0, None] for name in work.picks]
        ctx.save_for_backward(
            states, weight, bias, index, answer, out["norm"], out["norm of ref"], out.get("entropy"), *kept
        )
        ctx.work = work
        if "ref" in out:
            ctx.mark_non_differentiable(out["ref"])
        return tuple(out[name] for name in work.names)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore
        states, weight, bias, index, answer, norm, norm_ref, entropy, *kept = ctx.saved_tensors
        work: _Work = ctx.work
        slope = dict(zip(work.names, slopes, strict=True))
        grad = torch.zeros_like(states, memory_format=torch.contiguous_format)
        if ctx.pulls is not None:
            grad[index] = (slope["logp"][:, None] * ctx.pulls).to(grad.dtype)
            return grad, None, None, None, None, None
        logits, other = _Logits(states, work.head, work), _Logits.of(work.ref, work)
        of_weight, of_bias = (
            _sums(x) if need else None for x, need in zip((weight, bias), ctx.needs_input_grad[1:3], strict=True)
        )
        for part in work.parts(len(index), logits.size):
            x = logits(index[part])
            bend = logits.slope(x)
            x.sub_(norm[part, None])
            factor = -slope["logp"][part, None]
            pulls: list[tuple[Tensor, Tensor]] = []
            for name, ids in zip(work.picks, kept, strict=True):
                pull = _pull(name, x.gather(-1, ids[part]), slope[name][part], _part(work.advantages, part))
                factor = factor - pull.sum(-1, keepdim=True)
                pulls.append((ids[part], pull))
            if "kl" in slope:
                factor = factor + slope["kl"][part, None]
            if "entropy" in slope:
                x = x.exp() * (factor - slope["entropy"][part, None] * (x + entropy[part, None]))
            else:
                x.exp_().mul_(factor)
            if "kl" in slope:
                assert other is not None and work.ref is not None
                q = other(work.ref.index[part]).sub_(norm_ref[part, None]).exp_()
                x.sub_(q.mul_(slope["kl"][part, None]))
            x.scatter_add_(-1, answer[part, None], slope["logp"][part, None])
            for at, pull in pulls:
                x.scatter_add_(-1, at, pull)
            if not (isinstance(bend, float) and bend == 1):
                x.mul_(bend)
            grad[index[part]] = logits.back(x, index[part], of_weight, of_bias).to(grad.dtype)
        of_weight, of_bias = (None if g is None else g.to(x.dtype) for g, x in ((of_weight, weight), (of_bias, bias)))
        return grad, of_weight, of_bias, None, None, None


class _Logits:
    """Some rows' logits over the temperature, in float32 or wider, and what their gradient is before head and caps."""

    def __init__(self, states: Tensor, head: Head | None, work: _Work) -> None:
        self.states, self.head, self.temperature, self.product = states.detach(), head, work.want.temperature, work.product
        # Cast once; autocast is off below, for it would cast again for every chunk.
        self.weight = None if head is None else head.weight.detach().to(work.product)
        self.bias = None if head is None or head.bias is None else head.bias.detach().to(work.product)
        self.size = states.shape[-1] if head is None else len(head.weight)

    @classmethod
    def of(cls, rows: Rows | None, work: _Work) -> _Logits | None:
        return None if rows is None else cls(rows.states, rows.head, work)

    def __call__(self, index: Tensor) -> Tensor:
        z = self.states[index]
        if self.weight is not None:
            with torch.autocast(z.device.type, enabled=False):
                z = torch.nn.functional.linear(z.to(self.product), self.weight, self.bias)
        z = z.to(torch.promote_types(z.dtype, torch.float32))
        if self.head is not None and self.head.scale != 1:
            z.mul_(self.head.scale)
        if self.head is not None and self.head.cap is not None:
            z.div_(self.head.cap).tanh_().mul_(self.head.cap)
        return z if self.temperature == 1 else z.div_(self.temperature)

    def slope(self, x: Tensor) -> Tensor | float:
        """∂x/∂(W h + b), from x as it was called."""
        plain = (1.0 if self.head is None else self.head.scale) / self.temperature
        if self.head is None or self.head.cap is None:
            return plain
        return (x * (self.temperature / self.head.cap)).square_().neg_().add_(1).mul_(plain)

    def back(self, dz: Tensor, index: Tensor, of_weight: Tensor | None, of_bias: Tensor | None) -> Tensor:
        """The states' gradient; the head's is added to what there is."""
        if self.weight is None:
            return dz
        if of_bias is not None:
            of_bias += dz.sum(0)
        dz = dz.to(self.product)
        if of_weight is not None:
            h = self.states[index].to(self.product)
            if of_weight.dtype == dz.dtype:
                of_weight.addmm_(dz.t(), h)
            else:
                of_weight += dz.t() @ h
        return dz @ self.weight


def _ids(value: str, logs: Tensor, advantages: Sparse | None) -> Tensor:
    """The answers whose log-probs a value reads, of each row of log-probs."""
    k = top(value)
    if k is not None:
        return logs.topk(min(k, logs.shape[-1]), sorted=False).indices
    assert value == ADVANTAGE and advantages is not None
    return advantages.ids


def _pull(value: str, logs: Tensor, slope: Tensor, advantages: Sparse | None) -> Tensor:
    """slope · ∂value / ∂ log p_a for the few answers that a value reads."""
    with torch.enable_grad():
        logs = logs.requires_grad_()
        return torch.autograd.grad(picked(value, logs, advantages), logs, slope)[0]


def _part(advantages: Sparse | None, part: slice) -> Sparse | None:
    return None if advantages is None else Sparse(advantages.ids[part], advantages.values[part], advantages.rest[part])


def _sums(x: Tensor) -> Tensor:
    """Zeros of a parameter's shape in float32 or wider."""
    return torch.zeros(x.shape, device=x.device, dtype=torch.promote_types(x.dtype, torch.float32))


def _scaled(z: Tensor, want: Want) -> Tensor:
    """z / temperature in float32."""
    z = z.to(torch.promote_types(z.dtype, torch.float32))
    return z if want.temperature == 1 else z / want.temperature


def _flat(z: Tensor) -> Tensor:
    return z.reshape(-1, z.shape[-1])

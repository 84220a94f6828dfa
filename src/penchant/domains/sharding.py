"""A policy whose parameters are split over processes (FSDP2): split layer by layer, made whole where a file or a sampler needs
them, split again where a file is read. Which processes there are, and when they wait for each other, is the engine's business."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager

from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers.modeling_layers import GradientCheckpointingLayer

from penchant.errors import Refusal


def shard(policy: nn.Module, mesh: DeviceMesh) -> None:
    """Splits every parameter over the processes of the mesh, in place. A layer is whole only while it computes; so are, while
    the policy's forward and backward run, the embedding and the head, which lie outside of all layers: a head that is read
    beside its own module's forward is read whole, and its gradient comes back to the shards. Outside of forward and backward
    a parameter is a shard, for the optimiser and for whoever looks. Raises Refusal."""
    layers = list(_outermost(policy))
    if not layers:
        raise Refusal(f"a {type(policy).__name__} without layers of its own cannot be split over processes; use DDP.")
    split = [fully_shard(module, mesh=mesh, reshard_after_forward=True) for module in (*layers, policy)]
    # What is fetched ahead in the backward pass is said here, or FSDP goes by the calls since the last one: processes that have
    # sampled apart would fetch apart, and wait for each other for ever.
    for module, ahead in zip(split, (split[-1], *split[:-1]), strict=True):
        module.set_modules_to_backward_prefetch([ahead])


def _outermost(module: nn.Module) -> Iterator[nn.Module]:
    """The repeated layers of a `transformers` model."""
    for child in module.children():
        if isinstance(child, GradientCheckpointingLayer):
            yield child
        else:
            yield from _outermost(child)


def opened(policy: nn.Module) -> AbstractContextManager[None]:
    """In here parts of the policy can be called by themselves: embedding and head are whole, layers see to themselves. All
    processes must go through the same calls."""
    return _kept_whole([policy] if isinstance(policy, FSDPModule) else [])


def gathered(policy: nn.Module) -> AbstractContextManager[None]:
    """In here the policy is whole on every process, and each may call it as often as it likes. All processes enter and leave
    together; the device holds all parameters meanwhile."""
    return _kept_whole([part for part in policy.modules() if isinstance(part, FSDPModule)])


@contextmanager
def _kept_whole(parts: Sequence[FSDPModule]) -> Iterator[None]:
    """The parameters that lie in these modules themselves, fetched once."""
    for part in parts:
        part.unshard()
        part.set_reshard_after_forward(False, recurse=False)
    try:
        yield
    finally:
        for part in parts:
            part.set_reshard_after_forward(True, recurse=False)
            part.reshard()


def whole(x: Tensor) -> Tensor:
    """The tensor with all of its shards. All processes must ask."""
    return x.full_tensor() if isinstance(x, DTensor) else x


def collected(tensors: Mapping[str, Tensor], keep: bool) -> dict[str, Tensor]:
    """Whole tensors in main memory, made one after the other, so that a device never holds two; kept only by a process that
    is to write them. One tensor under two names stays one. All processes must ask."""
    made: dict[int, Tensor] = {}
    for x in tensors.values():
        if id(x) not in made:
            full = whole(x.detach())
            made[id(x)] = full.cpu() if keep else x
    return {name: made[id(x)] for name, x in tensors.items()} if keep else {}


def placed_like(x: Tensor, like: Tensor) -> Tensor:
    """A whole tensor, the same on every process, as `like` lies: its shard of it, or all of it. Nothing is sent."""
    x = x.to(like.device)
    if isinstance(like, DTensor) and x.shape == like.shape:
        return distribute_tensor(x, like.device_mesh, like.placements, src_data_rank=None)
    return x

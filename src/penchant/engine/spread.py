"""How a policy is laid over the processes of a run: as a copy on each (DDP) or split over them (FSDP2), as `accelerate launch`
was told. It decides nothing by itself and computes nothing."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any, Protocol

import torch
from accelerate import Accelerator, FullyShardedDataParallelPlugin, InitProcessGroupKwargs
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy

from penchant.errors import Refusal

REFUSED = {
    "ACCELERATE_USE_DEEPSPEED": "DeepSpeed decides by itself when gradients are summed, and penchant counts the units of a "
    "whole step before; both together would scale gradients wrongly",
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM builds models of its own, which penchant cannot score",
    "ACCELERATE_USE_PARALLELISM_CONFIG": "tensor, context and pipeline parallelism are not carried out by penchant",
}
"""What `accelerate launch` can ask for and penchant does not do, with the reason."""


class Splits(Protocol):
    """What can be laid over processes."""

    def to(self, device: torch.device) -> Any: ...

    def shard(self, mesh: DeviceMesh) -> None: ...


class Spread:
    """The processes of this run, and how a policy lies on them."""

    def __init__(self, timeout: float, trackers: list[Any], folder: str) -> None:
        """timeout: seconds that a process waits for another. Joins the processes that were launched. Raises Refusal."""
        for name, why in REFUSED.items():
            if _asked(name):
                raise Refusal(f"{why}. Launch with DDP or FSDP2: `accelerate launch --use_fsdp --fsdp_version 2 …`.")
        launched = int(os.environ.get("WORLD_SIZE", "1"))
        waits: list[Any] = [InitProcessGroupKwargs(timeout=timedelta(seconds=timeout))] if launched > 1 else []
        # The number format is penchant's own choice, and so is the accumulation of gradients.
        self.accelerator = Accelerator(
            mixed_precision="no", log_with=trackers or None, project_dir=folder, kwargs_handlers=waits or None
        )
        if launched != self.accelerator.num_processes:
            raise Refusal(
                f"{launched} processes were launched, but each would run alone and write into the same folder. Launch them "
                "with `accelerate launch`, on machines without an accelerator with `ACCELERATE_USE_CPU=true torchrun`."
            )
        self.mesh: DeviceMesh | None = None
        # accelerate itself turns FSDP into DDP on machines without an accelerator, and does not say so.
        if _asked("ACCELERATE_USE_FSDP"):
            _check_fsdp(FullyShardedDataParallelPlugin())
            if launched > 1:
                self.mesh = init_device_mesh(self.accelerator.device.type, (launched,))

    def __str__(self) -> str:
        world = self.accelerator.num_processes
        return "one process" if world == 1 else f"{world} processes, {'DDP' if self.mesh is None else 'FSDP2'}"

    def place(self, policy: Splits) -> None:
        """Puts a policy on its device: whole, or this process's shards of it."""
        if self.mesh is None:
            policy.to(self.accelerator.device)
        else:
            policy.shard(self.mesh)

    def wrap(self, policy: nn.Module) -> nn.Module:
        """What a step calls: it sums gradients over processes."""
        return policy if self.mesh is not None or self.accelerator.num_processes == 1 else self.accelerator.prepare(policy)


def _check_fsdp(plugin: FullyShardedDataParallelPlugin) -> None:
    """Refuses what FSDP could be asked for but would not get here."""
    wrong = {
        "fsdp_version: 1": plugin.fsdp_version != 2,
        "fsdp_reshard_after_forward: false": plugin.fsdp_version == 2 and plugin.reshard_after_forward is False,
        "fsdp_offload_params: true": isinstance(plugin.cpu_offload, CPUOffloadPolicy),
        "fsdp_activation_checkpointing: true": bool(plugin.activation_checkpointing),
    }
    mends = {
        "fsdp_version: 1": "only version 2 is run: set fsdp_version: 2",
        "fsdp_reshard_after_forward: false": "layers are always split again: leave it out",
        "fsdp_offload_params: true": "parameters stay on their device: leave it out",
        "fsdp_activation_checkpointing: true": "the model's activations are penchant's own business: leave it out",
    }
    for said, is_so in wrong.items():
        if is_so:
            raise Refusal(f"accelerate was told {said}, but {mends[said]}.")


def _asked(name: str) -> bool:
    return os.environ.get(name, "false").lower() in ("true", "1", "yes")

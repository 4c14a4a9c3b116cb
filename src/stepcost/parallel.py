"""How several GPUs share a step: torch's own wrappers around the step of one, measured or traced alike."""

from __future__ import annotations

import inspect
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.optim import ZeroRedundancyOptimizer
from torch.nn.parallel import DistributedDataParallel

from stepcost.catalog.precisions import PRECISIONS
from stepcost.prepare import blocks_of
from stepcost.request import FSDP2, Request
from stepcost.step import TrainingStep


def first_collectives(request: Request) -> None:
    """Do each collective that a strategy takes once, of one element, in the group that was joined."""
    one = torch.zeros(1, device=request.device)
    every = torch.zeros(request.gpus, device=request.device)
    dist.all_reduce(one)
    dist.broadcast(one, 0)
    dist.all_gather_into_tensor(every, one)
    dist.reduce_scatter_tensor(one, every)


def shard(request: Request, model: nn.Module) -> nn.Module:
    """Put a model on the device of this rank: under FSDP2 its part of each block, then of the rest.

    The blocks move one by one: no GPU ever holds the whole model.
    """
    if request.parallel != FSDP2:
        return model.to(request.device)
    options: dict[str, Any] = {}
    if request.fsdp_precision is not None:
        dtype = getattr(torch, str(PRECISIONS[request.fsdp_precision].autocast))
        options["mp_policy"] = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32)
    if request.fsdp_keep_gathered:
        options["reshard_after_forward"] = False
    mesh = init_device_mesh(torch.device(request.device).type, (request.gpus,))
    for block in reversed(blocks_of(model)):  # of blocks within blocks the inner one first
        fully_shard(block, mesh=mesh, **options)
    fully_shard(model, mesh=mesh, **options)
    return model


def share(request: Request, step: TrainingStep) -> TrainingStep:
    """Return a step that was built for one GPU as the request's GPUs share it."""
    if request.parallel == FSDP2:
        return step
    if request.parallel == "zero1":
        usual = step.optimizer
        takes = inspect.signature(type(usual)).parameters
        options = {name: value for name, value in usual.defaults.items() if name in takes}
        step.optimizer = ZeroRedundancyOptimizer(
            step.model.parameters(), optimizer_class=type(usual), **options
        )
    index = torch.device(request.device).index
    step.forward = DistributedDataParallel(step.model, device_ids=None if index is None else [index])
    return step


def bucket_bytes(step: TrainingStep) -> int | None:
    """Bytes of the buckets that DDP has made, as it says; ``None`` where there is no DDP."""
    if not isinstance(step.forward, DistributedDataParallel):
        return None
    said: dict[str, Any] = step.forward._get_ddp_logging_data()
    sizes = said.get("rebuilt_bucket_sizes") or said["bucket_sizes"]
    return sum(int(size) for size in str(sizes).split(","))

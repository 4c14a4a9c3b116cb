"""One of several GPUs that share a training step, held by a child process of its own."""

from __future__ import annotations

import inspect
from dataclasses import replace
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.optim import ZeroRedundancyOptimizer
from torch.nn.parallel import DistributedDataParallel

from stepcost.allocator.history import HistoryUnavailable
from stepcost.ledger import PARALLEL
from stepcost.measuring.child import enter_phase
from stepcost.measuring.configuration import Configuration
from stepcost.measuring.losses import Losses
from stepcost.measuring.recording import Recorder
from stepcost.prepare import blocks_of
from stepcost.reading import Rank as RankReading
from stepcost.reading import Reading
from stepcost.request import Request
from stepcost.step import TrainingStep, map_tensors
from stepcost.tensors import count_step
from stepcost.workload import Workload

COMMUNICATOR = "communicator"
"""The moment at which NCCL has joined the GPUs."""


def device_of(request: Request, rank: int) -> str:
    """Return the device of a rank: the request's and those after it. Raises ``ValueError`` where it lacks."""
    if not request.device.startswith("cuda"):
        return request.device
    index = int(request.device.partition(":")[2] or 0) + rank
    here = torch.cuda.device_count()
    if index >= here:
        raise ValueError(f"--gpus {request.gpus}: there is no cuda:{index}, this machine has {here}")
    return f"cuda:{index}"


def join(request: Request, rank: int, meeting: str) -> None:
    """Join the other ranks through the file ``meeting``, by NCCL on GPUs and gloo on the CPU.

    Each collective that a strategy takes is done once, of one element, so that what NCCL sets up for it is
    there.
    """
    enter_phase("join the other ranks")
    on_gpu = request.device.startswith("cuda")
    if on_gpu:
        torch.cuda.set_device(request.device)
    else:  # the ranks share the processor
        torch.set_num_threads(max(1, torch.get_num_threads() // request.gpus))
    store = dist.FileStore(meeting, request.gpus)  # type: ignore[attr-defined]  # public, but not in __all__
    backend = "nccl" if on_gpu else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=request.gpus)
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
    if request.parallel != "fsdp2":
        return model.to(request.device)
    mesh = init_device_mesh(torch.device(request.device).type, (request.gpus,))
    for block in reversed(blocks_of(model)):  # of blocks within blocks the inner one first
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)
    return model


def share(request: Request, step: TrainingStep) -> TrainingStep:
    """Return a step that was built for one GPU as the request's GPUs share it."""
    if request.parallel == "fsdp2":
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


class Rank(Configuration):
    """A configuration that shares its step with those of the other ranks."""

    def __init__(self, request: Request, rank: int, meeting: str) -> None:
        """Build the configuration on the device of ``rank``, and join the others through a file."""
        self._rank, self._meeting = rank, meeting
        self._steps = 0
        super().__init__(replace(request, device=device_of(request, rank)))

    def _join(self) -> None:
        join(self.request, self._rank, self._meeting)
        if self.on_gpu:
            self.moments.append(self._moment(COMMUNICATOR)[0])
        self._part("join")

    def _to_device(self, model: nn.Module) -> nn.Module:
        return shard(self.request, model)

    def _build_step(self, model: nn.Module, workload: Workload) -> TrainingStep:
        enter_phase("build the step")
        return share(self.request, super()._build_step(model, workload))

    def _work(self) -> None:
        if self._steps == 1 and self.on_gpu:
            self.note_buckets()
        self._steps += 1
        super()._work()

    def reading(self) -> Reading:
        """Read a steady step as ``Configuration.reading`` does; ``ranks`` is this one alone."""
        read = super().reading()
        held = {name: getattr(read, name) for name in RankReading.__dataclass_fields__ if hasattr(read, name)}
        one = RankReading(
            **held, bucket_bytes=self.bucket_bytes(), communicator_bytes=self._communicator_bytes()
        )
        return replace(read, ranks=(one,))

    def counted(self, steps: int) -> RankReading:
        """Take some steps and count the tensors that this rank then holds, which needs no GPU."""
        for _ in range(steps):
            self.step()
        found = count_step(self.training_step, self.batch)
        held = {name: found[name] for name in RankReading.__dataclass_fields__ if name in found}
        return RankReading(**held, bucket_bytes=self.bucket_bytes())

    def bucket_bytes(self) -> int | None:
        """Bytes of the buckets that DDP has made, as it says; ``None`` where there is no DDP."""
        if not isinstance(self.training_step.forward, DistributedDataParallel):
            return None
        said: dict[str, Any] = self.training_step.forward._get_ddp_logging_data()
        sizes = said.get("rebuilt_bucket_sizes") or said["bucket_sizes"]
        return sum(int(size) for size in str(sizes).split(","))

    def _communicator_bytes(self) -> int | None:
        before, after = (one.context_bytes for one in self.moments[:2])
        return None if before is None or after is None else after - before

    def note_buckets(self) -> None:
        """Note where the buckets of DDP are, for the ledger.

        After the first backward DDP makes them anew, in the order in which gradients came; the next forward
        would do it. Meanwhile it is recorded what stays allocated.
        """
        ddp = self.training_step.forward
        if not isinstance(ddp, DistributedDataParallel):
            return
        try:
            recorder = Recorder(torch.device(self.request.device))
            ddp.reducer._rebuild_buckets()
            self._synchronize()
            events = recorder.stop().events
        except (HistoryUnavailable, AttributeError) as error:
            self.unread["parallel_bytes"] = f"where DDP's buckets are cannot be recorded: {error}"
            return
        alive: dict[int, int] = {}
        for action, address, size in events:
            if action == "alloc":
                alive[address] = size
            elif action == "free":
                alive.pop(address, None)
        if sum(alive.values()) != self.bucket_bytes():
            self.unread["parallel_bytes"] = "DDP's buckets were not seen when they were made"
        else:
            self.training_step.known.update(dict.fromkeys(alive, PARALLEL))


class RankLosses(Losses):
    """A rank's share of a step in fp64: of the batch of all ranks, its own examples."""

    def __init__(self, request: Request, rank: int, meeting: str, mode: str) -> None:
        """Build the step on the device of ``rank``; ``mode`` as ``Losses`` takes it."""
        self._rank = rank
        request = replace(request, device=device_of(request, rank))
        join(request, rank, meeting)
        super().__init__(request, mode)

    def _place(self, model: nn.Module, request: Request) -> nn.Module:
        return shard(request, model)

    def _batch(self, workload: Workload, request: Request) -> Any:
        """Make the batch of all ranks, which the seed decides, and take this rank's part of each tensor."""
        whole = super()._batch(workload, replace(request, batch_size=request.batch_size * request.gpus))
        first, size = self._rank * request.batch_size, request.batch_size
        return map_tensors(lambda one: one[first : first + size], whole)

    def _step(self, request: Request, model: nn.Module, workload: Workload, rate: float) -> TrainingStep:
        return share(request, super()._step(request, model, workload, rate))

"""One of several GPUs that share a training step, held by a child process of its own."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from stepcost.allocator.history import HistoryUnavailable
from stepcost.ledger import PARALLEL
from stepcost.measuring.child import enter_phase
from stepcost.measuring.configuration import Configuration
from stepcost.measuring.losses import Losses
from stepcost.measuring.recording import Recorder
from stepcost.parallel import bucket_bytes, first_collectives, shard, share
from stepcost.reading import Rank as RankReading
from stepcost.reading import Reading, of_rank
from stepcost.request import Request
from stepcost.step import TrainingStep, map_tensors
from stepcost.tensors import count_step
from stepcost.workload import Workload

COMMUNICATOR = "communicator"
"""The moment at which NCCL has joined the GPUs."""
LETS_GO_S = 0.3
"""So long after a collective NCCL's own thread, which looks every 100 ms, holds nothing of it any more."""


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

    Each collective that a strategy takes is done once, so that what NCCL sets up for it is there.
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
    first_collectives(request)


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
        return of_rank(
            super().reading(),
            bucket_bytes=bucket_bytes(self.training_step),
            communicator_bytes=self._communicator_bytes(),
        )

    def counted(self, steps: int) -> RankReading:
        """Take some steps and count the tensors that this rank then holds, which needs no GPU."""
        for _ in range(steps):
            self.step()
        found = count_step(self.training_step, self.batch)
        held = {name: found[name] for name in RankReading.__dataclass_fields__ if name in found}
        return RankReading(**held, bucket_bytes=bucket_bytes(self.training_step))

    def _communicator_bytes(self) -> int | None:
        before, after = (one.context_bytes for one in self.moments[:2])
        return None if before is None or after is None else after - before

    def note_buckets(self) -> None:
        """Note where the buckets of DDP are, for the ledger.

        After the first backward DDP makes them anew, in the order in which gradients came; the next forward
        would do it. Before, NCCL has time to let go of the old ones, so that bytes repeat; meanwhile it is
        recorded what stays allocated.
        """
        ddp = self.training_step.forward
        if not isinstance(ddp, DistributedDataParallel):
            return
        self._synchronize()
        time.sleep(LETS_GO_S)
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
        if sum(alive.values()) != bucket_bytes(self.training_step):
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

"""The steps of several GPUs that share one, each traced in a group of processes that are not there.

Torch's own wrappers run, as in ``measuring/rank.py``, over a process group that sends nothing: its
collectives return at once, and leave tensors as they are.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from unittest import mock

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from torch.nn.parallel import distributed as ddp

from stepcost.ledger import PARALLEL
from stepcost.parallel import first_collectives, share
from stepcost.predicting.attention import ON_HOPPER, Attention
from stepcost.predicting.tape import ALLOC, FREE, Tape
from stepcost.predicting.trace import Alone, Trace, trace_run
from stepcost.request import Request
from stepcost.step import TrainingStep
from stepcost.workload import Workload


def trace_ranks(
    request: Request, *, workload: Workload | None = None, attention: Attention = ON_HOPPER
) -> list[Trace]:
    """Trace the step of each GPU, in the order of their ranks; ranks that are alike have one trace.

    Raises ``ValueError`` with one line as ``trace_run`` does, and for a strategy that is not traced.
    """
    if request.parallel == "fsdp2":
        raise ValueError("--parallel fsdp2 is measured, not predicted")
    if request.parallel == "ddp":  # replicas that do the same
        return [trace_rank(request, 0, workload=workload, attention=attention)] * request.gpus
    return [trace_rank(request, rank, workload=workload, attention=attention) for rank in range(request.gpus)]


def trace_rank(
    request: Request, rank: int, *, workload: Workload | None = None, attention: Attention = ON_HOPPER
) -> Trace:
    """Trace the step of one rank. Raises ``ValueError`` as ``trace_run`` does."""
    with group_of_nobody(rank, request.gpus):
        return trace_run(request, workload=workload, attention=attention, gpu=Replica(request))


@contextlib.contextmanager
def group_of_nobody(rank: int, ranks: int) -> Iterator[None]:
    """Be ``rank`` of a process group of ``ranks``, in which no other process is.

    What makes it is private in torch (tried with 2.11 and 2.15).
    Raises ``ValueError`` where this process is in a group already.
    """
    from torch.testing._internal.distributed.fake_pg import FakeStore  # noqa: PLC0415 (registers it)

    hook = sys.excepthook  # which the group makes to name its rank
    dist.init_process_group("fake", store=FakeStore(), rank=rank, world_size=ranks)
    try:
        yield
    finally:
        dist.destroy_process_group()
        sys.excepthook = hook


class Replica(Alone):
    """A GPU that holds the whole model and sums gradients with the others, by ``DistributedDataParallel``."""

    def __init__(self, request: Request) -> None:
        """Take the request that the GPUs share."""
        self._request = replace(request, device="meta")

    def join(self) -> None:
        """Do the first collectives, which take memory of two small tensors."""
        first_collectives(self._request)

    def share(self, step: TrainingStep) -> TrainingStep:
        """Wrap the step as a measured one is, with gradients that are summed by nobody."""
        # It reads back what the shapes of the others are.
        with mock.patch.object(ddp, "_verify_param_shape_across_processes"):
            step = share(self._request, step)
        if not isinstance(step.forward, DistributedDataParallel):
            raise TypeError(f"{type(step.forward)} is not a replica")
        step.forward.register_comm_hook(None, _summed)
        return step

    def after_first_step(self, step: TrainingStep, tape: Tape) -> None:
        """Make the buckets anew, in the order in which gradients came, as the next forward would."""
        before = len(tape.events)
        step.forward.reducer._rebuild_buckets()  # type: ignore[union-attr]
        made = {what for action, what, _ in tape.events[before:] if action == ALLOC}
        gone = {what for action, what, _ in tape.events[before:] if action == FREE}
        tape.kinds |= dict.fromkeys(made - gone, PARALLEL)


def _summed(_, bucket):  # type: ignore[no-untyped-def]  # DDP takes no annotations that are text
    """Return a bucket as it is: the sum with those of the others, in place."""
    future: Any = torch.futures.Future()
    future.set_result(bucket.buffer())
    return future

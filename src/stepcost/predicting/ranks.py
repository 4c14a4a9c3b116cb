"""The steps of several GPUs that share one, each traced in a group of processes that are not there.

Torch's own wrappers run, as in ``measuring/rank.py``, over a process group that sends nothing: its
collectives return at once, and leave tensors as they are.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any
from unittest import mock

import torch
import torch.distributed as dist

from stepcost.predicting.attention import ON_HOPPER, Attention
from stepcost.predicting.fsdp import Sharded
from stepcost.predicting.replicas import Replica
from stepcost.predicting.torch_versions import installed_torch, version_of
from stepcost.predicting.trace import Trace, trace_run
from stepcost.request import FSDP2, Request
from stepcost.workload import Workload

FIRST_TRACED = (2, 11)
"""The oldest torch whose process group of nobody takes meta tensors; 2.6 was seen not to."""


def trace_ranks(
    request: Request, *, workload: Workload | None = None, attention: Attention = ON_HOPPER
) -> list[Trace]:
    """Trace the step of each GPU, in the order of their ranks; ranks that are alike have one trace.

    Raises ``ValueError`` with one line as ``trace_run`` does, and where the installed torch is too old.
    """
    if version_of(installed_torch()) < FIRST_TRACED:
        raise ValueError(
            f"several GPUs are traced with torch {'.'.join(map(str, FIRST_TRACED))} or newer; "
            f"{installed_torch()} is installed"
        )
    if request.parallel == FSDP2:
        return _of_parts(request, workload=workload, attention=attention)
    gpu = Replica(request)
    with group_of_nobody(request.gpus):
        trace_run(request, workload=workload, attention=attention, gpu=gpu)
    return gpu.traces


def _of_parts(request: Request, **how: Any) -> list[Trace]:
    """Trace one of the ranks that hold as much of the model each."""
    found: dict[Any, Trace] = {}
    gpu = Sharded(request)
    for rank in range(request.gpus):
        if gpu.alike and gpu.alike[rank] in found:
            continue
        with group_of_nobody(request.gpus, rank):
            traced = trace_run(request, gpu=gpu, **how)
        found[gpu.alike[rank]] = traced
    return [found[one] for one in gpu.alike]


@contextlib.contextmanager
def group_of_nobody(ranks: int, rank: int = 0) -> Iterator[None]:
    """Be ``rank`` of a process group of ``ranks``, in which no other process is.

    What makes it is private in torch (tried with 2.11 and 2.15).
    Raises ``ValueError`` where this process is in a group already.
    """
    from torch.testing._internal.distributed.fake_pg import FakeStore  # noqa: PLC0415 (registers it)

    hook = sys.excepthook  # which the group makes to name its rank
    dist.init_process_group("fake", store=FakeStore(), rank=rank, world_size=ranks)
    try:
        logger: Any = torch._C._distributed_c10d.Logger
        # DDP's times would be of no device that it knows, as a warning would say.
        with mock.patch.object(logger, "set_runtime_stats_and_log"):
            yield
    finally:
        dist.destroy_process_group()
        sys.excepthook = hook

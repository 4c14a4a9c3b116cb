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
from stepcost.predicting.replicas import Replica
from stepcost.predicting.trace import Trace, trace_run
from stepcost.request import Request, why_not_predicted
from stepcost.workload import Workload


def trace_ranks(
    request: Request, *, workload: Workload | None = None, attention: Attention = ON_HOPPER
) -> list[Trace]:
    """Trace the step of each GPU, in the order of their ranks; ranks that are alike have one trace.

    Raises ``ValueError`` with one line as ``trace_run`` does, and for a strategy that is not traced.
    """
    if why_not := why_not_predicted(request):
        raise ValueError(why_not)
    gpu = Replica(request)
    with group_of_nobody(request.gpus):
        trace_run(request, workload=workload, attention=attention, gpu=gpu)
    return gpu.traces


@contextlib.contextmanager
def group_of_nobody(ranks: int) -> Iterator[None]:
    """Be the first of a process group of ``ranks``, in which no other process is.

    What makes it is private in torch (tried with 2.11 and 2.15).
    Raises ``ValueError`` where this process is in a group already.
    """
    from torch.testing._internal.distributed.fake_pg import FakeStore  # noqa: PLC0415 (registers it)

    hook = sys.excepthook  # which the group makes to name its rank
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=ranks)
    try:
        logger: Any = torch._C._distributed_c10d.Logger
        # DDP's times would be of no device that it knows, as a warning would say.
        with mock.patch.object(logger, "set_runtime_stats_and_log"):
            yield
    finally:
        dist.destroy_process_group()
        sys.excepthook = hook

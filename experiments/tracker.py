"""What torch's own MemTracker says of a step, beside which predictions are held."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from unittest import mock

from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed._tools.fsdp2_mem_tracker import FSDPMemTracker
from torch.distributed._tools.mem_tracker import MemTracker
from torch.distributed.device_mesh import init_device_mesh

from stepcost import parallel
from stepcost.catalog.optimizers import build_optimizer
from stepcost.predicting.ranks import group_of_nobody
from stepcost.prepare import batch_of, prepare, step_of
from stepcost.request import ALONE, FSDP2, Request
from stepcost.step import tensors_in
from stepcost.workload import workload_of


def tracked_peak_bytes(request: Request) -> int | None:
    """Peak bytes of one steady step by torch's MemTracker on fake CPU tensors (private; tried with 2.11).

    Under FSDP2 it is that of the first rank, by its FSDPMemTracker. ``None`` for a step that reads values,
    which fake tensors do not have, and for other ways to share one.
    """
    if request.parallel not in (ALONE, FSDP2):
        return None
    in_parts = request.parallel == FSDP2
    with contextlib.ExitStack() as stack:
        if in_parts:  # the numbers of the ranks are read, which fake ones are not
            stack.enter_context(group_of_nobody(request.gpus))
            mesh = init_device_mesh("cpu", (request.gpus,))
            stack.enter_context(mock.patch.object(parallel, "init_device_mesh", return_value=mesh))
        stack.enter_context(FakeTensorMode())
        try:
            workload = workload_of(request)
            model = prepare(workload.build(), request).train()
            if in_parts:
                parallel.shard(replace(request, device="cpu"), model)
            step = step_of(request, model, workload, build_optimizer(request.optimizer, model))
            batch = batch_of(workload, request, "cpu")
            tracker: MemTracker
            if in_parts:
                of_parts = tracker = FSDPMemTracker(model, step.optimizer)
                of_parts.track_inputs(tuple(tensors_in(batch)))
            else:
                tracker = MemTracker()
                tracker.track_external(model, step.optimizer, *tensors_in(batch))
            with tracker:
                step(batch)
                tracker.reset_mod_stats()
                step(batch)
        except (ValueError, RuntimeError, NotImplementedError, AssertionError):
            return None
        peaks = tracker.get_tracker_snapshot("peak")
    return max(int(snapshot["Total"]) for snapshot in peaks.values())

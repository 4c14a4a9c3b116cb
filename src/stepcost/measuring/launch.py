"""A training step as an engine runs it: prepared from the catalog's row, captured where the row says so."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch import nn

from stepcost.catalog.engines import ENGINES
from stepcost.prepare import in_fp32, memory_format, optimizer_of, step_of
from stepcost.request import Request
from stepcost.step import TrainingStep
from stepcost.workload import Workload, workload_of

Launch = Callable[[], object]
WARM_UP_RUNS = 3
"""Runs on a side stream before a capture, as torch's documentation of CUDA graphs asks for."""


def build_step(
    request: Request,
    model: nn.Module,
    workload: Workload | None = None,
    *,
    learning_rate: float | None = None,
    scheduled: bool = False,
) -> TrainingStep:
    """Build the step that the request's engine runs, on a model that is already on the device.

    ``workload`` is what is trained; by default, what the request names.
    ``scheduled`` says that the rate will change between steps (``set_learning_rate``).
    """
    engine = ENGINES[request.engine]
    torch.backends.cudnn.benchmark = engine.autotuned
    if memory_format(request) == torch.channels_last:
        model.to(memory_format=torch.channels_last)
    workload = workload or workload_of(request)
    make = workload.make_optimizer
    optimizer = (
        optimizer_of(request, model, learning_rate, scheduled=scheduled)
        if make is None
        else make(model.parameters())
    )
    forward = torch.compile(model, dynamic=False) if engine.compiled else None
    return step_of(request, model, workload, optimizer, forward)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Change the rate of the next step; in place where a captured step reads it from the GPU."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], torch.Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = in_fp32(rate)


def warm_up(work: Launch, *, captured: bool) -> None:
    """Run ``work`` a few times, on a side stream where it will be captured; what it trains stays trained."""
    side = torch.cuda.Stream() if captured else None
    if side is not None:
        side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side) if side is not None else nullcontext():
        for _ in range(WARM_UP_RUNS):
            work()
    if side is not None:
        torch.cuda.current_stream().wait_stream(side)


def capture(work: Launch) -> Launch:
    """Capture ``work`` as a CUDA graph (``torch.cuda.graph``): one launch replays all its kernels."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    return graph.replay

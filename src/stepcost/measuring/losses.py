"""Losses of the first steps of a request, with exact numbers: do two steps compute the same?"""

from __future__ import annotations

import torch

from stepcost.measuring.child import enter_phase
from stepcost.measuring.launch import build_step
from stepcost.prepare import batch_of, prepare
from stepcost.request import Request
from stepcost.step import map_tensors
from stepcost.workload import workload_of

RATE = 1e-6
"""Learning rate: at the usual one a deep network multiplies the rounding of two right programs from step to
step. At this one it does not, and in fp64 what a step changes in the loss is far above rounding."""


class Losses:
    """A request's model, batch and step, all in fp64; request and seed decide every number."""

    def __init__(self, request: Request) -> None:
        enter_phase("build")
        torch.manual_seed(request.seed)
        workload = workload_of(request)
        model = prepare(workload.build(), request).double().to(request.device).train()
        batch = batch_of(workload, request, request.device)
        self.batch = map_tensors(lambda one: one.double() if one.is_floating_point() else one, batch)
        self.step = build_step(request, model, workload, learning_rate=RATE)

    def losses(self, steps: int) -> list[float]:
        """Return the loss of each of ``steps`` steps on one batch."""
        enter_phase("steps in fp64")
        return [self.step(self.batch)[0].item() for _ in range(steps)]

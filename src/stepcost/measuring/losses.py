"""Losses of the first steps of a request, with exact numbers: do two steps compute the same?"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from stepcost.measuring.child import enter_phase
from stepcost.measuring.launch import build_step
from stepcost.prepare import batch_of, prepare
from stepcost.request import Request
from stepcost.step import TrainingStep, map_tensors
from stepcost.workload import Workload, workload_of

RATE = 1e-6
"""Learning rate: at the usual one a deep network multiplies the rounding of two right programs from step to
step. At this one it does not, and in fp64 what a step changes in the loss is far above rounding."""


TRAINING = "training"
"""Mode of a model; the other is ``evaluation``."""


class Losses:
    """A request's model, batch and step, all in fp64; request and seed decide every number."""

    def __init__(self, request: Request, mode: str = TRAINING) -> None:
        """Build the step of a model in that ``mode``: ``training`` or ``evaluation``."""
        enter_phase("build")
        torch.manual_seed(request.seed)
        workload = workload_of(request)
        model = self._place(prepare(workload.build(), request).double(), request).train(mode == TRAINING)
        torch.manual_seed(request.seed)
        batch = self._batch(workload, request)
        self.batch = map_tensors(lambda one: one.double() if one.is_floating_point() else one, batch)
        self.step = self._step(request, model, workload, RATE)

    def _place(self, model: nn.Module, request: Request) -> nn.Module:
        return model.to(request.device)

    def _batch(self, workload: Workload, request: Request) -> Any:
        return batch_of(workload, request, request.device)

    def _step(self, request: Request, model: nn.Module, workload: Workload, rate: float) -> TrainingStep:
        return build_step(request, model, workload, learning_rate=rate)

    def losses(self, steps: int) -> list[float]:
        """Return the loss of each of ``steps`` steps on one batch."""
        enter_phase("steps in fp64")
        with StaysFp64():
            return [self.step(self.batch)[0].item() for _ in range(steps)]


class StaysFp64(TorchFunctionMode):
    """Leaves float64 as it is where a model casts to float32, as ``transformers`` does before a loss."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        to_fp32 = function is torch.Tensor.float or (
            function is torch.Tensor.to and torch.float32 in (*args[1:], *kwargs.values())
        )
        if to_fp32 and args[0].dtype == torch.float64:
            return args[0]
        return function(*args, **kwargs)

"""Losses of the first steps of a request, with exact numbers: do two steps compute the same?"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch import nn

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
        with staying_fp64():
            return [self.step(self.batch)[0].item() for _ in range(steps)]


@contextmanager
def staying_fp64() -> Iterator[None]:
    """Cast to float64 where a model casts to float32, as ``transformers`` does in norms and before a loss.

    Integers too: positions are multiplied by frequencies that have stayed in float64. It is the methods that
    are replaced, since no mode of torch is on where backward computes a checkpointed block once more.
    """
    to, to_fp32 = torch.Tensor.to, torch.Tensor.float

    def stays(one: torch.Tensor) -> bool:
        return one.dtype == torch.float64 or not one.is_floating_point()

    def cast_to(one: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        if torch.float32 in (*args, *kwargs.values()) and stays(one):
            return one.double()
        return to(one, *args, **kwargs)

    def cast_to_fp32(one: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        return one.double() if stays(one) else to_fp32(one, *args, **kwargs)

    with (
        mock.patch.object(torch.Tensor, "to", cast_to),
        mock.patch.object(torch.Tensor, "float", cast_to_fp32),
    ):
        yield

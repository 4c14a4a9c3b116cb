"""Training steps with a planted regression, held by a child in place of the plain ones."""

from __future__ import annotations

import time

import torch

from stepcost.measure.configuration import Configuration
from stepcost.measure.engine_step import EngineStep

SLOWER = 0.05
LARGER = 0.001


class Slow(Configuration):
    """Each step takes 5 % longer: the host spins after the device has finished."""

    def step(self) -> None:
        start = time.perf_counter()
        super().step()
        until = start + (1 + SLOWER) * (time.perf_counter() - start)
        while time.perf_counter() < until:
            pass


class SlowEngine(Slow, EngineStep):
    """The same of the step that an engine runs."""


class Fat(Configuration):
    """From the second step on a tensor of 0.1 % of the peak stays allocated."""

    steps_taken = 0

    def step(self) -> None:
        super().step()
        self.steps_taken += 1
        if self.steps_taken == 2 and self.on_gpu:
            size = int(LARGER * torch.cuda.max_memory_allocated())
            self.kept = torch.empty(size, dtype=torch.uint8, device=self.request.device)


class Busy(Configuration):
    """While the GPU's work is profiled, each step ends with 5 % more of it."""

    cycles = 0

    def step(self) -> None:
        super().step()
        if self.cycles:
            torch.cuda._sleep(self.cycles)
            torch.cuda.synchronize()

    def profiled(self) -> dict[str, float]:
        plain_s = super().profiled()["gpu_busy_s"]
        self.cycles = int(SLOWER * plain_s / _seconds_a_cycle())
        planted = super().profiled()
        self.cycles = 0
        return planted


def _seconds_a_cycle(cycles: int = 10_000_000) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda._sleep(cycles)
    start.record()
    torch.cuda._sleep(cycles)
    end.record()
    torch.cuda.synchronize()
    return float(start.elapsed_time(end)) / 1e3 / cycles

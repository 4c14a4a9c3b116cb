"""Training steps with a planted regression, which a child holds in place of the suite's own."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from stepcost.measuring.configuration import Configuration
from stepcost.measuring.engine_step import EngineStep

SLOWER = 0.05
LARGER = 0.001


def take_longer(step: Callable[[], None]) -> None:
    """Take a step, then spin on the host until 5 % more time has passed."""
    start = time.perf_counter()
    step()
    until = start + (1 + SLOWER) * (time.perf_counter() - start)
    while time.perf_counter() < until:
        pass


class Slow(Configuration):
    """Each step takes 5 % longer."""

    def step(self) -> None:
        take_longer(super().step)


class SlowEngine(EngineStep):
    """Each step that an engine runs takes 5 % longer."""

    def step(self) -> None:
        take_longer(super().step)


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

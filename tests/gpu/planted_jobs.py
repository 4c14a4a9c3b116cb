"""Jobs and models of the GPU tests' own: what is planted in a child, or read there a second way."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import pynvml
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from stepcost.measuring.configuration import Configuration
from stepcost.measuring.engine_step import EngineStep
from stepcost.measuring.profiling import events_on, profiled
from stepcost.request import Request
from stepcost.step import TrainingStep

MIB = 2**20
COPIED_BYTES = 64 * MIB


def perceptron(num_classes: int) -> nn.Module:
    """Return a model whose every allocation can be worked out by hand: 3x32x32 to 1024 to the classes."""
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 1024), nn.ReLU(), nn.Linear(1024, num_classes))


class Deadly(nn.Module):
    """A perceptron that ends its process, or never answers, at batch sizes that are told apart."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.model = perceptron(num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.model(images)
        if images.is_cuda:
            torch.cuda.synchronize()
        if len(images) in ENDS:
            ENDS[len(images)]()
        return logits


def deadly(num_classes: int) -> nn.Module:
    """Return the model that ``ENDS`` ends."""
    return Deadly(num_classes)


def be_killed() -> None:
    """End as the system ends a process where host memory runs out."""
    os.kill(os.getpid(), signal.SIGKILL)


def hang() -> None:
    """Give no answer within any limit of the tests."""
    time.sleep(600)


def segfault() -> None:
    """Read from address 0."""
    ctypes.string_at(0)


ENDS: dict[int, Callable[[], None]] = {5: be_killed, 6: hang, 7: segfault}
"""Batch size to what happens after the forward pass of it."""


class OnStep(TrainingStep):
    """A step with something planted in it."""

    plant: Callable[[str], None]
    """Called with ``start`` before the step and with the name of a phase after it."""

    @classmethod
    def of(cls, step: TrainingStep, plant: Callable[[str], None]) -> OnStep:
        """Plant something in a step."""
        planted = cls(**vars(step))
        planted.plant = plant
        return planted

    def __call__(self, batch: Any, after: Any = None) -> Any:
        """Take the step; ``told`` says whether its phases are asked for, as in the one that is read."""
        self.told = after is not None

        def both(phase: str) -> None:
            if after is not None:
                after(phase)
            self.plant(phase)

        self.plant("start")
        return super().__call__(batch, both)


def leave_no_room(device: str) -> list[torch.Tensor]:
    """Make this process's card as small as what it has reserved, and use that up: nothing more fits."""
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(device).total_memory
    torch.cuda.set_per_process_memory_fraction(torch.cuda.memory_reserved() / total)
    held: list[torch.Tensor] = []
    size = 256 * MIB
    while size >= 512:
        try:
            held.append(torch.empty(size, dtype=torch.uint8, device=device))
        except torch.OutOfMemoryError:
            size //= 2
    return held


class ShortOfMemory(Configuration):
    """A configuration whose card becomes too small at the moment that is named."""

    def __init__(self, request: Request, moment: str) -> None:
        """``moment``: ``timed``, ``profiled``, or what ends right before, in the step that is read."""
        super().__init__(request)
        self.moment = moment
        self.held: list[torch.Tensor] = []
        self.training_step = OnStep.of(self.training_step, self.plant)

    def plant(self, moment: str) -> None:
        """Shrink the card where its moment has come."""
        step: Any = self.training_step
        if moment == self.moment and step.told:
            self.held += leave_no_room(self.request.device)

    def timed_steps(self, count: int) -> list[float]:
        seconds = super().timed_steps(count)
        if self.moment == "timed":
            self.held += leave_no_room(self.request.device)
        return seconds

    def profiled(self) -> dict[str, float]:
        if self.moment == "profiled":
            self.held += leave_no_room(self.request.device)
        return super().profiled()


class ShortAtCapture(EngineStep):
    """An engine whose card becomes too small between its warm-up and its capture."""

    def __init__(self, request: Request) -> None:
        super().__init__(request)
        self.held: list[torch.Tensor] = []
        self.training_step = OnStep.of(self.training_step, self.plant)

    def plant(self, moment: str) -> None:
        """Shrink the card at the end of the only step before the capture whose phases are asked for."""
        step: Any = self.training_step
        if moment == "optimizer step" and step.told:
            self.held += leave_no_room(self.request.device)


class SomeoneElse:
    """Another process that holds all of a card but for some."""

    def fill(self, device: str, leave_bytes: int) -> int:
        """Hold what is free but for ``leave_bytes``; return what is free then."""
        torch.cuda.set_device(device)
        torch.zeros(1, device=device)
        free, _ = torch.cuda.mem_get_info(device)
        self.held = torch.empty(free - leave_bytes, dtype=torch.uint8, device=device)
        return int(torch.cuda.mem_get_info(device)[0])


class SecondWay(Configuration):
    """A configuration of which the same figures are read another way, after its reading."""

    def peak_of_a_whole_step(self) -> int:
        """Peak of allocated bytes of one more step, its phases not looked at."""
        self.training_step.optimizer.zero_grad(set_to_none=True)
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        self.training_step(self.batch)
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated()

    def segment_bytes(self) -> int:
        """Sum of the segments that the allocator holds, by its snapshot."""
        return sum(segment["total_size"] for segment in torch.cuda.memory_snapshot())


class Leaks(Configuration):
    """A step that keeps some bytes for good, or gives some back that it was made with."""

    def __init__(self, request: Request, leaked_bytes: int) -> None:
        super().__init__(request)
        self.kept = [torch.empty(MIB, dtype=torch.uint8, device=request.device) for _ in range(8)]
        self.leaked_bytes = leaked_bytes
        self.training_step = OnStep.of(self.training_step, self.plant)

    def plant(self, moment: str) -> None:
        """Leak at the end of each step."""
        if moment != "optimizer step":
            return
        if self.leaked_bytes > 0:
            self.kept.append(torch.empty(self.leaked_bytes, dtype=torch.uint8, device=self.request.device))
        else:
            self.kept.pop()


class Pool(EngineStep):
    """A prepared engine whose segments are looked at."""

    def segments(self) -> dict[str, int]:
        """Bytes of all segments, and of those of private pools, by the allocator's snapshot."""
        found = torch.cuda.memory_snapshot()
        private = [one["total_size"] for one in found if tuple(one["segment_pool_id"]) != (0, 0)]
        return {"all": sum(one["total_size"] for one in found), "private": sum(private)}


class Spins(EngineStep):
    """A prepared engine after whose step the GPU can be kept busy for so many of its cycles."""

    cycles = 0

    def spin(self, cycles: int) -> None:
        """Do so from now on."""
        self.cycles = cycles

    def step(self) -> None:
        self._launch()
        if self.cycles:
            torch.cuda._sleep(self.cycles)
        self._synchronize()


class WrongLabels(Configuration):
    """A batch whose labels are no classes: an assertion on the GPU fails."""

    def __init__(self, request: Request) -> None:
        super().__init__(request)
        self.batch[1].add_(10_000)


class NvmlRefuses(Configuration):
    """A process in which one function of NVML refuses."""

    def __init__(self, request: Request, function: str) -> None:
        def refuse(*_arguments: Any, **_options: Any) -> None:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NO_PERMISSION)

        setattr(pynvml, function, refuse)
        super().__init__(request)


class Adds:
    """Steps whose kernels are counted and timed without a profiler."""

    ADDS = 5

    def __init__(self, device: str) -> None:
        torch.cuda.set_device(device)
        self.values = torch.zeros(128 * MIB, device=device)
        self.on_host = torch.zeros(COPIED_BYTES, dtype=torch.uint8)

    def step(self) -> None:
        """Add in one kernel a time, and wait."""
        for _ in range(self.ADDS):
            self.values.add_(1)
        torch.cuda.synchronize()

    def step_after_a_copy(self) -> None:
        """Copy from the host first."""
        self.on_host.to(self.values.device)
        self.step()

    def profiled(self, copy: bool) -> dict[str, float]:
        """Figures of the profiler."""
        step = self.step_after_a_copy if copy else self.step
        step()
        return profiled(step)

    def events_both_ways(self) -> tuple[list[Any], list[Any]]:
        """Name, start and end of what ran on the GPU, as it is read and as torch's own objects have it."""
        with profile(activities=[ProfilerActivity.CUDA]) as profiler:
            self.step_after_a_copy()
        read = sorted(events_on("CUDA", profiler))
        events = [one for one in profiler.events() if one.device_type.name == "CUDA"]
        return read, sorted((one.name, one.time_range.start, one.time_range.end) for one in events)

    def by_events(self) -> float:
        """Seconds of the kernels of a step between two CUDA events, the median of ten steps."""
        seconds: list[float] = []
        for _ in range(10):
            start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            start.record()
            self.step()
            end.record()
            end.synchronize()
            seconds.append(start.elapsed_time(end) / 1e3)
        return median(seconds)

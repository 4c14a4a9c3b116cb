"""One training configuration, held by a child process: build it, read its memory, step it.

The order in the process is the method: a first allocation, the model, warm-up steps,
then one steady step whose memory is read phase by phase. ``docs/method.md`` says why.
"""

from __future__ import annotations

import gc
import time
from typing import Any

import torch
from torch import nn

from stepcost.activations import alike_together
from stepcost.allocator.history import HistoryUnavailable, peak_of
from stepcost.catalog.engines import ENGINES
from stepcost.ledger import Ledger
from stepcost.measuring import nvml
from stepcost.measuring.activations import kept_by_module, record_by_module
from stepcost.measuring.child import STARTED, enter_phase
from stepcost.measuring.energy import FIELDS as ENERGY
from stepcost.measuring.energy import energy_of
from stepcost.measuring.launch import Launch, build_step
from stepcost.prepare import batch_of, prepare
from stepcost.reading import FORWARD, PHASES, ModulesKept, Moment, Reading
from stepcost.request import Request
from stepcost.search import MOST_STEPS
from stepcost.step import TrainingStep
from stepcost.tensors import count_step
from stepcost.workload import Workload, workload_of

WARM_UP_STEPS = 2
"""Steps before the steady one that is read: optimizer state does not exist before the first."""


class Configuration:
    """A model, its optimizer and one batch of random images on one device."""

    def __init__(self, request: Request, workload: Workload | None = None) -> None:
        """Build the configuration named by a ``Request``; ``moments`` records the context on the way.

        ``workload`` is what is trained; by default, what the request names.
        """
        self.request = request
        enter_phase("first allocation")
        self.parts_s = {"fork": STARTED["forked_at"] - STARTED["requested_at"]}
        self._since = STARTED["forked_at"]
        self.on_gpu = request.device.startswith("cuda")
        self.moments: list[Moment] = []
        self.unread: dict[str, str] = {}
        self._gpu: nvml.Gpu | None = None
        self._no_nvml = "no GPU: what a processor draws is not read"
        torch.manual_seed(request.seed)
        if self.on_gpu:
            # What is in use before this process has a context. `set_device` makes one; asking for the
            # properties does not (4 MiB on an H100 for being the driver's first client, then 523 more).
            uuid = str(torch.cuda.get_device_properties(request.device).uuid)
            self._gpu, why_not = nvml.open_gpu(uuid)
            if why_not:
                self._no_nvml = why_not
                self.unread |= dict.fromkeys(("process_bytes", "context_bytes"), why_not)
            torch.cuda.set_device(request.device)
            self._first = torch.zeros(1, device=request.device)
            self.moments.append(self._moment("first allocation")[0])
        self._part("context")
        self._join()
        enter_phase("build")
        workload = workload or workload_of(request, prebuilt=True)
        model = prepare(workload.build(), request)
        self._part("build")
        enter_phase("model to the device")
        model = self._to_device(model).train()
        if self.on_gpu:
            self.moments.append(self._moment("model loaded")[0])
        self._part("to the device")
        enter_phase("batch to the device")
        self.batch = batch_of(workload, request, request.device)
        self.training_step = self._build_step(model, workload)
        self._launch: Launch = self._work

    def _join(self) -> None:
        """Join the other processes of the request: one GPU has none."""

    def _to_device(self, model: nn.Module) -> nn.Module:
        return model.to(self.request.device)

    def _build_step(self, model: nn.Module, workload: Workload) -> TrainingStep:
        return build_step(self.request, model, workload)

    def ping(self) -> None:
        """Answer nothing: what is left is the cost of the process border."""

    def step(self) -> None:
        """Take one training step and wait until the device has finished it."""
        self._launch()
        self._synchronize()

    def _work(self) -> None:
        self.training_step(self.batch)

    def timed_steps(self, count: int) -> list[float]:
        """Seconds of each of ``count`` steps, timed here, without the process border."""
        seconds = []
        for _ in range(count):
            start = time.perf_counter()
            self.step()
            seconds.append(time.perf_counter() - start)
        return seconds

    def first_step(self) -> dict[str, float]:
        """Take the first step; return where the time since the request went, in seconds by part."""
        self._since = time.perf_counter()
        self.step()
        self._part("first step")
        return self.parts_s

    def attempt(self) -> tuple[int, float]:
        """Take steps, to see whether they fit: peak of allocated bytes, seconds of the second step.

        Two, and more while a step goes on only because cached segments were given back (``num_alloc_retries``
        of ``torch.cuda.memory_stats``), at most ``MOST_STEPS``: the next may then run out of memory.
        """
        enter_phase("first step")
        self.step()
        enter_phase("second step")
        before = _retries()
        seconds = self.timed_steps(1)[0]
        for number in range(3, MOST_STEPS + 1):
            if (now := _retries()) == before:
                break
            before = now
            enter_phase(f"step {number}")
            self.step()
        return torch.cuda.max_memory_allocated(), seconds

    def reading(self) -> Reading:
        """Warm up, then read the memory of one steady step, in bytes.

        Peaks come from the caching allocator's own counters
        (``torch.cuda.max_memory_allocated`` and ``max_memory_reserved``), reset before each
        phase; tensor bytes are counted from the tensors.
        """
        if not self.on_gpu:
            raise ValueError("memory can be read only on a GPU; without one it is predicted")
        if ENGINES[self.request.engine].captured:
            raise ValueError("memory is read phase by phase, and a captured step has no phases")
        enter_phase("first step")
        torch.cuda.reset_peak_memory_stats()
        self.step()
        first_step_peak = torch.cuda.max_memory_allocated()
        enter_phase("warm-up")
        for _ in range(WARM_UP_STEPS - 1):
            self.step()
        # Cyclic garbage would be freed at a random moment; facts repeat to the byte only without it. Freed
        # after the counter is read, it would pass for a leak below zero, and hide a real one.
        gc.collect()
        allocated_between_steps = torch.cuda.memory_allocated()
        phase_peaks, reserved, activation_bytes = self._steady_step()
        leaked_bytes = torch.cuda.memory_allocated() - allocated_between_steps
        last, process_bytes_from = self._moment("training step")
        counted: dict[str, Any] = count_step(self.training_step, self.batch)
        ledger, kept_by_modules, why_not = self._made_of(last.context_bytes)
        return Reading(
            source="measured",
            fits=True,
            **counted,
            activation_bytes=activation_bytes,
            kept_by_modules=kept_by_modules,
            first_step_peak_allocated_bytes=first_step_peak,
            peak_allocated_bytes=max(phase_peaks.values()),
            peak_reserved_bytes=reserved,
            peak_moment=max(phase_peaks, key=lambda phase: phase_peaks[phase]),
            phase_peak_bytes=phase_peaks,
            leaked_bytes=leaked_bytes,
            process_bytes=last.process_bytes,
            process_bytes_from=process_bytes_from,
            context_bytes=last.context_bytes,
            moments=(*self.moments, last),
            ledger=ledger,
            steps_before_reading=WARM_UP_STEPS,
            seconds=time.perf_counter() - STARTED["requested_at"],
            unread=self.unread | why_not,
        )

    def profiled(self) -> dict[str, float]:
        """Busy seconds, kernel seconds and kernels of a step (``stepcost.measuring.profiling``)."""
        from stepcost.measuring.profiling import profiled  # noqa: PLC0415 (loads CUPTI)

        return profiled(self.step)

    def clocks(self) -> dict[str, Any] | None:
        """Clocks, temperature and throttle reasons now; ``None`` where NVML does not answer."""
        return self._gpu.clocks() if self._gpu is not None else None

    def energy(self) -> tuple[dict[str, Any], dict[str, str]]:
        """Joules of a step as ``stepcost.measuring.energy`` measures them, and why fields are unread."""
        return energy_of(self.step, self._gpu) if self._gpu else ({}, dict.fromkeys(ENERGY, self._no_nvml))

    def _synchronize(self) -> None:
        if self.on_gpu:
            torch.cuda.synchronize()

    def _part(self, name: str) -> None:
        now = time.perf_counter()
        self.parts_s[name] = now - self._since
        self._since = now

    def _moment(self, name: str) -> tuple[Moment, str | None]:
        """Read what the process holds of the GPU now, and how that was read."""
        self._synchronize()
        reserved = torch.cuda.memory_reserved()
        process, read_from = self._gpu.process_bytes() if self._gpu is not None else (None, None)
        context = None if process is None else process - reserved
        return Moment(
            moment=name, process_bytes=process, reserved_bytes=reserved, context_bytes=context
        ), read_from

    def _steady_step(self) -> tuple[dict[str, int], int, int]:
        """Peak of allocated bytes by phase of one step, of reserved bytes, and what forward leaves behind."""
        self._synchronize()
        # The step itself drops the old gradients; forward's increase must not be netted with that.
        self.training_step.optimizer.zero_grad(set_to_none=True)
        peaks: dict[str, int] = {}
        allocated_before = torch.cuda.memory_allocated()
        kept = reserved = 0
        follows = dict(zip(PHASES, (*PHASES[1:], "after the step"), strict=True))
        torch.cuda.reset_peak_memory_stats()
        enter_phase(FORWARD)

        def after(phase: str) -> None:
            nonlocal kept, reserved
            peaks[phase] = max(peaks.get(phase, 0), torch.cuda.max_memory_allocated())
            reserved = max(reserved, torch.cuda.max_memory_reserved())
            if phase == FORWARD and not kept:  # of the first micro-batch
                kept = torch.cuda.memory_allocated() - allocated_before
            torch.cuda.reset_peak_memory_stats()
            enter_phase(follows[phase])

        self.training_step(self.batch, after)
        self._synchronize()
        return peaks, reserved, kept

    def _made_of(
        self, context_bytes: int | None
    ) -> tuple[Ledger | None, tuple[ModulesKept, ...] | None, dict[str, str]]:
        """Take one more step and say what its peak is made of, by part and by module; else why not."""
        enter_phase("step whose allocator history is recorded")
        try:
            history, changes = record_by_module(
                self.training_step, self.batch, torch.device(self.request.device)
            )
            ledger = peak_of(history, context_bytes).ledger
        except HistoryUnavailable as error:
            return None, None, dict.fromkeys(("ledger", "kept_by_modules"), str(error))
        try:
            return ledger, alike_together(kept_by_module(history, changes)), {}
        except HistoryUnavailable as error:
            return ledger, None, {"kept_by_modules": str(error)}


def _retries() -> int:
    """How often the allocator gave back all cached segments, since the process began, to go on."""
    count: int = torch.cuda.memory_stats()["num_alloc_retries"]
    return count

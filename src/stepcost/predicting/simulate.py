"""A traced run through the simulated allocator of one card: peaks, the ledger, and what ran out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from stepcost.activations import LOSS, Owner
from stepcost.allocator.caching import Block, CachingAllocator, OutOfMemory
from stepcost.ledger import ALWAYS, Allocation, Peak, ledger_at_peak
from stepcost.predicting import tape, trace
from stepcost.predicting.convolution import Convolution
from stepcost.predicting.further import with_steps
from stepcost.predicting.trace import Trace
from stepcost.predicting.workspaces import Workspaces
from stepcost.reading import BACKWARD, FORWARD, PHASES
from stepcost.search import MOST_STEPS


@dataclass(kw_only=True)
class Simulation:
    """What a run did to the allocator of one card; sizes in bytes."""

    allocator: CachingAllocator
    out_of_memory_in: str | None = None
    """Where it ran out of memory, and of what; ``None`` where it fits."""
    first_step_peak_bytes: int = 0
    phase_peak_bytes: dict[str, int] = field(default_factory=dict)
    """Of the last step; of a phase that comes once a micro-batch, the highest."""
    leaked_bytes: int = 0
    """Allocated after the last step less after the one before."""
    kept_bytes: int = 0
    """What the last step's first forward phase left allocated."""
    kept: list[tuple[Owner, int]] = field(default_factory=list)
    """What it left allocated, storage by storage, with the module in whose forward each was made."""
    peak: Peak | None = None
    requests: list[tuple[str, int]] = field(default_factory=list)
    """Everything asked of the allocator in order: ``alloc`` or ``free``, and the bytes requested."""
    marks: list[tuple[str, int]] = field(default_factory=list)
    """Named moments, each with how many requests there were before it."""


class _Run:
    """One pass over a trace's events."""

    def __init__(self, traced: Trace, workspaces: Workspaces, capacity_bytes: int | None) -> None:
        self.allocator = CachingAllocator(capacity_bytes)
        self.result = Simulation(allocator=self.allocator)
        self._kinds = traced.kinds
        self._owners = traced.owners
        self._streams = traced.streams
        self._workspaces = workspaces
        self._blocks: dict[Any, tuple[Block, int]] = {}
        self._ran: dict[tuple[Convolution, int, str, bool], int] = {}
        # The allocations of the step under way, so that the last one can be explained.
        self._alive: dict[Any, Allocation] = {}
        self._done: list[Allocation] = []
        self._forward_ends: list[int] = []
        self._now = self._at_start = self._between_steps = 0
        self.retries_before = 0
        """Of the allocator, before the step under way."""
        self.phase = "model to the device"

    def allocate(self, key: Any, size_bytes: int) -> None:
        block = self.allocator.allocate(size_bytes, self._streams.get(key, 0))
        self._blocks[key] = block, size_bytes
        self.result.requests.append(("alloc", size_bytes))
        self._alive[key] = Allocation(block.bytes, self._now, self._kinds.get(key))
        self._now += 1

    def free(self, key: Any) -> None:
        block, size_bytes = self._blocks.pop(key)
        self.allocator.free(block)
        self.result.requests.append(("free", size_bytes))
        allocation = self._alive.pop(key)
        allocation.died = self._now
        self._done.append(allocation)
        self._now += 1

    def convolve(self, one: Convolution, batch_size: int, direction: str) -> None:
        """Take a workspace and give it back; where there is no room, what cuDNN would do with less.

        What ran is tried first the next time, in each thread (``run_single_conv`` and ``benchmark_cache`` in
        ``aten/src/ATen/native/cudnn/Conv_v8.cpp``).
        """
        asked = one, batch_size, direction, self.phase == BACKWARD
        ran = self._ran.get(asked)
        for size in (*([] if ran is None else [ran]), *self._workspaces.of(one, batch_size, direction)):
            try:
                if size:
                    self.allocate("workspace", size)
                    self.free("workspace")
            except OutOfMemory:
                continue
            self._ran[asked] = size
            return
        # No recorded plan fits. cuDNN has plans that need next to nothing, so the step goes on.

    def gemm(self, phase: str, with_bias: bool) -> None:
        """Take cuBLAS's workspaces: kept by each thread's handle, or only as long as the operation."""
        in_backward = phase == BACKWARD  # autograd runs backward in a thread, so with a handle, of its own
        sizes = {("cublas", in_backward): self._workspaces.cublas_bytes}
        if with_bias:
            sizes["cublaslt", in_backward] = self._workspaces.cublaslt_bytes
        taken = [key for key, size in sizes.items() if size and key not in self._blocks]
        for key in taken:
            self.allocate(key, sizes[key])
        if not self._workspaces.cublas_keeps:
            for key in reversed(taken):
                self.free(key)

    def reduce(self, reduction: Any) -> None:
        """Take scratch that depends on the card, and give it back in reverse order."""
        sizes = [size for size in reduction.scratch_bytes(*self._workspaces.threads) if size]
        for key, size in enumerate(sizes):
            self.allocate(("scratch", key), size)
        for key in reversed(range(len(sizes))):
            self.free(("scratch", key))

    def mark(self, name: str, follows: str | None) -> None:
        """Read the counters at a named moment, and start them again; ``follows`` is the phase that begins."""
        allocated = self.allocator.allocated_bytes
        self.result.marks.append((name, len(self.result.requests)))
        if name == trace.MODEL_LOADED:
            self.phase = "batch to the device"
        elif name in PHASES:
            peaks = self.result.phase_peak_bytes
            peaks[name] = max(peaks.get(name, 0), self.allocator.peak_allocated_bytes)
            if name == FORWARD:
                self._forward_ends.append(self._now - 1)
            if name == FORWARD and len(self._forward_ends) == 1:
                self.result.kept_bytes = allocated - self._at_start
                self.result.kept = [
                    (self._owners.get(key, LOSS), one.bytes)
                    for key, one in self._alive.items()
                    if one.born != ALWAYS
                ]
            self.allocator.peak_allocated_bytes = allocated
            self.phase = follows or name
        elif name == trace.STEP_BEGINS:
            self._begin_step()
        elif name == trace.STEP_DONE:
            self.result.leaked_bytes = allocated - self._between_steps
            self._between_steps = allocated
            if not self.result.first_step_peak_bytes:
                self.result.first_step_peak_bytes = max(self.result.phase_peak_bytes.values())

    def _begin_step(self) -> None:
        """Forget what came before; what is alive was always there."""
        for allocation in self._alive.values():
            allocation.born = ALWAYS
        self._done.clear()
        self._forward_ends.clear()
        self.result.phase_peak_bytes.clear()
        self._now = 0
        self.retries_before = self.allocator.retries
        self._at_start = self.allocator.peak_allocated_bytes = self.allocator.allocated_bytes
        self.phase = PHASES[0]

    def go(self, traced: Trace) -> Simulation:
        do: dict[str, Callable[[Any, Any], object]] = {
            tape.ALLOC: self.allocate,
            tape.FREE: lambda key, _: self.free(key),
            tape.WORKSPACE: lambda one, more: self.convolve(one, *more),
            tape.GEMM: self.gemm,
            tape.REDUCTION: lambda reduction, _: self.reduce(reduction),
            tape.MARK: self.mark,
            tape.COLLECTIVE: lambda *_: None,
        }
        try:
            for action, what, more in traced.events:
                do[action](what, more)
        except OutOfMemory as error:
            self.result.out_of_memory_in = f"out of memory in {self.phase}: {error}"
            return self.result
        self.result.peak = ledger_at_peak(
            [*self._done, *self._alive.values()],
            forward_ends=self._forward_ends,
            reserved_bytes=self.allocator.peak_reserved_bytes,
            context_bytes=self._workspaces.context_bytes,
        )
        return self.result


def simulate(traced: Trace, workspaces: Workspaces, capacity_bytes: int | None) -> Simulation:
    """Replay ``traced`` on a card with ``workspaces`` and ``capacity_bytes`` (``None``: no end).

    A step that went on only because cached segments were given back leaves others than it found, and the
    next may run out of memory: such a run takes ``MOST_STEPS``, and fits where none of them does. Figures are
    those of the last traced step.
    """
    run = _Run(traced, workspaces, capacity_bytes)
    found = run.go(traced)
    if found.peak is None or run.allocator.retries == run.retries_before:
        return found
    more = with_steps(traced, MOST_STEPS)
    if more is None:
        return found
    further = _Run(more, workspaces, capacity_bytes).go(more)
    if further.peak is None:
        done = sum(name == trace.STEP_DONE for name, _ in further.marks)
        found.peak, found.out_of_memory_in = None, f"{further.out_of_memory_in} (in step {done + 1})"
    return found

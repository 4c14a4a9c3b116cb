"""A card that is simulated: the project's own allocator does what a tape says, as it is written.

``simulated_torch`` puts it in place of a GPU, so that the code that measures reads it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch

from stepcost.allocator.caching import Block, CachingAllocator, OutOfMemory
from stepcost.catalog.cards import CARDS
from stepcost.predicting import tape
from stepcost.predicting.rules import RULES
from stepcost.predicting.workspaces import Workspaces
from stepcost.reading import BACKWARD, FORWARD

MIB = 2**20
H100 = CARDS["h100-80gb"]
INDEX = 1
"""The card is the second of its machine: what asks the first by mistake reads nothing."""
CONTEXT_GROWTH_BYTES = 2 * MIB
"""The context grows by this with every step. After the third it is what the catalog says."""


class Events(list[tape.Event]):
    """Events that are done as they are written down, and not kept."""

    def __init__(self, do: Callable[[tape.Event], None]) -> None:
        super().__init__()
        self.append = do  # type: ignore[method-assign]


class SimulatedCard:
    """One H100: an allocator, a context, and a history of both as torch records it."""

    def __init__(self, workspaces: Workspaces, capacity_bytes: int | None = None) -> None:
        self.allocator = CachingAllocator(capacity_bytes)
        self.allocator.on_segment = self._on_segment
        self.tape = tape.Tape(RULES)
        self.tape.events = Events(self.take)
        self.device = 0
        """The device that this process has chosen; it has a context on no other."""
        self.full = False
        """Whether everything that is asked for from now on is refused."""
        self.lists_processes = True
        """Whether NVML lists processes, as it does not in some containers."""
        self.allocations = 0
        self._workspaces = workspaces
        self._backwards = 0
        self._recording = False
        self._blocks: dict[Any, tuple[Block, int]] = {}
        self._segments: dict[int, int] = {}
        # A recording that somebody else made before.
        self._history = [{"action": "alloc", "addr": 512, "size": 512}]

    @property
    def process_bytes(self) -> int:
        """What the process holds: its context, and segments."""
        context = (H100.context_bytes or 0) + (self._backwards - 3) * CONTEXT_GROWTH_BYTES
        return context + self.allocator.reserved_bytes if self.device == INDEX else 0

    @contextlib.contextmanager
    def in_backward(self) -> Iterator[None]:
        """Let autograd's thread use the card."""
        self.tape.phase = BACKWARD
        yield
        self.tape.phase = FORWARD
        self._backwards += 1

    def take(self, event: tape.Event) -> None:
        """Do what a tape says."""
        action, what, more = event
        if action == tape.ALLOC:
            self._allocate(what, more)
        elif action == tape.FREE:
            self._free(what)
        elif action == tape.WORKSPACE:
            for size in self._workspaces.of(what, *more):
                with contextlib.suppress(torch.OutOfMemoryError):  # cuDNN then takes a slower way
                    self._hold([size])
                    break
        elif action == tape.REDUCTION:
            self._hold(what.scratch_bytes(*self._workspaces.threads))
        elif action == tape.GEMM:
            sizes = [self._workspaces.cublas_bytes, self._workspaces.cublaslt_bytes][: 2 if more else 1]
            if not self._workspaces.cublas_keeps:
                self._hold(sizes)
            else:
                for key, size in zip(("cublas", "cublaslt"), sizes, strict=False):
                    # autograd's thread has a handle of its own
                    if size and (key, what == BACKWARD) not in self._blocks:
                        self._allocate((key, what == BACKWARD), size)

    def _hold(self, sizes: Iterable[int]) -> None:
        """Take scratch memory, one piece after the other, and give it back."""
        taken = [(("scratch", number), size) for number, size in enumerate(sizes) if size]
        for key, size in taken:
            self._allocate(key, size)
        for key, _ in reversed(taken):
            self._free(key)

    def _allocate(self, key: Any, size: int) -> None:
        try:
            if self.full:
                raise OutOfMemory
            block = self.allocator.allocate(size)
        except OutOfMemory:
            message = f"CUDA out of memory. Tried to allocate {size} bytes. GPU {INDEX} is full."
            raise torch.OutOfMemoryError(message) from None
        self._blocks[key] = block, size
        self.allocations += 1
        self._record("alloc", block.address, size)

    def _free(self, key: Any) -> None:
        block, size = self._blocks.pop(key)
        address = block.address  # before it merges with its neighbours
        self.allocator.free(block)
        self._record("free_requested", address, size)
        self._record("free_completed", address, size)

    def _on_segment(self, action: str, address: int, size: int) -> None:
        self._record(f"segment_{action}", address, size)
        if action == "alloc":
            self._segments[address] = size
        else:
            del self._segments[address]

    def _record(self, action: str, address: int, size: int) -> None:
        if self._recording:
            self._history.append({"action": action, "addr": address, "size": size})

    def address_of(self, storage: torch.UntypedStorage) -> int | None:
        """Return where on the card a storage is; ``None`` where it is not on it."""
        allocation = self.tape.allocation_of(storage)
        return None if allocation is None else self._blocks[allocation][0].address

    def set_recording(self, enabled: str | None, **_: Any) -> None:
        """Stand in for ``torch.cuda.memory._record_memory_history``."""
        self._recording = enabled == "all"

    def snapshot(self) -> dict[str, Any]:
        """Stand in for ``torch.cuda.memory._snapshot``, with a segment of another card before this one's."""
        used = sorted((block.address, block.bytes) for block, _ in self._blocks.values())
        segments = [{"device": 0, "address": 512, "blocks": [{"size": 512, "state": "active_allocated"}]}]
        for start, size in self._segments.items():
            blocks, at, end = [], start, start + size
            for address, held in [*(one for one in used if start <= one[0] < end), (end, 0)]:
                if address > at:
                    blocks.append({"size": address - at, "state": "inactive"})
                if held:
                    blocks.append({"size": held, "state": "active_allocated"})
                at = address + held
            segments.append({"device": INDEX, "address": start, "blocks": blocks})
        return {"segments": segments, "device_traces": [[], list(self._history)]}

"""Which bytes are what at the moment a training step peaks: one classification, measured or predicted."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from stepcost.schema import stored

PARAMETER, BUFFER, GRADIENT, STATE, INPUT = "parameter", "buffer", "gradient", "optimizer_state", "input"
ACTIVATION, WORKSPACE, PARALLEL = "activation", "workspace", "parallel"
ALLOCATED = (PARAMETER, BUFFER, GRADIENT, STATE, INPUT, ACTIVATION, PARALLEL, WORKSPACE)
"""The kinds of allocated memory."""
ALWAYS = -1
"""``born`` of an allocation that was there before the step."""


@dataclass(frozen=True, kw_only=True)
class Ledger:
    """Where every byte of a process is at the moment allocated memory peaks.

    The first eight parts add up to the peak of allocated memory exactly; with
    ``slack_bytes`` to reserved memory; with ``context_bytes`` to the process.
    All sizes are what the caching allocator counts (512-byte rounding included).
    """

    parameter_bytes: int | None = stored("weights")
    buffer_bytes: int | None = stored("buffers, such as batch-norm statistics")
    gradient_bytes: int | None = stored("gradients that are alive at the peak")
    optimizer_state_bytes: int | None = stored("what the optimizer keeps between steps")
    input_bytes: int | None = stored("the batch")
    activation_bytes: int | None = stored("kept for backward, as far as still alive at the peak")
    parallel_bytes: int | None = stored(
        "what several GPUs add: the buckets of DDP; the parameters that FSDP gathers, with the buffers of "
        "its collectives"
    )
    workspace_bytes: int | None = stored("all else: workspaces of cuDNN and cuBLAS, and temporaries")
    slack_bytes: int | None = stored("reserved at the peak less allocated at the peak")
    context_bytes: int | None = stored("the process less what it has reserved", follows="driver")

    @property
    def allocated_bytes(self) -> int:
        """Sum of the eight parts that are allocated memory."""
        return sum(getattr(self, f"{kind}_bytes") for kind in ALLOCATED)


@dataclass(slots=True)
class Allocation:
    """One block in use: from event ``born`` until event ``died`` of a step (``None``: still at its end)."""

    bytes: int
    """As the allocator counts it: rounded, and whole where the block was not split."""
    born: int
    kind: str | None = None
    """What is known of it; ``None`` leaves it to ``kind_of``."""
    died: int | None = None

    def lives_at(self, event: int) -> bool:
        """Is it in use right after ``event``?"""
        return self.born <= event and (self.died is None or self.died > event)


@dataclass(frozen=True, kw_only=True)
class Peak:
    """The highest moment of a step."""

    event: int
    allocated_bytes: int
    ledger: Ledger


def kind_of(allocation: Allocation, forward_ends: Sequence[int]) -> str:
    """Return what an allocation is: as known, else kept for backward, else workspace or temporary.

    ``forward_ends`` are the indices of the last event of each forward phase; a step has one a micro-batch.
    """
    if allocation.kind is not None:
        return allocation.kind
    if allocation.born != ALWAYS and any(allocation.lives_at(end) for end in forward_ends):
        return ACTIVATION
    return WORKSPACE


def ledger_at_peak(
    allocations: Iterable[Allocation],
    *,
    forward_ends: Sequence[int],
    reserved_bytes: int,
    context_bytes: int | None,
) -> Peak:
    """Find the first moment at which most bytes are allocated, and say what they are.

    ``reserved_bytes`` is the peak of reserved memory in the step; the slack is what of it
    was not allocated.
    """
    blocks = list(allocations)
    change: dict[int, int] = {}
    for block in blocks:
        change[block.born] = change.get(block.born, 0) + block.bytes
        if block.died is not None:
            change[block.died] = change.get(block.died, 0) - block.bytes
    allocated = highest = 0
    at = ALWAYS
    for event in sorted(change):
        allocated += change[event]
        if allocated > highest:
            highest, at = allocated, event
    parts: dict[str, int] = dict.fromkeys(ALLOCATED, 0)
    for block in blocks:
        if block.lives_at(at):
            parts[kind_of(block, forward_ends)] += block.bytes
    ledger = Ledger(
        **{f"{kind}_bytes": size for kind, size in parts.items()},
        slack_bytes=reserved_bytes - highest,
        context_bytes=context_bytes,
    )
    return Peak(event=at, allocated_bytes=highest, ledger=ledger)

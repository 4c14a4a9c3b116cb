"""What a GPU's caching allocator did in a training step, event by event, and what its peak was made of.

A history is recorded on a GPU (``stepcost.measuring.recording``) and replayed anywhere.
"""

from __future__ import annotations

import gzip
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from stepcost.allocator.caching import SMALL_SEGMENT_BYTES, Block, CachingAllocator
from stepcost.ledger import ALWAYS, Allocation, Peak, ledger_at_peak
from stepcost.reading import FORWARD


class HistoryUnavailable(Exception):
    """The allocator's history cannot be recorded or replayed here; the message says why."""


@dataclass(frozen=True, kw_only=True)
class History:
    """Everything one GPU's caching allocator did between two moments, as plain data in bytes."""

    segments: list[tuple[int, list[tuple[int, bool]]]]
    """At the start: each segment's address and its ``(bytes, in use)`` blocks."""
    events: list[tuple[str, int, int]]
    """``(action, address, requested bytes)``: ``alloc``, ``free``, ``segment_alloc``, ``segment_free``."""
    marks: list[tuple[str, int]]
    """Named moments, each with how many events there were before it."""
    kinds: dict[int, str] = field(default_factory=dict)
    """Address to what was known to live there at the start."""
    kinds_after: dict[int, str] = field(default_factory=dict)
    """Address to what was known to live there at the end."""
    kinds_born: dict[int, str] = field(default_factory=dict)
    """Number of an event that allocates to what is known of it by where it was asked for."""
    about: dict[str, Any] = field(default_factory=dict)
    """Versions, the configuration, and the allocator's own counters to check a replay against."""


def allocations_of(history: History) -> tuple[list[Allocation], CachingAllocator]:
    """Replay a recorded history at its own addresses: every allocation, with the bytes counted for it.

    The events carry requested bytes; what is counted depends on the splits, which follow from
    the addresses. Returns the allocator too, for its counters.
    """
    allocator = CachingAllocator()
    alive: dict[int, tuple[Block, Allocation]] = {}
    done: list[Allocation] = []
    for address, blocks in history.segments:
        small = sum(size for size, _ in blocks) == SMALL_SEGMENT_BYTES
        for block in allocator.load_segment(address, small, blocks):
            kind = history.kinds.get(block.address)
            alive[block.address] = block, Allocation(block.bytes, ALWAYS, kind)
    allocator.reset_peaks()
    try:
        for event, (action, address, size) in enumerate(history.events):
            if action == "alloc":
                block = allocator.allocate_at(address, size)
                alive[address] = block, Allocation(block.bytes, event, history.kinds_born.get(event))
            elif action == "free":
                block, allocation = alive.pop(address)
                allocation.died = event
                done.append(allocation)
                allocator.free(block)
            elif action == "segment_alloc":
                allocator.add_segment(address, size, size == SMALL_SEGMENT_BYTES)
            else:
                allocator.remove_segment(address)
    except (KeyError, ValueError) as error:
        raise HistoryUnavailable(
            f"event {event} ({action} of {size} bytes) cannot be replayed: {error!r}"
        ) from error
    for address, (_, allocation) in alive.items():
        if allocation.kind is None or allocation.born != ALWAYS:
            allocation.kind = history.kinds_after.get(address, allocation.kind)
    return done + [allocation for _, allocation in alive.values()], allocator


def forward_ends(history: History) -> list[int]:
    """Return the index of the last event of each forward phase."""
    return [count - 1 for name, count in history.marks if name == FORWARD]


def peak_of(history: History, context_bytes: int | None) -> Peak:
    """Return the ledger of a step recorded by ``record_step``, checked against the allocator's counter."""
    allocations, allocator = allocations_of(history)
    peak = ledger_at_peak(
        allocations,
        forward_ends=forward_ends(history),
        reserved_bytes=allocator.peak_reserved_bytes,
        context_bytes=context_bytes,
    )
    counted = history.about["peak_allocated_bytes"]
    if peak.allocated_bytes != counted:
        raise HistoryUnavailable(
            f"the parts add up to {peak.allocated_bytes} bytes, the allocator counted {counted}"
        )
    return peak


def save(history: History, path: Path) -> None:
    """Write a history as gzipped JSON."""
    path.write_bytes(gzip.compress(json.dumps(asdict(history), separators=(",", ":")).encode(), mtime=0))


def load(path: Path) -> History:
    """Read a history written by ``save``."""
    with gzip.open(path, "rt") as file:
        data = json.load(file)
    return History(
        segments=[(address, [(size, used) for size, used in blocks]) for address, blocks in data["segments"]],
        events=[(action, address, size) for action, address, size in data["events"]],
        marks=[(name, count) for name, count in data["marks"]],
        kinds={int(address): kind for address, kind in data["kinds"].items()},
        kinds_after={int(address): kind for address, kind in data["kinds_after"].items()},
        about=data["about"],
    )

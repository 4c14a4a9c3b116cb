"""The simulated allocator with several streams."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepcost.allocator.caching import CachingAllocator, OutOfMemory

MIB = 2**20
# On a stream, a request of so many bytes, or a free of its n-th block in use.
programs = st.lists(
    st.tuples(st.integers(0, 3), st.one_of(st.integers(1, 40 * MIB), st.integers(-50, -1))), max_size=150
)


@given(programs)
def test_blocks_never_cross_streams(program: list[tuple[int, int]]) -> None:
    """Whatever is asked and freed, every block lies in a segment that was made for its stream."""
    allocator = CachingAllocator(300 * MIB)
    segments: dict[int, tuple[int, int]] = {}
    now = 0

    def note(action: str, address: int, size: int) -> None:
        if action == "alloc":
            segments[address] = size, now
        else:
            del segments[address]

    allocator.on_segment = note
    used: dict[int, list[object]] = {}
    for now, number in program:
        blocks = used.setdefault(now, [])
        if number > 0:
            try:
                block = allocator.allocate(number, now)
            except OutOfMemory:
                continue
            owners = [
                stream for first, (size, stream) in segments.items() if first <= block.address < first + size
            ]
            assert owners == [now]
            blocks.append(block)
        elif blocks:
            allocator.free(blocks.pop(number % len(blocks)))  # type: ignore[arg-type]


@pytest.mark.parametrize(("size", "segment"), [(512, 2 * MIB), (2 * MIB, 20 * MIB), (30 * MIB, 30 * MIB)])
def test_what_one_stream_frees_another_does_not_take(size: int, segment: int) -> None:
    """A second stream gets a segment although the first has as much free; later each finds its own."""
    allocator = CachingAllocator()
    first = allocator.allocate(size)
    address = first.address
    allocator.free(first)
    other = allocator.allocate(size, 1)
    assert allocator.reserved_bytes == 2 * segment
    assert other.address != address
    assert allocator.allocate(size).address == address
    allocator.free(other)
    assert allocator.allocate(size, 1).address == other.address
    assert allocator.reserved_bytes == 2 * segment


def test_cached_segments_of_all_streams_are_given_back_before_giving_up() -> None:
    """Where there is no room, what other streams have cached goes back to the driver, not what they use."""
    allocator = CachingAllocator(100 * MIB)
    allocator.free(allocator.allocate(40 * MIB, 1))
    kept = allocator.allocate(20 * MIB, 2)
    allocator.free(allocator.allocate(30 * MIB, 3))
    allocator.allocate(80 * MIB)
    assert allocator.reserved_bytes == 100 * MIB
    assert not kept.free
    with pytest.raises(OutOfMemory):
        allocator.allocate(2 * MIB, 1)

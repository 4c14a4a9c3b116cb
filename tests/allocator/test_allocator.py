from __future__ import annotations

import contextlib
import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stepcost.allocator.caching import Block, CachingAllocator, OutOfMemory, rounded, segment_bytes

KIB, MIB = 2**10, 2**20

sizes = st.one_of(
    st.integers(1, 4 * KIB),
    st.integers(MIB - 600, MIB + 600),
    st.integers(1, 12 * MIB),
    st.integers(9 * MIB, 70 * MIB),
)
# A request of so many bytes, or a free of the n-th block in use.
programs = st.lists(st.one_of(sizes, st.integers(-50, -1)), max_size=150)


def run(allocator: CachingAllocator, program: list[int]) -> list[Block]:
    """Run a program and return the blocks in use at its end; nothing happens where none can be freed."""
    used: list[Block] = []
    for number in program:
        if number > 0:
            used.append(allocator.allocate(number))
            assert used[-1].bytes >= number
        elif used:
            allocator.free(used.pop(number % len(used)))
        assert sum(block.bytes for block in used) == allocator.allocated_bytes
        assert allocator.allocated_bytes <= allocator.reserved_bytes
        assert allocator.peak_allocated_bytes >= allocator.allocated_bytes
        assert allocator.peak_reserved_bytes >= allocator.reserved_bytes
    return used


@given(programs)
def test_blocks_never_overlap_and_bytes_are_conserved(program: list[int]) -> None:
    """Whatever is asked, blocks in use are disjoint and counted once, and reserved covers allocated."""
    used = sorted(run(CachingAllocator(), program), key=lambda block: block.address)
    for block, behind in itertools.pairwise(used):
        assert block.address + block.bytes <= behind.address


@given(programs)
def test_freeing_all_and_emptying_returns_to_zero(program: list[int]) -> None:
    """After freeing every block and emptying the cache nothing is allocated or reserved."""
    allocator = CachingAllocator()
    for block in run(allocator, program):
        allocator.free(block)
    assert allocator.allocated_bytes == 0
    allocator.empty_cache()
    assert allocator.reserved_bytes == 0


@settings(max_examples=50)
@given(programs)
def test_all_blocks_tile_the_segments(program: list[int]) -> None:
    """Walking from neighbour to neighbour through a segment covers it without gaps, no two free in a row."""
    allocator = CachingAllocator()
    segments: dict[int, int] = {}

    def note(action: str, address: int, size: int) -> None:
        if action == "alloc":
            segments[address] = size

    allocator.on_segment = note
    used = run(allocator, program)
    for block in used:
        first = block
        while first.before is not None:
            first = first.before
        walked, at, last_free = 0, first, False
        while True:
            assert at.address == first.address + walked
            assert not (at.free and last_free)
            walked, last_free = walked + at.bytes, at.free
            if at.behind is None:
                break
            at = at.behind
        assert walked == segments[first.address]


@given(programs, st.integers(20, 200))
def test_reserved_stays_within_the_capacity(program: list[int], capacity_mib: int) -> None:
    """With a capacity, reserved memory never exceeds it: the allocator says so instead."""
    allocator = CachingAllocator(capacity_mib * MIB)
    with contextlib.suppress(OutOfMemory):
        run(allocator, program)
    assert allocator.peak_reserved_bytes <= capacity_mib * MIB


@pytest.mark.parametrize(
    ("size", "block", "segment"),
    [
        (1, 512, 2 * MIB),
        (512, 512, 2 * MIB),
        (513, 1024, 2 * MIB),
        (MIB, MIB, 2 * MIB),
        (MIB + 1, MIB + 512, 20 * MIB),
        (10 * MIB - 512, 10 * MIB - 512, 20 * MIB),
        (10 * MIB, 10 * MIB, 10 * MIB),
        (10 * MIB + 1, 10 * MIB + 512, 12 * MIB),
    ],
)
def test_sizes_are_rounded_as_in_torch(size: int, block: int, segment: int) -> None:
    """Blocks are multiples of 512 bytes; segments are 2 MiB, 20 MiB or multiples of 2 MiB."""
    assert rounded(size) == block
    assert segment_bytes(block) == segment


def test_small_blocks_are_split_to_the_last_512_bytes() -> None:
    """A small block leaves what it does not need to others, down to 512 bytes."""
    allocator = CachingAllocator()
    allocator.allocate(MIB)
    allocator.allocate(MIB - 512)
    allocator.allocate(512)
    assert allocator.allocated_bytes == allocator.reserved_bytes == 2 * MIB


def test_a_large_block_is_kept_whole_unless_more_than_a_mebibyte_remains() -> None:
    """An unsplit block is counted whole: 19 MiB of 20 are charged as 20, and 18.9 as 18.9."""
    whole, split = CachingAllocator(), CachingAllocator()
    for allocator in (whole, split):
        allocator.free(allocator.allocate(20 * MIB))
    assert whole.allocate(19 * MIB).bytes == 20 * MIB
    assert split.allocate(19 * MIB - 512).bytes == 19 * MIB - 512


def test_the_smallest_block_that_fits_is_taken() -> None:
    """Of two free blocks the smaller one that is large enough serves the request."""
    allocator = CachingAllocator()
    large, small = allocator.allocate(40 * MIB), allocator.allocate(30 * MIB)
    address = small.address
    allocator.free(large)
    allocator.free(small)
    assert allocator.allocate(25 * MIB).address == address


def test_cached_segments_are_given_back_before_giving_up() -> None:
    """A request that finds no room takes the cached segments back first, and fails only then."""
    allocator = CachingAllocator(100 * MIB)
    allocator.free(allocator.allocate(60 * MIB))
    allocator.allocate(80 * MIB)
    assert allocator.reserved_bytes == 80 * MIB
    with pytest.raises(OutOfMemory):
        allocator.allocate(30 * MIB)


def test_freeing_twice_is_an_error() -> None:
    """A block that is free cannot be freed."""
    allocator = CachingAllocator()
    block = allocator.allocate(1)
    allocator.free(block)
    with pytest.raises(ValueError, match="already free"):
        allocator.free(block)


def test_requests_that_make_no_sense_are_refused() -> None:
    """Fewer than one byte, a block that is not there, and one that is too small say so."""
    allocator = CachingAllocator()
    with pytest.raises(ValueError, match="at least one byte, not 0"):
        allocator.allocate(0)
    allocator.add_segment(4096, 2 * MIB, small=True)
    with pytest.raises(KeyError):
        allocator.allocate_at(4097, 512)
    with pytest.raises(ValueError, match="the free block at 0x1000 has 2097152 bytes, not 2097664"):
        allocator.allocate_at(4096, 2 * MIB + 1)
    assert allocator.allocate_at(4096, 2 * MIB).bytes == 2 * MIB


def test_the_capacity_is_reached_and_not_exceeded() -> None:
    """A segment that fills the capacity is given; where a byte is short, the message has all sizes."""
    filled = CachingAllocator(2 * MIB)
    assert filled.allocate(512).bytes == 512
    with pytest.raises(OutOfMemory, match="20,971,520 bytes on top of 2,097,152 reserved exceed 2,097,152"):
        filled.allocate(2 * MIB)
    with pytest.raises(OutOfMemory):
        CachingAllocator(2 * MIB - 1).allocate(512)


def test_only_segments_that_are_wholly_free_are_given_back() -> None:
    """A segment with a block in use stays, at either end; what comes and goes is told with its bytes."""
    allocator = CachingAllocator()
    told: list[tuple[str, int, int]] = []
    allocator.on_segment = lambda *said: told.append(said)
    first, second = allocator.allocate(512), allocator.allocate(MIB)
    allocator.free(first)
    allocator.empty_cache()
    assert allocator.reserved_bytes == 2 * MIB
    again = allocator.allocate(512)
    allocator.free(second)
    allocator.empty_cache()
    assert allocator.reserved_bytes == 2 * MIB
    address = again.address
    allocator.free(again)
    allocator.empty_cache()
    assert told == [("alloc", address, 2 * MIB), ("free", address, 2 * MIB)]
    assert (allocator.allocated_bytes, allocator.reserved_bytes) == (0, 0)
    assert (allocator.peak_allocated_bytes, allocator.peak_reserved_bytes) == (MIB + 512, 2 * MIB)


def test_a_recorded_segment_is_taken_over() -> None:
    """Its blocks in use are counted, neighbours merge as they are freed, and nothing is left at its end."""
    allocator = CachingAllocator()
    small = allocator.load_segment(0, True, [(512, True), (1024, False), (2 * MIB - 1536, True)])
    large = allocator.load_segment(2**30, False, [(20 * MIB, True)])
    assert [(block.address, block.bytes) for block in (*small, *large)] == [
        (0, 512), (1536, 2 * MIB - 1536), (2**30, 20 * MIB)
    ]  # fmt: skip
    assert allocator.allocated_bytes == allocator.peak_allocated_bytes == 22 * MIB - 1024
    assert allocator.reserved_bytes == 22 * MIB
    assert small[0].behind is not None
    assert small[0].behind.behind is small[1]
    assert small[1].behind is None
    allocator.free(small[1])
    allocator.free(small[0])
    assert allocator.allocate_at(0, 2 * MIB).bytes == 2 * MIB
    allocator.free(large[0])
    allocator.empty_cache()
    assert allocator.reserved_bytes == 2 * MIB

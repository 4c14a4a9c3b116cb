"""PyTorch's CUDA caching allocator, in pure Python: where each request goes and what is reserved for it.

The rules are those of ``c10/cuda/CUDACachingAllocator.cpp`` with its default settings. Blocks of
streams are kept apart. Given the same requests in the same order it makes the same segments and the same
splits; ``tests/predicting`` compares it with histories recorded on GPUs.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Callable, Sequence

from stepcost.allocator.addresses import AddressSpace

MIN_BLOCK_BYTES = 512
"""Every size is rounded up to a multiple of this."""
SMALL_BYTES = 1 << 20
"""Requests up to this size (rounded) are served from the small pool."""
SMALL_SEGMENT_BYTES = 2 << 20
LARGE_SEGMENT_BYTES = 20 << 20
MIN_OWN_SEGMENT_BYTES = 10 << 20
"""Requests from this size on get a segment of their own size, rounded up to 2 MiB."""


class OutOfMemory(Exception):
    """A segment is needed that does not fit the capacity, even with all cached segments released."""


class Block:
    """A stretch of one segment, in use or free; neighbours are linked so that free ones merge."""

    __slots__ = ("address", "before", "behind", "bytes", "free", "small", "stream")

    def __init__(self, address: int, size_bytes: int, small: bool, stream: int = 0) -> None:
        self.address = address
        self.bytes = size_bytes
        self.small = small
        self.stream = stream
        self.free = True
        self.before: Block | None = None
        self.behind: Block | None = None


def rounded(size_bytes: int) -> int:
    """Bytes the allocator looks for when asked for ``size_bytes``: the next multiple of 512."""
    return max(MIN_BLOCK_BYTES, -(-size_bytes // MIN_BLOCK_BYTES) * MIN_BLOCK_BYTES)


def segment_bytes(block_bytes: int) -> int:
    """Bytes asked of the driver for a block of ``block_bytes`` (rounded) that no cached block can hold."""
    if block_bytes <= SMALL_BYTES:
        return SMALL_SEGMENT_BYTES
    if block_bytes < MIN_OWN_SEGMENT_BYTES:
        return LARGE_SEGMENT_BYTES
    return -(-block_bytes // SMALL_SEGMENT_BYTES) * SMALL_SEGMENT_BYTES


class CachingAllocator:
    """Serve requests as the CUDA caching allocator would; all sizes in bytes.

    ``capacity_bytes`` is what the driver could give in segments; ``None`` is without end.
    """

    def __init__(self, capacity_bytes: int | None = None) -> None:
        self.capacity_bytes = capacity_bytes
        self.allocated_bytes = 0
        self.reserved_bytes = 0
        self.peak_allocated_bytes = 0
        self.peak_reserved_bytes = 0
        self.retries = 0
        """How often all cached segments were given back to go on (torch's ``num_alloc_retries``)."""
        self._addresses = AddressSpace()
        # Per pool and stream, (bytes, address) of its free blocks in order: a bisection finds the best fit.
        self._free: defaultdict[tuple[bool, int], list[tuple[int, int]]] = defaultdict(list)
        self._free_at: dict[int, Block] = {}
        self.on_segment: Callable[[str, int, int], None] | None = None
        """Called with ``alloc`` or ``free``, address and bytes of every segment (for comparisons)."""

    def allocate(self, size_bytes: int, stream: int = 0) -> Block:
        """Return the block that serves ``size_bytes`` (1 or more) on a stream; raise ``OutOfMemory``.

        A segment belongs to the stream that it was made for, and so do its blocks for ever.
        """
        if size_bytes < 1:
            raise ValueError(f"an allocation needs at least one byte, not {size_bytes}")
        wanted = rounded(size_bytes)
        small = wanted <= SMALL_BYTES
        free = self._free[small, stream]
        index = bisect_left(free, (wanted, -1))
        if index < len(free):
            return self._take(self._free_at[free[index][1]], wanted)
        return self._take(self._new_segment(wanted, small, stream), wanted)

    def allocate_at(self, address: int, size_bytes: int) -> Block:
        """Serve ``size_bytes`` from the free block that starts at ``address`` (to replay a recording).

        Raises ``KeyError`` where no free block starts there and ``ValueError`` where it is too small.
        """
        block = self._free_at[address]
        wanted = rounded(size_bytes)
        if block.bytes < wanted:
            raise ValueError(f"the free block at {address:#x} has {block.bytes} bytes, not {wanted}")
        return self._take(block, wanted)

    def add_segment(self, address: int, size_bytes: int, small: bool, stream: int = 0) -> Block:
        """Reserve a segment at ``address`` for a stream; it is one free block."""
        self.reserved_bytes += size_bytes
        self.peak_reserved_bytes = max(self.peak_reserved_bytes, self.reserved_bytes)
        block = Block(address, size_bytes, small, stream)
        self._add_free(block)
        if self.on_segment is not None:
            self.on_segment("alloc", address, size_bytes)
        return block

    def load_segment(self, address: int, small: bool, blocks: Sequence[tuple[int, bool]]) -> list[Block]:
        """Take over a recorded segment of ``(bytes, in use)`` blocks; return those in use."""
        block = self.add_segment(address, sum(size for size, _ in blocks), small)
        used = []
        for size, in_use in blocks:
            behind = Block(block.address + size, block.bytes - size, small) if block.bytes > size else None
            self._drop_free(block)
            block.bytes = size
            if behind is not None:
                behind.before, block.behind = block, behind
                self._add_free(behind)
            if in_use:
                block.free = False
                self.allocated_bytes += size
                used.append(block)
            else:
                self._add_free(block)
            if behind is not None:
                block = behind
        self.peak_allocated_bytes = max(self.peak_allocated_bytes, self.allocated_bytes)
        return used

    def free(self, block: Block) -> None:
        """Give ``block`` back to the cache, merged with its free neighbours."""
        if block.free:
            raise ValueError(f"the block at {block.address:#x} is already free")
        self.allocated_bytes -= block.bytes
        before, behind = block.before, block.behind
        if before is not None and before.free:
            self._drop_free(before)
            block.address = before.address
            block.bytes += before.bytes
            block.before = before.before
            if block.before is not None:
                block.before.behind = block
        if behind is not None and behind.free:
            self._drop_free(behind)
            block.bytes += behind.bytes
            block.behind = behind.behind
            if block.behind is not None:
                block.behind.before = block
        self._add_free(block)

    def empty_cache(self) -> None:
        """Give every segment without a block in use back to the driver."""
        for block in list(self._free_at.values()):
            if block.before is None and block.behind is None:
                self.remove_segment(block.address)
                self._addresses.give(block.address, block.bytes)

    def remove_segment(self, address: int) -> None:
        """Give the wholly free segment at ``address`` back to the driver."""
        block = self._free_at[address]
        self._drop_free(block)
        self.reserved_bytes -= block.bytes
        if self.on_segment is not None:
            self.on_segment("free", address, block.bytes)

    def reset_peaks(self) -> None:
        """Let both peaks start again from what is allocated and reserved now."""
        self.peak_allocated_bytes = self.allocated_bytes
        self.peak_reserved_bytes = self.reserved_bytes

    def _take(self, block: Block, wanted: int) -> Block:
        """Use ``block`` for ``wanted`` bytes; what remains is split off where the pool's rule says so."""
        self._drop_free(block)
        remaining = block.bytes - wanted
        if remaining >= MIN_BLOCK_BYTES if block.small else remaining > SMALL_BYTES:
            rest = Block(block.address + wanted, remaining, block.small, block.stream)
            rest.before, rest.behind = block, block.behind
            if rest.behind is not None:
                rest.behind.before = rest
            block.behind = rest
            block.bytes = wanted
            self._add_free(rest)
        block.free = False
        # An unsplit block counts whole: a program is charged for what it keeps from others.
        self.allocated_bytes += block.bytes
        self.peak_allocated_bytes = max(self.peak_allocated_bytes, self.allocated_bytes)
        return block

    def _new_segment(self, wanted: int, small: bool, stream: int) -> Block:
        size = segment_bytes(wanted)
        if not self._fits(size):
            self.retries += 1
            self.empty_cache()
            if not self._fits(size):
                raise OutOfMemory(
                    f"{size:,} bytes on top of {self.reserved_bytes:,} reserved "
                    f"exceed {self.capacity_bytes:,}"
                )
        return self.add_segment(self._addresses.take(size), size, small, stream)

    def _fits(self, size_bytes: int) -> bool:
        return self.capacity_bytes is None or self.reserved_bytes + size_bytes <= self.capacity_bytes

    def _add_free(self, block: Block) -> None:
        block.free = True
        insort(self._free[block.small, block.stream], (block.bytes, block.address))
        self._free_at[block.address] = block

    def _drop_free(self, block: Block) -> None:
        free = self._free[block.small, block.stream]
        del free[bisect_left(free, (block.bytes, block.address))]
        del self._free_at[block.address]

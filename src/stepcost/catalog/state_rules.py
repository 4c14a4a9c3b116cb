"""What optimizers keep whose state is no whole number of tensors of each parameter's shape."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

StateRule = Callable[[Iterable[tuple[int, ...]], int], int]
"""Bytes of state for parameters of some shapes, with elements of so many bytes."""
LEAST_FOR_8_BIT = 4096
"""Parameters with fewer elements keep their state in float32 (bitsandbytes' ``min_8bit_size``)."""
BLOCK = 256
"""Elements that share a scale in float32."""
CODES_BYTES = 2 * 256 * 4
"""The values that 8 bits stand for, signed and unsigned: one table each for the whole optimizer."""


def factored(shapes: Iterable[tuple[int, ...]], element_bytes: int) -> int:
    """Of a matrix the mean squares of its rows and columns, of a vector each square (Adafactor).

    In more dimensions the last two are the matrix.
    """
    count = 0
    for shape in shapes:
        if len(shape) > 1:
            *outer, rows, columns = shape
            count += math.prod(outer) * (rows + columns)
        else:
            count += math.prod(shape)
    return count * element_bytes


def moments_in_8_bit(shapes: Iterable[tuple[int, ...]], element_bytes: int) -> int:
    """Two moments of a byte an element, with a scale a block, whatever the parameter's own numbers are."""
    counts = [math.prod(shape) for shape in shapes]
    large = [count for count in counts if count >= LEAST_FOR_8_BIT]
    small = sum(counts) - sum(large)
    scales = sum(-(-count // BLOCK) for count in large)
    return 2 * (sum(large) + 4 * scales + 4 * small) + (CODES_BYTES if large else 0)

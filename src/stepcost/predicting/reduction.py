"""Scratch memory of CUDA's reductions: partial results across thread blocks, and their semaphores."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from stepcost.predicting.tape import REDUCTION, Rule, Tape

aten = torch.ops.aten
WARP = 32
MAX_THREADS = 512
VALUES_PER_THREAD = (16, 256)
"""A block takes at least and at most so many values per thread before the sum is split over blocks."""
VECTOR = 4
"""Values that one thread reads, or results that it makes, at a time, where these lie together."""
WELFORD_BYTES = 16
"""Mean, sum of squares and twice the count, while a deviation is computed."""


@dataclass(frozen=True, slots=True)
class Reduction:
    """A reduction over some dimensions, as ``aten/src/ATen/native/cuda/Reduce.cuh`` looks at it."""

    outputs: int
    inputs_per_output: int
    along_fastest: bool
    """Whether the dimension with the smallest stride is reduced."""
    output_vector: int
    """Results that one thread makes at a time: 4, 2 or 1."""
    input_vector: int
    result_bytes: int = 4
    """Of a partial result."""

    def scratch_bytes(self, multiprocessors: int, threads_per_multiprocessor: int) -> tuple[int, int]:
        """Bytes of partial results and of semaphores on a card; zeros where nothing is split over blocks."""
        if not multiprocessors:
            return 0, 0
        across, down = self.outputs, self.inputs_per_output
        if self.along_fastest:
            across, down = down, across
        across //= self.input_vector if self.along_fastest else self.output_vector
        threads = MAX_THREADS // self.output_vector
        widest, highest = (min(threads, _power_of_two(length)) for length in (across, down))
        height = min(highest, threads // min(widest, WARP))
        width = min(widest, threads // height)
        steps, outputs_per_block = 1, 1
        if self.along_fastest:
            steps *= width
        else:
            outputs_per_block *= width
        values = _ceil(self.inputs_per_output, steps)
        split_in_block = values >= min(height * 16, VALUES_PER_THREAD[1])
        if split_in_block:
            steps *= height
        else:
            outputs_per_block *= height
        values = _ceil(self.inputs_per_output, steps)
        grid = _ceil(self.outputs // self.output_vector, outputs_per_block)
        target = multiprocessors * (threads_per_multiprocessor // (width * height))
        if not split_in_block or values < VALUES_PER_THREAD[1] or grid > target:
            return 0, 0
        blocks = max(
            min(_ceil(target, grid), _ceil(values, VALUES_PER_THREAD[0])), _ceil(values, VALUES_PER_THREAD[1])
        )
        if blocks == 1:
            return 0, 0
        partial = self.result_bytes * self.outputs * blocks
        if not self.along_fastest:
            partial *= width * self.output_vector
        return partial, 4 * grid


@dataclass(slots=True)
class _Side:
    """A dimension as torch's ``TensorIterator`` has it; strides in values."""

    size: int
    made: int
    """Stride of the result; 0 where the dimension is reduced."""
    read: int
    """Stride of what is reduced."""


def describe(
    tensor: torch.Tensor, dims: list[int], *, result_bytes: int | None = None, reads_vectors: bool = True
) -> Reduction | None:
    """Describe the reduction of ``tensor`` over ``dims`` (none: over all); ``None`` where nothing is read.

    ``result_bytes`` is the size of a partial result: by default, a sum's. ``reads_vectors`` says whether a
    thread may read several values at a time.
    """
    if tensor.numel() == 0:
        return None
    if result_bytes is None:
        result_bytes = 8 if tensor.element_size() == 8 or not tensor.is_floating_point() else 4
    reduced = {dim % tensor.dim() for dim in dims} if dims else set(range(tensor.dim()))
    sides = _merged(_ordered(_sides(tensor, reduced)))
    inner = [side for side in sides if side.made == 0]
    outer = sides[len(inner) :]
    inputs = 1
    for side in inner:
        inputs *= side.size
    along_fastest = not outer or (bool(inner) and inner[0].read < outer[0].read)
    fastest = (inner if along_fastest else outer)[0].read if sides else 0
    output_vector = input_vector = 1
    if fastest == 1 and along_fastest and inputs > 128 and len(sides) == 1 and reads_vectors:
        input_vector = VECTOR
    if fastest == 1 and not along_fastest:
        output_vector = VECTOR
        for number in (outer[0].size, *(side.read for side in sides if side is not outer[0])):
            while number % output_vector:
                output_vector //= 2
    return Reduction(
        outputs=tensor.numel() // inputs,
        inputs_per_output=inputs,
        along_fastest=along_fastest,
        output_vector=output_vector,
        input_vector=input_vector,
        result_bytes=result_bytes,
    )


def _sides(tensor: torch.Tensor, reduced: set[int]) -> list[_Side]:
    """Dimensions from the last to the first, the result contiguous."""
    found, made = [], 1
    for dim in reversed(range(tensor.dim())):
        size = tensor.shape[dim]
        found.append(_Side(size, 0 if dim in reduced else made, tensor.stride(dim)))
        if dim not in reduced:
            made *= size
    return found


def _ordered(sides: list[_Side]) -> list[_Side]:
    """Put reduced dimensions first, each group by strides (``TensorIteratorBase::reorder_dimensions``)."""
    sides = list(sides)
    for start in range(1, len(sides)):
        at = start
        for before in range(start - 1, -1, -1):
            comparison = _compare(sides[before], sides[at])
            if comparison > 0:
                sides[before], sides[at] = sides[at], sides[before]
                at = before
            elif comparison < 0:
                break
    return sides


def _compare(one: _Side, other: _Side) -> int:
    """Say by a positive number that ``one`` belongs behind ``other``, by a negative one that it does not."""
    if (one.made == 0) != (other.made == 0):
        return 1 if other.made == 0 else -1
    for first, second in ((one.made, other.made), (one.read, other.read)):
        if first == 0 or second == 0:
            continue
        if first != second:
            return 1 if first > second else -1
        if one.size > other.size:
            return 1
    return 0


def _merged(sides: list[_Side]) -> list[_Side]:
    """Take neighbours that lie together in memory as one (``TensorIteratorBase::coalesce_dimensions``)."""
    made: list[_Side] = []
    for side in sides:
        last = made[-1] if made else None
        if last is None:
            made.append(_Side(side.size, side.made, side.read))
        elif last.size == 1 or side.size == 1:
            if last.size == 1:
                last.made, last.read = side.made, side.read
            last.size *= side.size
        elif last.size * last.made == side.made and last.size * last.read == side.read:
            last.size *= side.size
        else:
            made.append(_Side(side.size, side.made, side.read))
    return made


def _ceil(number: int, by: int) -> int:
    return -(-number // by)


def _power_of_two(number: int) -> int:
    """Return the largest power of two that is not above ``number`` (1 or more)."""
    return 1 << (max(1, number).bit_length() - 1)


def note_reduction(tape: Tape, tensor: torch.Tensor, dims: list[int], **details: Any) -> None:
    """Write down the scratch that a reduction of ``tensor`` over ``dims`` takes, if it takes any."""
    described = describe(tensor, dims, **details) if tensor.is_meta else None
    if described is not None:
        tape.events.append((REDUCTION, described, None))


def _rule(details: Callable[[torch.Tensor], dict[str, Any]]) -> Rule:
    """Make the output; a long reduction is split over blocks, which need memory to meet in."""

    def rule(tape: Tape, func: Any, tensor: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        names = [one.name for one in func._schema.arguments[1:]]
        dims = (dict(zip(names, args, strict=False)) | kwargs).get("dim")
        made = func(tensor, *args, **kwargs)
        tape.note(made)
        first = made[0] if isinstance(made, tuple) else made
        converted = first.dtype != tensor.dtype and not (
            tensor.is_floating_point() and first.dtype == torch.float32
        )
        copied = [tensor.numel() * first.element_size()] if converted and first.dtype != torch.bool else []
        with tape.holding(*copied):
            note_reduction(
                tape, tensor, [dims] if isinstance(dims, int) else list(dims or []), **details(tensor)
            )
        return made

    return rule


_sum = _rule(lambda _: {})
_extreme = _rule(lambda tensor: {"result_bytes": tensor.element_size()})
_deviation = _rule(lambda _: {"result_bytes": WELFORD_BYTES, "reads_vectors": False})

REDUCTION_RULES: dict[Any, Rule] = {
    **dict.fromkeys((aten.sum.default, aten.sum.dim_IntList, aten.sum.IntList_out), _sum),
    **dict.fromkeys((aten.mean.default, aten.mean.dim, aten.linalg_vector_norm.default), _sum),
    **dict.fromkeys((aten.amax.default, aten.amin.default, aten.max.default, aten.min.default), _extreme),
    **dict.fromkeys((aten.std.correction, aten.var.correction), _deviation),
}

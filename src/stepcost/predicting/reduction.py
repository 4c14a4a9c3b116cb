"""Scratch memory of CUDA's sums and means: partial sums across thread blocks, and their semaphores."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from stepcost.predicting.tape import REDUCTION, Tape

WARP = 32
MAX_THREADS = 512
VALUES_PER_THREAD = (16, 256)
"""A block takes at least and at most so many values per thread before the sum is split over blocks."""


@dataclass(frozen=True, slots=True)
class Reduction:
    """A sum of float32 over some dimensions, as ``aten/src/ATen/native/cuda/Reduce.cuh`` looks at it."""

    outputs: int
    inputs_per_output: int
    along_fastest: bool
    """Whether the dimension with the smallest stride is summed over."""
    output_vector: int
    """Outputs that one thread makes at a time: 4, 2 or 1."""
    input_vector: int

    def scratch_bytes(self, multiprocessors: int, threads_per_multiprocessor: int) -> tuple[int, int]:
        """Bytes of partial sums and of semaphores on a card; zeros where no sum is split over blocks."""
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
        partial = 4 * self.outputs * blocks
        if not self.along_fastest:
            partial *= width * self.output_vector
        return partial, 4 * grid


def describe(tensor: torch.Tensor, dims: list[int]) -> Reduction | None:
    """Describe the sum of ``tensor`` over ``dims`` (none: over all); ``None`` for one that is not float32."""
    if tensor.dtype != torch.float32 or tensor.numel() == 0:
        return None
    summed = {dim % tensor.dim() for dim in dims} if dims else set(range(tensor.dim()))
    sides = list(zip(range(tensor.dim()), tensor.shape, tensor.stride(), strict=True))
    inner = [(stride, size) for dim, size, stride in sides if dim in summed and size > 1]
    outer = [(stride, size) for dim, size, stride in sides if dim not in summed and size > 1]
    inputs = 1
    for _, size in inner:
        inputs *= size
    outputs = tensor.numel() // inputs
    along_fastest = not outer or (bool(inner) and min(inner)[0] < min(outer)[0])
    fastest = min(inner, default=(1, 1))[0] if along_fastest else min(outer)[0]
    whole = not outer and tensor.is_contiguous()
    vector = 1
    if fastest == 1 and not along_fastest:
        vector = 4
        for number in (_run(sorted(outer)), *(stride for stride, _ in inner)):
            while number % vector:
                vector //= 2
    return Reduction(
        outputs=outputs,
        inputs_per_output=inputs,
        along_fastest=along_fastest,
        output_vector=vector,
        input_vector=4 if fastest == 1 and along_fastest and whole and inputs > 128 else 1,
    )


def _run(dims: list[tuple[int, int]]) -> int:
    """Length of the run of ``(stride, size)`` dimensions that lie together in memory, from the first on."""
    length = dims[0][1]
    for stride, size in dims[1:]:
        if stride != length * dims[0][0]:
            break
        length *= size
    return length


def _ceil(number: int, by: int) -> int:
    return -(-number // by)


def _power_of_two(number: int) -> int:
    """Return the largest power of two that is not above ``number`` (1 or more)."""
    return 1 << (max(1, number).bit_length() - 1)


def note_reduction(tape: Tape, tensor: torch.Tensor, dims: list[int]) -> None:
    """Write down the scratch that a sum of ``tensor`` over ``dims`` takes, if it takes any."""
    described = describe(tensor, dims) if tensor.is_meta else None
    if described is not None:
        tape.events.append((REDUCTION, described, None))

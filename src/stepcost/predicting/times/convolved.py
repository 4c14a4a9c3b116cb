"""A convolution among a step's operators: read from its key, with how cuDNN runs it."""

from __future__ import annotations

import functools
import math
import re
from typing import NamedTuple

from stepcost.predicting.convolution import (
    BACKWARD_DATA,
    BACKWARD_WEIGHT,
    DTYPES,
    FORWARD,
    Convolution,
)
from stepcost.predicting.times.keys import BACKWARD_OF_IT, CONVOLUTION, TENSOR, lengths_of, name_of

ARGUMENTS = re.compile(
    r"\[([\d,]+)\],\[([\d,]+)\],\[([\d,]+)\],False,\[[\d,]*\],(\d+)(?:,\[(\w+),(\w+),(\w+)\])?\)$"
)
"""Stride, padding, dilation, groups, and which gradients are wanted; transposed ones are not matched."""
NAMES = {"f32": "fp32", "bf16": "bf16", "f16": "fp16", "f64": "fp64"}


class Choice(NamedTuple):
    """How cuDNN runs a convolution in one direction."""

    engine: str
    """By cuDNN's number, or by the name of a family that it leaves out of its answers (``unasked.py``)."""
    workspace_bytes: int


class Convolved(NamedTuple):
    """A convolution or its gradients, as a key says."""

    dtype: str
    images: tuple[int, ...]
    weight: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int
    channels_last: tuple[bool, bool]
    """Of images and weight."""
    directions: tuple[str, ...]
    with_bias: bool
    """Whether a bias is added, or its gradient made."""

    @property
    def output(self) -> tuple[int, ...]:
        """Lengths of the result."""
        sides = (
            (size + 2 * pad - dilation * (kernel - 1) - 1) // stride + 1
            for size, pad, dilation, kernel, stride in zip(
                self.images[2:], self.padding, self.dilation, self.weight[2:], self.stride, strict=True
            )
        )
        return (self.images[0], self.weight[0], *sides)

    @property
    def grouped(self) -> str:
        """``plain``, ``depthwise`` or ``grouped``."""
        return "plain" if self.groups == 1 else "depthwise" if self.groups == self.images[1] else "grouped"

    @property
    def kind(self) -> str:
        """What two must share to be alike: that is no size."""
        layout = "last" if any(self.channels_last) else "first"
        return f"{self.grouped} {layout} {','.join(self.directions)}"

    @property
    def sizes(self) -> tuple[int, ...]:
        """Pixels made, channels in, out and in a group, taps of the kernel, and stride."""
        pixels = self.output[0] * math.prod(self.output[2:])
        channels = self.images[1]
        taps, stride = math.prod(self.weight[2:]), math.prod(self.stride)
        return (pixels, channels, self.weight[0], channels // self.groups, taps, stride)

    def bound_s(self, choices: tuple[Choice, ...], bytes_per_s: float, flops_per_s: float) -> float:
        """Seconds that all directions take by their bytes or operations, whichever take longer in each.

        A workspace is written and read; a bias is added, or its gradient summed, by a kernel of its own.
        """
        item = DTYPES[NAMES[self.dtype]].itemsize
        made = math.prod(self.output)
        moved = (math.prod(self.images) + math.prod(self.weight) + made) * item
        flops = 2 * made * math.prod(self.weight[1:])
        workspaces = [one.workspace_bytes for one in choices] or [0] * len(self.directions)
        bias = made * item * (2 if FORWARD in self.directions else 1) if self.with_bias else 0
        return bias / bytes_per_s + sum(
            max((moved + 2 * each) / bytes_per_s, flops / flops_per_s) for each in workspaces
        )

    def described(self) -> Convolution | None:
        """Describe it as cuDNN is asked; ``None`` where it is not over images (N, C, H, W)."""
        if len(self.images) != 4:
            return None
        sizes = (self.images[2:], self.weight[2:], self.stride, self.padding, self.dilation)
        size, kernel, stride, padding, dilation = ((each[0], each[-1]) for each in sizes)
        images, weight = ("nhwc" if one else "nchw" for one in self.channels_last)
        return Convolution(
            inputs=self.images[1],
            outputs=self.weight[0],
            size=size,
            kernel=kernel,
            stride=stride,
            padding=padding,
            dilation=dilation,
            groups=self.groups,
            dtype=NAMES[self.dtype],
            input_layout=images,
            weight_layout=weight,
        )


@functools.cache
def convolved(key: str) -> Convolved | None:
    """Read a convolution's key; ``None`` for a transposed one, and for another operator."""
    name = name_of(key)
    if name not in (CONVOLUTION, BACKWARD_OF_IT) or not (found := ARGUMENTS.search(key)):
        return None
    stride, padding, dilation, groups, *wanted = found.groups()
    tensors = TENSOR.findall(key)
    images, weight = tensors[1:3] if name == BACKWARD_OF_IT else tensors[:2]
    if name == BACKWARD_OF_IT:
        asked = zip(wanted, (BACKWARD_DATA, BACKWARD_WEIGHT), strict=False)
        directions = tuple(direction for is_wanted, direction in asked if is_wanted == "True")
    else:
        directions = (FORWARD,)
    dimensions = len(lengths_of(images)) - 2

    def each(text: str) -> tuple[int, ...]:
        numbers = tuple(map(int, text.split(",")))
        return numbers * dimensions if len(numbers) == 1 else numbers

    return Convolved(
        dtype=images[0],
        images=lengths_of(images),
        weight=lengths_of(weight),
        stride=each(stride),
        padding=each(padding),
        dilation=each(dilation),
        groups=int(groups),
        channels_last=(images[3] == "l", weight[3] == "l"),
        directions=directions,
        with_bias=wanted[2] == "True" if name == BACKWARD_OF_IT else len(tensors) > 2,
    )

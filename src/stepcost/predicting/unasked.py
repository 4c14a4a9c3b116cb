"""Plans that cuDNN leaves out of its answer where there is no device, as an H100 gave them.

It leaves some 1x1 convolutions to cuBLASLt, which cannot be started without a device, some gradients to a
Winograd or Fourier transform, and depthwise ones to kernels of its own. Their workspaces follow from sizes.
Whether they come first is told by the rest of the answer where such answers were recorded, elsewhere by
decision trees over sizes, learned from the same answers (``cudnn_left_out.py``).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from stepcost.predicting.convolution import BACKWARD_DATA, BACKWARD_WEIGHT, DIRECTIONS, Convolution
from stepcost.predicting.cudnn_left_out import NONE_LEFT_OUT, LeftOut, find_left_out

FLOAT_BYTES = 4
"""Parts of a sum are float32, whatever is summed."""
SPLITS, SPLIT_TILE, SHORTEST_SPLIT = 132, 128 * 256, 96
"""cuBLASLt's parts of a long sum: at most, values of a tile, and shortest. Read off 2,062 recorded ones."""
WINOGRAD_TILE = 4
"""Pixels of a tile's side: with a 3x3 kernel, 36 products for 16 pixels."""
IMAGES_AT_ONCE = 16
"""Images that a Winograd transform of 16-bit gradients makes at once."""
STANDS_FOR_ALL = ("9.0", "9.19")
"""Compute capability and cuDNN whose answers tell what is left out where others were not recorded."""


def is_product(one: Convolution) -> bool:
    """Whether a convolution is a plain matrix product of each image."""
    plain = (one.kernel, one.stride, one.padding) == ((1, 1), (1, 1), (0, 0))
    return plain and one.groups == 1


def _product_bytes(one: Convolution, batch_size: int, direction: str) -> int:
    """Return what gradients of a weight, made by image and then summed, take; other products take nothing.

    In channels last the images are one product, whose long sum cuBLASLt splits: estimated, off by a few MB.
    """
    if direction != BACKWARD_WEIGHT:
        return 0
    result, summed = one.inputs * one.outputs, batch_size * math.prod(one.size)
    parts = batch_size
    if one.output_layout == "nhwc":
        at_once = SPLITS if one.dtype == "fp32" else SPLITS // 2
        parts = min(at_once, at_once * SPLIT_TILE // result, summed // SHORTEST_SPLIT)
        parts = parts if parts > 1 else 0
    return parts * result * FLOAT_BYTES


def is_winograd(one: Convolution) -> bool:
    """Whether a convolution can be made by a Winograd transform."""
    plain = (one.kernel, one.stride, one.dilation) == ((3, 3), (1, 1), (1, 1))
    return plain and one.groups == 1 and one.output_layout == "nchw" and one.dtype == "fp32"


def winograd_bytes(one: Convolution, batch_size: int, direction: str) -> int:
    """Return the bytes of images, gradients and weights, transformed, in 16 bits of whole blocks of images.

    Of 1,357 recorded gradients of 3x3 weights 323 are exactly this, and of 40 gradients of 16-bit images 37.
    """
    if one.dtype != "fp32" and direction == BACKWARD_DATA:
        batch_size = math.ceil(batch_size / IMAGES_AT_ONCE) * IMAGES_AT_ONCE
    tiles = batch_size * math.prod(math.ceil(side / WINOGRAD_TILE) for side in one.output_size)
    values = one.inputs * one.outputs + (one.inputs + one.outputs) * tiles
    return (WINOGRAD_TILE + 2) ** 2 * values * FLOAT_BYTES


def is_fourier(one: Convolution) -> bool:
    """Whether a convolution can be made by a Fourier transform."""
    plain = (one.stride, one.dilation, one.groups) == ((1, 1), (1, 1), 1)
    return plain and one.kernel in ((3, 3), (5, 5)) and one.output_layout == "nchw" and one.dtype == "fp32"


def fourier_bytes(one: Convolution, batch_size: int, direction: str) -> int:
    """Return the bytes of images and gradients, transformed, and of the gradients in another order.

    The transform has the power of two that holds the image and the kernel's reach, of 8-byte complex values.
    """
    side = max(size + kernel - 1 for size, kernel in zip(one.size, one.kernel, strict=True))
    length = 1 << (side - 1).bit_length()
    transformed = 2 * length * (length // 2 + 1) * 8
    reordered = one.outputs * math.prod(one.output_size) * FLOAT_BYTES
    return batch_size * ((one.inputs + one.outputs) * transformed + reordered)


def parts_bytes(one: Convolution, batch_size: int, direction: str) -> int:
    """Return the bytes of a 16-bit depthwise weight gradient made in parts, of which each image has eight.

    In channels last; channels come in blocks of 32. All 491 recorded ones are exactly this.
    """
    if one.output_layout == "nchw":
        return 0
    channels = math.ceil(one.outputs / 32) * 32
    return batch_size * 8 * channels * math.prod(one.kernel) * FLOAT_BYTES


def _depthwise_bytes(one: Convolution, batch_size: int, direction: str) -> int | None:
    """Return what most depthwise convolutions take; ``None`` for a gradient of a float32 weight."""
    if direction != BACKWARD_WEIGHT:
        return 0
    return None if one.dtype == "fp32" else parts_bytes(one, batch_size, direction)


def _nothing(one: Convolution, batch_size: int, direction: str) -> int:
    return 0


@dataclass(frozen=True)
class Family:
    """Convolutions of which some have a plan that is left out."""

    holds: Callable[[Convolution], bool]
    directions: tuple[str, ...]


FAMILIES = {
    "product": Family(is_product, DIRECTIONS),
    "winograd": Family(is_winograd, (BACKWARD_WEIGHT,)),
    "fourier": Family(is_fourier, (BACKWARD_WEIGHT,)),
}
"""Those of which sizes tell."""
BYTES_OF: dict[str, Callable[[Convolution, int, str], int]] = {
    "product": _product_bytes,
    "winograd": winograd_bytes,
    "fourier": fourier_bytes,
    "depthwise": _nothing,
    "depthwise parts": parts_bytes,
}
"""By the names in tables of lists: the same and two more."""
ENGINES = {
    **dict.fromkeys((58, 62, 63), "product"),
    **dict.fromkeys((7, 17), "winograd"),
    18: "fourier",
    **dict.fromkeys((5, 6, 19), "depthwise"),
    16: "depthwise parts",
}
"""Engines of cuDNN 9.19 that are left out on compute capability 9.0, as their workspaces tell."""


@dataclass(frozen=True, eq=False)
class Unasked:
    """What cuDNN cannot be asked without a device."""

    left_out: LeftOut

    def bytes_of(
        self, one: Convolution, batch_size: int, direction: str, listed: Sequence[Any] = ()
    ) -> int | None:
        """Workspace of a convolution whose first plan is likely left out; ``None`` for any other.

        ``listed`` is what cuDNN gives out of its plans here (``Library.listed``).
        """
        asked = one, batch_size, direction
        first = self.left_out.first(*asked, listed)
        if first is not None:
            return None if first == NONE_LEFT_OUT else BYTES_OF[first](*asked)
        if one.kind[3] == "depthwise":
            return _depthwise_bytes(*asked)
        family = self.by_sizes(*asked)
        return None if family is None else BYTES_OF[family](*asked)

    def by_sizes(self, one: Convolution, batch_size: int, direction: str) -> str | None:
        """Return the family that likely comes first; ``None`` where none does."""
        for name, family in FAMILIES.items():
            can_be = direction in family.directions and family.holds(one)
            if can_be and self.left_out.is_likely(name, one, batch_size, direction):
                return name
        return None


@functools.cache
def unasked_on(compute_capability: str, cudnn: str | None) -> Unasked | None:
    """Return what is left out on a compute capability by a cuDNN such as 9.19.

    Where no lists of those were recorded, sizes tell as those of ``STANDS_FOR_ALL``.
    """
    found = find_left_out(compute_capability, cudnn)
    return _without_lists() if found is None else Unasked(found)


@functools.cache
def _without_lists() -> Unasked | None:
    """Return what sizes tell: the same, and so asked about once, for all cards without lists."""
    found = find_left_out(*STANDS_FOR_ALL)
    return None if found is None else Unasked(found.without_lists())

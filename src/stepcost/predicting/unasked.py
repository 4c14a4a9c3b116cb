"""Plans that cuDNN leaves out of its answer where there is no device, learned from what a GPU recorded.

It leaves some 1x1 convolutions to cuBLASLt, which cannot be started without a device, some gradients to a
Winograd or Fourier transform, and depthwise ones to kernels of its own. Their workspaces follow from sizes.
Whether they come first is told by the rest of the answer (``cudnn_left_out.py``) where such answers were
recorded. Elsewhere it is a matter of sizes, of which no rule is known: forests of decision trees are fitted
to the recorded table.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from stepcost.predicting.convolution import BACKWARD_DATA, BACKWARD_WEIGHT, DIRECTIONS, Convolution
from stepcost.predicting.cudnn_left_out import NONE_LEFT_OUT, LeftOut, find_left_out
from stepcost.predicting.recorded import Table, find_table

ROUNDING_BYTES = 512
"""A batched product takes 0 to 400 bytes more than the rule says."""
FLOAT_BYTES = 4
"""Parts of a sum are float32, whatever is summed."""
SPLITS, SPLIT_TILE, SHORTEST_SPLIT = 132, 128 * 256, 96
"""cuBLASLt's parts of a long sum: at most, values of a tile, and shortest. Read off 2,062 recorded ones."""
WINOGRAD_TILE = 4
"""Pixels of a tile's side: with a 3x3 kernel, 36 products for 16 pixels."""
IMAGES_AT_ONCE = 16
"""Images that a Winograd transform of 16-bit gradients makes at once."""
SHARE_IN_16_BITS = 0.25
"""Gradients of 16-bit weights go by image as those of float32 images with so much fewer pixels do.

Read off one recorded step of ResNet-50: 15 of 16 are then as recorded.
"""
TREES = 15
STANDS_FOR_ALL = "9.0"
"""Compute capability whose table is learned from where another has none."""


def is_product(one: Convolution) -> bool:
    """Whether a convolution is a plain matrix product of each image."""
    plain = (one.kernel, one.stride, one.padding) == ((1, 1), (1, 1), (0, 0))
    return plain and one.groups == 1 and one.output_layout == "nchw"


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
    bytes_of: Callable[[Convolution, int, str], int]


FAMILIES = (
    Family(is_product, DIRECTIONS, _product_bytes),
    Family(is_winograd, (BACKWARD_WEIGHT,), winograd_bytes),
    Family(is_fourier, (BACKWARD_WEIGHT,), fourier_bytes),
)
BYTES_OF: dict[str, Callable[[Convolution, int, str], int]] = {
    "product": _product_bytes,
    "winograd": winograd_bytes,
    "fourier": fourier_bytes,
    "depthwise": _nothing,
    "depthwise parts": parts_bytes,
}
"""The same and two more, by the names in tables of lists."""
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
    """What the convolutions of a recorded table did that cuDNN cannot be asked."""

    table: Table
    lists: LeftOut | None = None
    _forests: dict[tuple[Family, str, str], Any] = field(default_factory=dict)
    _known: dict[tuple[Convolution, int, str], int | None] = field(default_factory=dict)

    def bytes_of(
        self, one: Convolution, batch_size: int, direction: str, listed: Sequence[Any] = ()
    ) -> int | None:
        """Workspace of a convolution whose first plan is likely left out; ``None`` for any other.

        ``listed`` is what cuDNN gives out of its plans here (``Library.listed``).
        """
        asked = one, batch_size, direction
        first = None if self.lists is None else self.lists.first(*asked, listed)
        if first is not None:
            return None if first == NONE_LEFT_OUT else BYTES_OF[first](*asked)
        if one.kind[3] == "depthwise":
            return _depthwise_bytes(*asked)
        if asked not in self._known:
            families = (family for family in FAMILIES if self._takes(family, *asked))
            self._known[asked] = next((family.bytes_of(*asked) for family in families), None)
        return self._known[asked]

    def _takes(self, family: Family, one: Convolution, batch_size: int, direction: str) -> bool:
        if direction not in family.directions or not family.holds(one):
            return False
        key = family, direction, one.dtype
        if key not in self._forests:
            self._forests[key] = self._fitted(family, direction, one.dtype)
        forest, share = self._forests[key]
        return forest is not None and bool(forest.predict([_sizes(one, batch_size, share)])[0])

    def _fitted(self, family: Family, direction: str, dtype: str) -> tuple[Any, float]:
        """Fit a forest, the same for the same table; no forest where too little was recorded.

        Without convolutions of that dtype in the table it is fitted to float32's. Their sizes then stand for
        such a share of the pixels.
        """
        from sklearn.ensemble import RandomForestClassifier  # noqa: PLC0415 (takes most of a second)

        held = [one for one in map(Convolution.from_key, self.table.convolutions) if family.holds(one)]
        like = [one for one in held if one.dtype == dtype]
        share = 1.0 if like or direction != BACKWARD_WEIGHT else SHARE_IN_16_BITS
        column = DIRECTIONS.index(direction)
        cells, is_left_out = [], []
        for one in like or [one for one in held if one.dtype == "fp32"]:
            for batch, cell in self.table.convolutions[one.key].items():
                over = cell[column][0] - family.bytes_of(one, int(batch), direction)
                cells.append(_sizes(one, int(batch)))
                is_left_out.append(0 <= over <= ROUNDING_BYTES)
        if not any(is_left_out):
            return None, share
        return RandomForestClassifier(TREES, random_state=0).fit(cells, np.array(is_left_out)), share


def _sizes(one: Convolution, batch_size: int, share: float = 1.0) -> list[float]:
    """Logarithms of the lengths, and of what is read, written and kept."""
    inputs, outputs = math.log2(one.inputs), math.log2(one.outputs)
    pixels, batch = math.log2(math.prod(one.size) * share), math.log2(batch_size)
    ratio = math.log2(one.inputs * one.outputs / (one.inputs + one.outputs)) - pixels
    images = batch + pixels
    kept = [inputs + outputs, inputs + images, outputs + images, images]
    return [inputs, outputs, pixels, batch, ratio, *kept]


@functools.cache
def unasked_on(compute_capability: str, cudnn: str | None) -> Unasked | None:
    """Return what is learned from the table of a compute capability, or from the one that stands for it.

    And from the lists of a cuDNN such as 9.19 there, where they were recorded.
    """
    lists = find_left_out(compute_capability, cudnn)
    if lists is None:
        return _without_lists(compute_capability if find_table(compute_capability) else STANDS_FOR_ALL)
    table = find_table(compute_capability) or find_table(STANDS_FOR_ALL)
    return None if table is None else Unasked(table, lists)


@functools.cache
def _without_lists(compute_capability: str) -> Unasked | None:
    """Return what is learned from a table alone: once, for all cards that it stands for."""
    table = find_table(compute_capability)
    return None if table is None else Unasked(table)

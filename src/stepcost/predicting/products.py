"""Which 1x1 convolutions cuDNN leaves to cuBLASLt: learned from what a GPU was recorded to do.

Without a device cuBLASLt cannot be started, and cuDNN leaves these plans out of its answer. Where they come
first is a matter of sizes, so a forest of decision trees is fitted to the recorded table when it is needed.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from stepcost.predicting.convolution import BACKWARD_WEIGHT, DIRECTIONS, Convolution
from stepcost.predicting.recorded import Table

BATCHED_BYTES = 512
"""The most that a batched product takes; recorded were 0 to 400."""
PARTIAL_BYTES = 4
"""A gradient of the weight is made by image, in float32, and then summed."""
TREES = 15


def is_product(one: Convolution) -> bool:
    """Whether a convolution is a plain matrix product of each image."""
    plain = (one.kernel, one.stride, one.padding) == ((1, 1), (1, 1), (0, 0))
    return plain and one.groups == 1 and one.output_layout == "nchw"


@dataclass(frozen=True, eq=False)
class Products:
    """What the 1x1 convolutions of a recorded table did."""

    table: Table
    _forests: dict[str, Any] = field(default_factory=dict)

    def bytes_of(self, one: Convolution, batch_size: int, direction: str) -> int | None:
        """Workspace of a product that is likely left to cuBLASLt; ``None`` for any other convolution."""
        if not is_product(one) or not self._rows:
            return None
        if direction not in self._forests:
            self._forests[direction] = self._fitted(direction)
        if not self._forests[direction].predict([_sizes(one, batch_size)])[0]:
            return None
        return _by_image(one, batch_size) if direction == BACKWARD_WEIGHT else 0

    @functools.cached_property
    def _rows(self) -> list[tuple[Convolution, int, list[list[int]]]]:
        return [
            (one, int(batch), cell)
            for one in self.table.products
            for batch, cell in self.table.convolutions[one.key].items()
        ]

    def _fitted(self, direction: str) -> Any:
        """Fit a forest to the recorded cells of a direction, the same for the same table."""
        from sklearn.ensemble import RandomForestClassifier  # noqa: PLC0415 (takes most of a second)

        column = DIRECTIONS.index(direction)
        took = [
            cell[column][0] - (_by_image(one, batch) if direction == BACKWARD_WEIGHT else 0)
            for one, batch, cell in self._rows
        ]
        forest = RandomForestClassifier(TREES, random_state=0)
        return forest.fit(
            [_sizes(one, batch) for one, batch, _ in self._rows],
            np.array([0 <= size <= BATCHED_BYTES for size in took]),
        )


def _by_image(one: Convolution, batch_size: int) -> int:
    return batch_size * one.inputs * one.outputs * PARTIAL_BYTES


def _sizes(one: Convolution, batch_size: int) -> list[float]:
    """Logarithms of the lengths and of what is read, written and kept."""
    inputs, outputs = math.log2(one.inputs), math.log2(one.outputs)
    pixels, batch = math.log2(math.prod(one.size)), math.log2(batch_size)
    ratio = math.log2(one.inputs * one.outputs / (one.inputs + one.outputs)) - pixels
    images = batch + pixels
    kept = [inputs + outputs, inputs + images, outputs + images, images]
    return [inputs, outputs, pixels, batch, ratio, *kept]

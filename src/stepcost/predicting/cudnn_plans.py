"""What torch's convolutions take by the heuristics of its cuDNN, asked without a GPU.

Two parts cannot be asked there and are rules, held against what was recorded on an H100
(``docs/notes/prediction.md``): partial sums, whose number depends on the multiprocessors of the device, and
plans that are left out of the answer (``unasked.py``).
"""

from __future__ import annotations

import math

from stepcost.predicting.convolution import (
    BACKWARD_DATA,
    BACKWARD_WEIGHT,
    DTYPES,
    FORWARD,
    Convolution,
)
from stepcost.predicting.cudnn_library import Library, Plan
from stepcost.predicting.unasked import FLOAT_BYTES, Unasked

FALLBACKS_FROM_BYTES = 64 << 20
"""Workspaces from this size on are told with what is tried where there is no room for them."""
MAX_PLANS = 32
TILES = {
    FORWARD: {0: (128, 128), 1: (128, 64), 3: (256, 128), 5: (64, 64), 7: (64, 128), 9: (64, 256)},
    BACKWARD_DATA: {0: (128, 128), 1: (128, 64), 3: (256, 128), 5: (64, 64), 7: (64, 128), 9: (64, 256)},
    BACKWARD_WEIGHT: {0: (128, 128), 1: (128, 64), 3: (256, 128), 4: (256, 64), 5: (64, 64), 7: (64, 128)},
}
"""Rows and columns of the result that a block makes, by the knob TILE_SIZE."""
OCCUPIED_132 = {4: 120, 5: 110, 7: 119, 8: 120}
"""Multiprocessors of 132 that clusters of so many blocks can use; other clusters use them all."""
SHARES = (512, 224)
"""Shortest sum that is split off: where all tiles run at once, and in the last of several rounds."""
SPLIT_IN_16_BITS = 16384
"""Sums of 16-bit values up to this length are not split: four of 12,544 were not, one of 50,176 was."""
NATIVE_PARTS = 128
"""Partial results of a depthwise weight gradient in channels last and 16 bits, in float32."""


def workspaces_of(
    library: Library,
    one: Convolution,
    batch_size: int,
    direction: str,
    *,
    multiprocessors: int,
    unasked: Unasked | None,
) -> list[int] | None:
    """Return the workspace of a convolution in bytes, and what is tried after it where there is no room.

    ``unasked`` are the plans that it leaves out of its answer here. ``None`` where the library does not
    answer.
    """
    asked = one, batch_size, direction, multiprocessors
    if _torchs_own(one):
        return [0]
    if _is_depthwise(one) and one.dtype != "fp32" and direction == BACKWARD_WEIGHT:
        return [one.weight_bytes // DTYPES[one.dtype].itemsize * FLOAT_BYTES * NATIVE_PARTS]
    left_out = None if unasked is None else unasked.bytes_of(one, batch_size, direction)
    sizes = [] if left_out is None else [left_out]
    if left_out is None or left_out >= FALLBACKS_FROM_BYTES:
        found = library.plans(one, batch_size, direction, MAX_PLANS if sizes else 1)
        if found and not sizes and _bytes(found[0], *asked) >= FALLBACKS_FROM_BYTES:
            found = library.plans(one, batch_size, direction, MAX_PLANS)
        for plan in found:
            size = _bytes(plan, *asked)
            if not sizes or size < sizes[-1]:  # what takes more does not fit either
                sizes.append(size)
    return sizes or None


def _is_depthwise(one: Convolution) -> bool:
    return one.kind[3] == "depthwise"


def _torchs_own(one: Convolution) -> bool:
    """Whether torch has a kernel of its own that takes no workspace.

    ``use_cudnn_depthwise`` in ``aten/src/ATen/native/Convolution.cpp``: channels last is cuDNN's, and so is
    float16 where it is worth it.
    """
    return _is_depthwise(one) and one.output_layout == "nchw" and one.dtype != "fp16"


def _bytes(plan: Plan, one: Convolution, batch_size: int, direction: str, multiprocessors: int) -> int:
    if plan.unsplit is None:
        return plan.workspace
    return plan.unsplit + _partial_sums(plan, one, batch_size, direction, multiprocessors)


def _partial_sums(plan: Plan, one: Convolution, batch_size: int, direction: str, multiprocessors: int) -> int:
    """Bytes of the partial sums of a plan that splits long sums so that no multiprocessor is idle.

    A block makes a tile of the result. Tiles of the last round are split over the multiprocessors that it
    would leave idle: each gets as many parts as fit, so long as a part is not too short. Of 234 recorded
    first plans that is exact for 76 %, and 0.3 MiB off in the mean, the worst by 6 MiB; without it 40 % and
    3.5 MiB.
    """
    knobs = {name.removeprefix("CUDNN_KNOB_TYPE_"): value for name, value in plan.knobs.items()}
    tile = TILES[direction].get(knobs["TILE_SIZE"])
    if tile is None:
        return 0
    rows, columns, taps, summed = _product_size(one, batch_size, direction)
    clusters = knobs["TILE_CGA_M"], knobs["TILE_CGA_N"]
    tiles = math.prod(
        math.ceil(count / cluster) * cluster
        for count, cluster in zip(
            (math.ceil(rows / tile[0]), math.ceil(columns / tile[1]) * taps), clusters, strict=True
        )
    )
    cluster = math.prod(clusters)
    at_once = OCCUPIED_132.get(cluster, 132) * multiprocessors // 132 // cluster * cluster
    rounds, left = divmod(tiles, max(at_once, 1))
    if not left:
        return 0
    if DTYPES[one.dtype].itemsize == 2 and summed < SPLIT_IN_16_BITS:
        return 0
    parts = min(at_once // left, summed // SHARES[rounds > 0])
    return left * parts * tile[0] * tile[1] * FLOAT_BYTES if parts > 1 else 0


def _product_size(one: Convolution, batch_size: int, direction: str) -> tuple[int, int, int, int]:
    """Return the matrix product that it is: rows, columns, how many of these, and length of sums."""
    inputs, outputs, taps = one.inputs // one.groups, one.outputs // one.groups, math.prod(one.kernel)
    made = batch_size * math.prod(one.output_size)
    if direction == FORWARD:
        return made, outputs, 1, inputs * taps
    if direction == BACKWARD_DATA:
        return batch_size * math.prod(one.size), inputs, 1, outputs * taps
    return outputs, inputs, taps, made

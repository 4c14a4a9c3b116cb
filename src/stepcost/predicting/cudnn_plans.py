"""What torch's convolutions take by the heuristics of its cuDNN, asked without a GPU.

Two parts cannot be asked there and are rules, held against what was recorded on an H100
(``docs/notes/prediction.md``): partial sums, whose number depends on the multiprocessors of the device, and
plans that are left out of the answer (``unasked.py``).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

from stepcost.predicting.convolution import (
    BACKWARD_DATA,
    BACKWARD_WEIGHT,
    DTYPES,
    FORWARD,
    Convolution,
)
from stepcost.predicting.cudnn_left_out import NONE_LEFT_OUT
from stepcost.predicting.cudnn_library import Library, Plan
from stepcost.predicting.unasked import BYTES_OF, FLOAT_BYTES, Unasked

FALLBACKS_FROM_BYTES = 64 << 20
"""Workspaces from this size on are told with what is tried where there is no room for them."""
MAX_PLANS = 32
TORCHS_OWN = "torch"
TILES = {
    0: (128, 128),
    1: (128, 64),
    3: (256, 128),
    4: (256, 64),
    5: (64, 64),
    6: (128, 256),
    7: (64, 128),
    9: (64, 256),
}
"""Rows and columns of the result that a block makes, by the knob TILE_SIZE."""
GROUPS_OF_132 = (16,) * 5 + (18,) * 2 + (8,)
"""Multiprocessors that share a cluster, of 132: read off how many tiles clusters of 3 to 16 blocks split.

Clusters of one or two blocks use all 132.
"""
LONE_CLUSTER = 2
SHORTEST = {
    64 * 64: ((1056, 700), (600, 320)),
    128 * 64: ((1056, 640), (360, 320)),
    128 * 128: ((1024, 512), (320, 240)),
    256 * 128: ((800, 440), (320, 240)),
}
"""Shortest part of a float32 sum, by the values of a tile: of any number of parts, and of a power of two.

First where all tiles run at once, then in the last of several rounds.
"""
MANY_PARTS, SHORTEST_OF_MANY = 7, {128 * 128: 200, 256 * 128: 148}
"""So many parts may be shorter in the last of several rounds, of tiles with so many values."""
SPLITS_FROM = 8
"""Number of parts that fit from which sums of 16-bit values are split by their length alone."""
SHORTEST_IN_16_BITS, SPLIT_IN_16_BITS = 1088, 9800
"""The shortest part then, and the shortest sum."""
IN_LAST_ROUND = (1650, 2200)
"""Shortest part of 16-bit sums in the last of several rounds: of as many parts as fit, of a power of two."""


@functools.cache  # a step asks about a convolution again in every layer like it, and a search in every step
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
    if _torchs_own(one, batch_size):
        return [0]
    tells = unasked is not None and unasked.left_out.families
    listed = library.listed(one, batch_size, direction) if tells else []
    left_out = None if unasked is None else unasked.bytes_of(one, batch_size, direction, listed)
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


def choice_of(
    library: Library,
    one: Convolution,
    batch_size: int,
    direction: str,
    *,
    multiprocessors: int,
    unasked: Unasked | None,
) -> tuple[str, int] | None:
    """Return which engine runs a convolution, and its workspace in bytes; ``None`` without an answer.

    An engine has cuDNN's number, or the name of a family in ``unasked.py`` whose plans are left out of the
    answer here, or is ``torch`` for a kernel of torch's own.
    """
    if _torchs_own(one, batch_size):
        return TORCHS_OWN, 0
    if unasked is not None and unasked.left_out.families:
        listed = library.listed(one, batch_size, direction)
        family = unasked.left_out.first(one, batch_size, direction, listed)
        if family is not None and family != NONE_LEFT_OUT:
            return family, BYTES_OF[family](one, batch_size, direction)
    plans = library.plans(one, batch_size, direction, 1)
    if not plans:
        return None
    return str(plans[0].engine), _bytes(plans[0], one, batch_size, direction, multiprocessors)


def _is_depthwise(one: Convolution) -> bool:
    return one.kind[3] == "depthwise"


def _torchs_own(one: Convolution, batch_size: int) -> bool:
    """Whether torch has a kernel of its own that takes no workspace.

    ``use_cudnn_depthwise`` in ``aten/src/ATen/native/Convolution.cpp``: channels last is cuDNN's, and so is
    float16 where it is worth it.
    """
    if not _is_depthwise(one) or one.output_layout != "nchw":
        return False
    return one.dtype != "fp16" or not _is_worth_it(one, batch_size)


def _is_worth_it(one: Convolution, batch_size: int) -> bool:
    """Whether torch gives a depthwise convolution of float16 to cuDNN.

    ``use_cudnn_depthwise`` and ``check_cudnn_depthwise_workload_with_filter``, the same file (torch 2.11).
    """
    (side, other), (stride, across), width = one.kernel, one.stride, one.size[1]
    if one.inputs < 32 or one.dilation != (1, 1) or stride != across:
        return False
    if stride == 1 and one.size[0] == 1:
        return True
    if side != other or side not in (1, 3, 5) or width < 7 or stride not in (1, 2):
        return False
    if stride == 2 and batch_size == 1:
        return side > 1 or width <= 28
    if stride == 2 and side == 1:
        return batch_size <= 16 and one.inputs >= 128 and width <= 7
    return stride == 1 or one.inputs >= 512 or (one.inputs >= 256 and width >= 28)


def _bytes(plan: Plan, one: Convolution, batch_size: int, direction: str, multiprocessors: int) -> int:
    if plan.unsplit is None:
        return plan.workspace
    return plan.unsplit + _partial_sums(plan, one, batch_size, direction, multiprocessors)


def _partial_sums(plan: Plan, one: Convolution, batch_size: int, direction: str, multiprocessors: int) -> int:
    """Bytes of the partial sums of a plan that splits long sums so that no multiprocessor is idle.

    A block makes a tile of the result. Tiles of the last round are split over the multiprocessors that it
    would leave idle (``_parts``); a few bytes for each part tell which are done.
    """
    knobs = {name.removeprefix("CUDNN_KNOB_TYPE_"): value for name, value in plan.knobs.items()}
    tile = TILES.get(knobs["TILE_SIZE"])
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
    if direction == BACKWARD_WEIGHT and one.groups > 1:  # a tile has as many groups as fit into its rows
        tiles *= math.ceil(one.outputs / max(rows, tile[0]))
    rounds, left = divmod(tiles, max(_at_once(math.prod(clusters), multiprocessors), 1))
    if not left:
        return 0
    fit = _at_once(math.prod(clusters), multiprocessors) // left
    if DTYPES[one.dtype].itemsize == 2:
        parts = _parts_in_16_bits(fit, summed, math.prod(tile), is_last=rounds > 0)
    else:
        parts = _parts(fit, summed, *SHORTEST[math.prod(tile)][rounds > 0])
        many = min(fit, summed // SHORTEST_OF_MANY.get(math.prod(tile), summed + 1))
        if rounds and many >= MANY_PARTS:
            parts = max(parts, many)
    if parts <= 1:
        return 0
    is_even = parts & (parts - 1) == 0
    done = left * (parts - 1 if is_even else parts) + 7
    return (left * parts * math.prod(tile) + done) * FLOAT_BYTES


def _at_once(cluster: int, multiprocessors: int) -> int:
    """How many blocks run at once in clusters of that many."""
    if cluster <= LONE_CLUSTER:
        return multiprocessors // cluster * cluster
    used = sum(size // cluster for size in GROUPS_OF_132) * cluster
    return used * multiprocessors // 132 // cluster * cluster


def _power_of_two(fit: int, is_worth_it: Callable[[int], bool]) -> int:
    """Return the largest power of two up to ``fit`` of which each doubling is worth it."""
    parts = 1
    while parts * 2 <= fit and is_worth_it(parts * 2):
        parts *= 2
    return parts


def _parts(fit: int, summed: int, shortest: int, shortest_of_two: int) -> int:
    """Into how many parts sums are cut: as many as fit, or a power of two, which may be shorter ones."""
    return max(
        min(fit, summed // shortest), _power_of_two(fit, lambda parts: summed // parts >= shortest_of_two)
    )


def _parts_in_16_bits(fit: int, summed: int, tile: int, *, is_last: bool) -> int:
    """Into how many parts sums of 16-bit values are cut.

    Where few parts fit, each doubling must make the sum shorter by so much that it is worth putting a tile
    together, which costs more for a small one.
    """
    if is_last:
        shortest, shortest_of_two = IN_LAST_ROUND
        if summed // fit >= shortest:
            return fit
        return _power_of_two(fit, lambda parts: summed // parts >= shortest_of_two)
    if fit >= SPLITS_FROM:
        return min(fit, summed // SHORTEST_IN_16_BITS) if summed >= SPLIT_IN_16_BITS else 1
    worth = 2450 + 4700 * 4096 / tile
    parts = _power_of_two(fit, lambda parts: summed / parts >= worth)
    is_all = parts * 2 > fit > parts and summed / parts - summed / fit >= worth
    return fit if is_all else parts


def _product_size(one: Convolution, batch_size: int, direction: str) -> tuple[int, int, int, int]:
    """Return the matrix product that it is: rows, columns, how many of these, and length of sums."""
    inputs, outputs, taps = one.inputs // one.groups, one.outputs // one.groups, math.prod(one.kernel)
    made = batch_size * math.prod(one.output_size)
    if direction == FORWARD:
        return made, outputs, 1, inputs * taps
    if direction == BACKWARD_DATA:
        return batch_size * math.prod(one.size), inputs, 1, outputs * taps
    return outputs, inputs, taps, made

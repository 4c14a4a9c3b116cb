"""What a list of plans tells of the plans that cuDNN leaves out of it where there is no device.

cuDNN knows a limited number of orders in which it lists its plans. Without a device some plans are missing,
but how many there were is still told, and the rest keeps its order. So a list that an H100 was asked about
too names the plan that comes first there. Of other lists, cards and versions sizes tell, as they did on that
H100. ``python -m experiments.cudnn_left_out`` makes the table, and says how often it is wrong.
"""

from __future__ import annotations

import functools
import gzip
import json
import math
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from stepcost.predicting.convolution import DIRECTIONS, Convolution
from stepcost.predicting.recorded import TABLES

Tree = list[list[float]]
"""Nodes of a decision tree: ``[feature, threshold, node where it is not greater, node where it is]``, or
``[value]``."""
NONE_LEFT_OUT = "none"
"""The first plan of the list is the first one with a device too."""


def _engines(plans: Sequence[str]) -> list[str]:
    return [line.partition(",")[0] for line in plans]


LEVELS: tuple[Callable[[Sequence[str]], Sequence[str]], ...] = (
    lambda plans: _engines(plans[:4]),
    lambda plans: _engines(plans[:8]),
    lambda plans: _engines(plans[:12]),
    _engines,
    lambda plans: plans[:8],
)
"""What of a list is looked up: engines of its start, all engines, and its start with all knobs.

The last that was recorded counts.
"""


PRODUCT = "product"
PRODUCT_LEVELS = LEVELS[3:]
"""Of products only these are sure enough: a list that is like none is judged by decision trees."""


def kind_of(one: Convolution) -> str:
    """Name what decides which plans there can be."""
    if one.groups > 1:
        return str(one.kind[3])
    is_product = (one.kernel, one.stride, one.padding) == ((1, 1), (1, 1), (0, 0))
    return PRODUCT if is_product else f"{max(one.kernel)} by {one.stride[0]}"


def signatures(one: Convolution, direction: str, listed: Sequence[Any]) -> list[str]:
    """Return the name of a list (``Library.listed``) at each level."""
    count, *plans = listed
    kind = kind_of(one)
    levels = PRODUCT_LEVELS if kind == PRODUCT else LEVELS
    what = f"{kind} {one.dtype} {one.output_layout} {direction} {count} {len(plans)}"
    texts = (f"{level} {what} {' '.join(of(plans))}" for level, of in enumerate(levels))
    return [f"{zlib.crc32(text.encode()):08x}" for text in texts]


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """Which family of plans came first on a GPU, by the list that cuDNN gives out without one."""

    cudnn: str
    families: dict[str, str]
    """Name of a list to the name of a family in ``unasked.py``, or ``none``."""
    trees: list[Tree]
    """For products whose list was not recorded: boosted, over ``features``."""
    sizes: dict[str, list[Tree]]
    """By ``sizes_name``, whether a family comes first where no list tells: boosted, over ``sizes_of``."""

    def without_lists(self) -> LeftOut:
        """Return what sizes alone tell."""
        return replace(self, families={}, trees=[])

    def is_likely(self, family: str, one: Convolution, batch_size: int, direction: str) -> bool:
        """Say whether sizes tell that a family of ``unasked.py`` comes first."""
        trees = self.sizes.get(sizes_name(family, one, direction), [])
        return _sum(trees, sizes_of(one, batch_size)) > 0

    def first(self, one: Convolution, batch_size: int, direction: str, listed: Sequence[Any]) -> str | None:
        """Return the family that comes first; ``None`` where no list like this one was recorded."""
        if len(listed) <= 1:
            return None
        found = [self.families.get(name) for name in signatures(one, direction, listed)]
        family = next((family for family in reversed(found) if family), None)
        if family is None and kind_of(one) == PRODUCT and self.trees:
            values = features(one, batch_size, direction, listed)
            return PRODUCT if _sum(self.trees, values) > 0 else NONE_LEFT_OUT
        return family


def _sum(trees: list[Tree], values: Sequence[float]) -> float:
    total = 0.0
    for tree in trees:
        node = tree[0]
        while len(node) > 1:
            feature, threshold, low, high = node
            node = tree[int(low if values[int(feature)] <= threshold else high)]
        total += node[0]
    return total


def sizes_name(family: str, one: Convolution, direction: str) -> str:
    """Name what is judged by the same trees: float16 and bfloat16 by those of both."""
    width = one.dtype if one.dtype in ("fp32", "fp64") else "16 bits"
    return f"{family} {direction} {width} {one.output_layout}"


def sizes_of(one: Convolution, batch_size: int) -> list[float]:
    """Logarithms of the lengths, and of what is read, written and kept."""
    inputs, outputs = math.log2(one.inputs), math.log2(one.outputs)
    pixels, batch = math.log2(math.prod(one.size)), math.log2(batch_size)
    ratio = math.log2(one.inputs * one.outputs / (one.inputs + one.outputs)) - pixels
    images = batch + pixels
    kept = [inputs + outputs, inputs + images, outputs + images, images]
    return [inputs, outputs, pixels, batch, ratio, *kept]


def features(one: Convolution, batch_size: int, direction: str, listed: Sequence[Any]) -> list[float]:
    """Return what trees judge a product by: its sizes, and the start of its list."""
    pixels = math.prod(one.size)
    sizes = [one.inputs, one.outputs, pixels, batch_size, one.inputs * one.outputs]
    sizes += [one.inputs * batch_size * pixels, one.outputs * batch_size * pixels, batch_size * pixels]
    sizes += [batch_size * one.inputs * one.outputs]
    logs = [math.log2(size) for size in sizes]
    ratio = math.log2(one.inputs * one.outputs / (one.inputs + one.outputs)) - math.log2(pixels)
    kind = [one.dtype != "fp32", one.output_layout == "nhwc", DIRECTIONS.index(direction)]
    rests = [one.inputs % 8, one.outputs % 8, pixels % 8]
    count, *plans = listed
    engines = [int(line.partition(",")[0]) for line in plans[:8]]
    knobs = []
    for line in (*plans, "", "")[:2]:
        chosen = [int(knob.partition(":")[2]) for knob in line.split(",")[1:]]
        knobs += (chosen + [-1] * 6)[:6]
    counts = [count, len(plans), count - len(plans)]
    return [*logs, ratio, *kind, *rests, *counts, *(engines + [0] * 8)[:8], *knobs]


def learned(rows: Sequence[tuple[list[str], str]]) -> dict[str, str]:
    """Return the families by names of lists, from rows of a list's names and the family that came first.

    A longer name is kept only where it says something else than the shorter ones.
    """
    families: dict[str, str] = {}
    said = ["" for _ in rows]
    for level in range(len(LEVELS)):
        counts: dict[str, Counter[str]] = {}
        deep = [(place, names[level], family) for place, (names, family) in enumerate(rows) if names[level:]]
        for _, name, family in deep:
            counts.setdefault(name, Counter())[family] += 1
        for place, name, _ in deep:
            most = min(counts[name], key=lambda family: (-counts[name][family], family))
            if most != said[place]:
                families[name] = most
        for place, name, _ in deep:
            said[place] = families.get(name, said[place])
    return families


def left_out_path(compute_capability: str, cudnn: str) -> Path:
    """Where the lists of a compute capability and a cuDNN such as 9.19 are kept."""
    return TABLES / f"lists-sm{compute_capability.replace('.', '')}-cudnn{cudnn}.json.gz"


@functools.cache
def find_left_out(compute_capability: str, cudnn: str | None) -> LeftOut | None:
    """Return what lists tell on a compute capability with that cuDNN; ``None`` where none were recorded."""
    path = left_out_path(compute_capability, str(cudnn))
    if not path.exists():
        return None
    data = json.loads(gzip.decompress(path.read_bytes()))
    return LeftOut(
        cudnn=data["about"]["cudnn"], families=data["families"], trees=data["trees"], sizes=data["sizes"]
    )

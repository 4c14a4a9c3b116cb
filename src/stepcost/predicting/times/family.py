"""Operators that are alike but for their sizes: what may tell of one whose shapes nobody recorded."""

from __future__ import annotations

import functools
import math
import re
from typing import NamedTuple

from stepcost.predicting.times.convolved import convolved
from stepcost.predicting.times.keys import (
    ATTENTION,
    BATCH_NORM,
    ON_LISTS,
    PRODUCTS,
    TENSOR,
    in_16_bits,
    lengths_of,
    name_of,
)

BY_ELEMENT = (
    *("add", "sub", "mul", "div", "neg", "pow", "rsqrt", "sqrt", "exp", "tanh", "sigmoid", "clamp", "where"),
    *("relu", "threshold", "hardtanh", "hardsigmoid", "hardswish", "silu", "gelu", "native_dropout"),
    *("_to_copy", "clone", "copy", "fill", "zeros_like", "ones_like"),
)
"""Operators that do the same to each element, whatever the shape."""
BY_ROW = (
    "native_layer_norm",
    "_softmax",
    "_log_softmax",
    "_softmax_backward_data",
    "_log_softmax_backward_data",
)
"""Operators that reduce each row, along the last dimension."""
LOADED = 8
"""16-bit values that kernels of libraries load at once: 16 bytes. From other strides they load fewer."""
MINOR = 0.3
"""What a length counts that hardly decides beside the others, as a share of them; judged, not fitted."""


class Family(NamedTuple):
    """An operator without its sizes, and they."""

    name: str
    dtypes: str
    kind: str
    """Its flags, layouts, and which of its tensors are smaller than the largest."""
    sizes: tuple[float, ...]
    """Logarithms of what decides how long it takes."""


@functools.cache
def family_of(key: str) -> Family:
    """Take the sizes out of a key."""
    name = name_of(key)
    if (one := convolved(key)) is not None:
        minor = MINOR * math.log(max(1, one.images[0]))
        return Family(name, one.dtype, one.kind, (*_logarithms(*one.sizes), minor))
    dtypes = ",".join(dtype for dtype, *_ in TENSOR.findall(key))
    if name.startswith(ON_LISTS):
        return Family(name, dtypes, "", ())
    return Family(name, dtypes, *(_of_library(key, name) or _of_torch(key, name)))


def _of_library(key: str, name: str) -> tuple[str, tuple[float, ...]] | None:
    """Return kind and sizes of products, attention and batch norms; ``None`` for other operators."""
    tensors = TENSOR.findall(key)
    if name in PRODUCTS:
        left, right = (lengths_of(each) for each in tensors[-2:])
        layouts = ",".join(layout for *_, layout in tensors[-2:])
        return f"{layouts} {loaded_at_once(key)}", _logarithms(*left, right[-1])
    if name.startswith(ATTENTION):
        *heads, length, width = lengths_of(tensors[0])
        return _flags(key), _logarithms(math.prod(heads), length, width)
    if name.startswith(BATCH_NORM):
        images = lengths_of(tensors[0])
        layouts = ",".join(layout for *_, layout in tensors)
        at_once = math.gcd(images[1], LOADED if in_16_bits(key) else LOADED // 2)
        return f"{layouts} {at_once}", _logarithms(math.prod(images), images[1])
    return None


def _of_torch(key: str, name: str) -> tuple[str, tuple[float, ...]]:
    """Return kind and sizes of an operator of which torch has its own kernels."""
    tensors = TENSOR.findall(key)
    lengths = [lengths_of(each) for each in tensors]
    largest = max(lengths, key=math.prod, default=())
    total = math.prod(largest)
    full = "".join("s" if math.prod(each) < total else "f" for each in lengths)
    kind = ",".join(layout for *_, layout in tensors) + full
    base = name.removesuffix("_").partition(".")[0].removesuffix("_backward")
    if base in BY_ELEMENT:
        return kind, _logarithms(total)
    if base in BY_ROW:
        return kind, _logarithms(total, largest[-1])
    minor = (MINOR * one for one in _logarithms(*largest))
    return kind + str(len(largest)) + _flags(key), (*_logarithms(total), *minor)


def _flags(key: str) -> str:
    """Return a key without tensors and numbers."""
    return re.sub(r"\d+", "#", TENSOR.sub("T", key))


def loaded_at_once(key: str) -> int:
    """Return how many 16-bit values a product's kernels load at once, 1 to 8; 8 in other dtypes."""
    matrices = TENSOR.findall(key)[-2:]
    if not all(dtype in ("bf16", "f16") for dtype, *_ in matrices):
        return LOADED
    strides = [lengths_of(each)[-2 if each[3].startswith("t") else -1] for each in matrices]
    return math.gcd(LOADED, *strides, lengths_of(matrices[1])[-1])


def _logarithms(*numbers: int) -> tuple[float, ...]:
    return tuple(math.log(max(one, 1)) for one in numbers)

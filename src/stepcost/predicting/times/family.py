"""Operators that are alike but for their sizes: what may tell of one whose shapes nobody recorded."""

from __future__ import annotations

import functools
import math
import re
from typing import NamedTuple

TENSOR = re.compile(r"((?:b?f|i|u)\d+|bool)([\[{])([\d,]*)[\]}](@\d+\+?|[lte]?)")
"""A tensor in the key of an operator, or a list of them: dtype, bracket, lengths, layout."""
LISTED = re.compile(r"\[([\d,]*)\]")
"""A list of numbers, where no tensors are left."""
OF_BIAS = re.compile(r"^,\[\d*\]")
BATCH_NORMS = ("cudnn_batch_norm", "native_batch_norm", "_native_batch_norm_legit", "batch_norm")
"""What torch calls batch norm by: cuDNN's on CUDA, its own on the meta device."""
CONVOLUTION, BACKWARD_OF_IT = "convolution", "convolution_backward"
PRODUCTS = ("mm", "addmm", "bmm", "baddbmm")
ON_LISTS = ("_foreach_", "_fused_")
"""Begin operators of optimizers, on many tensors at once."""
BY_ELEMENT = (
    *("add", "sub", "mul", "div", "neg", "pow", "rsqrt", "sqrt", "exp", "tanh", "sigmoid", "clamp", "where"),
    *("relu", "threshold", "hardtanh", "hardsigmoid", "hardswish", "silu", "gelu", "native_dropout"),
    *("_to_copy", "clone", "copy", "fill", "zeros_like", "ones_like"),
)
"""Operators that do the same to each element, whatever the shape."""
FAST_LENGTHS = {"f32": 4, "bf16": 8, "f16": 8}
"""Products take other kernels where a length is no multiple of so many: 16 bytes."""
MINOR = 0.3
"""What a length counts that hardly decides beside the others, as a share of them."""


class Family(NamedTuple):
    """An operator without its sizes, and they."""

    name: str
    dtypes: str
    kind: str
    """Its flags, layouts, and which of its tensors are smaller than the largest."""
    sizes: tuple[float, ...]
    """Logarithms of what decides how long it takes."""


def name_of(key: str) -> str:
    """Return the name of the operator of a key."""
    return key.partition("(")[0]


def in_16_bits(key: str) -> bool:
    """Say whether an operator takes a tensor in bf16 or fp16."""
    return "f16[" in key


@functools.cache
def key_of(text: str) -> str:
    """Return the key under which an operator is looked up: that of the library which CUDA takes for it."""
    name, _, arguments = text.partition("(")
    base = name.removesuffix("_backward")
    tensors = list(TENSOR.finditer(arguments))
    if base in BATCH_NORMS:
        written = [one.group(0) for one in tensors]
        taken = written[:1] if base == name else sorted(written[:2])
        return f"batch_norm{name.removeprefix(base)}({','.join(taken)})"
    if name == BACKWARD_OF_IT and len(tensors) > 2:
        # Sizes of the bias, or none; whether there is one says the mask at the end.
        end = tensors[2].end()
        return f"{name}({arguments[:end]}{OF_BIAS.sub(',-', arguments[end:])}"
    if name.startswith("_scaled_dot_product") and base != name:
        return f"{name}({','.join(one.group(0) for one in tensors[:5])})"
    return text


@functools.cache
def family_of(key: str) -> Family:
    """Take the sizes out of a key."""
    name = name_of(key)
    tensors = TENSOR.findall(key)
    lengths = [[int(one) for one in each.split(",") if one] for _, _, each, _ in tensors]
    dtypes = ",".join(dtype for dtype, *_ in tensors)
    layouts = ",".join(layout for *_, layout in tensors)
    rest = TENSOR.sub("T", key)
    if name in (CONVOLUTION, BACKWARD_OF_IT) and min(map(len, lengths[:2])) > 2:
        return Family(name, dtypes, *_convolution(name, lengths, layouts, rest))
    if name in PRODUCTS:
        left, right = lengths[-2:]
        aligned = FAST_LENGTHS.get(tensors[-1][0], 1)
        odd = "".join("o" if one % aligned else "-" for one in (*left[-2:], right[-1]))
        return Family(name, dtypes, layouts + odd, _logarithms(*left, right[-1]))
    if name.startswith(ON_LISTS):
        return Family(name, dtypes, "", ())
    largest = max(lengths, key=math.prod, default=[])
    full = "".join("s" if math.prod(each) < math.prod(largest) else "f" for each in lengths)
    if name.removesuffix("_").partition(".")[0].removesuffix("_backward") in BY_ELEMENT:
        return Family(name, dtypes, layouts + full, _logarithms(math.prod(largest)))
    kind = layouts + full + str(len(largest)) + re.sub(r"\d+", "#", rest)
    minor = tuple(MINOR * one for one in _logarithms(*largest))
    return Family(name, dtypes, kind, (*_logarithms(math.prod(largest)), *minor))


def _convolution(
    name: str, lengths: list[list[int]], layouts: str, rest: str
) -> tuple[str, tuple[float, ...]]:
    images, weight = lengths[1:3] if name == BACKWARD_OF_IT else lengths[:2]
    stride, *_ = (int(one) for one in LISTED.findall(rest)[-4].split(","))
    flags = rest.rpartition("]")[2] if name == CONVOLUTION else rest.partition("],")[2]
    groups = int(re.findall(r"\d+", rest)[-1])
    batch, channels, *sides = images
    grouped = "plain" if groups == 1 else "depthwise" if groups == channels else "grouped"
    mask = "".join(re.findall("True|False", flags)) if name == BACKWARD_OF_IT else ""
    kind = f"{weight[2:]}/{stride}{grouped}{layouts}{mask}"
    outputs = batch * max(1, math.prod(sides) // stride ** len(sides))
    major = _logarithms(outputs, channels, weight[0], channels // groups)
    return kind, (*major, MINOR * math.log(max(1, batch)))


def _logarithms(*numbers: int) -> tuple[float, ...]:
    return tuple(math.log(max(one, 1)) for one in numbers)


def of_lists(key: str) -> tuple[int, int]:
    """Return how many tensors the first list of an optimizer's operator has, and their elements."""
    found = re.search(r"\{(\d+),(\d+)\}", key)
    return (int(found.group(1)), int(found.group(2))) if found else (1, 0)

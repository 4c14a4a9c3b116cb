"""Keys of operators: names, tensors, and the one key of what CUDA and the meta device call otherwise."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence

TENSOR = re.compile(r"((?:b?f|i|u)\d+|bool)([\[{])([\d,]*)[\]}](@\d+\+?|[lte]?)")
"""A tensor in the key of an operator, or a list of them: dtype, bracket, lengths, layout."""
OF_BIAS = re.compile(r"^,\[\d*\]")
BATCH_NORMS = ("cudnn_batch_norm", "native_batch_norm", "_native_batch_norm_legit", "batch_norm")
"""What torch calls batch norm by: cuDNN's on CUDA, its own on the meta device."""
BATCH_NORM = "batch_norm"
CONVOLUTION, BACKWARD_OF_IT = "convolution", "convolution_backward"
PRODUCTS = ("mm", "addmm", "bmm", "baddbmm")
ATTENTION = "_scaled_dot_product"
"""Begins the names of attention's operators."""
ON_LISTS = ("_foreach_", "_fused_")
"""Begin operators of optimizers, on many tensors at once."""


def name_of(key: str) -> str:
    """Return the name of the operator of a key."""
    return key.partition("(")[0]


def lengths_of(tensor: Sequence[str]) -> tuple[int, ...]:
    """Return the lengths of a tensor that ``TENSOR`` found."""
    return tuple(int(one) for one in tensor[2].split(",") if one)


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
        return f"{BATCH_NORM}{name.removeprefix(base)}({','.join(taken)})"
    if name == BACKWARD_OF_IT and len(tensors) > 2:
        # Sizes of the bias, or none; whether there is one says the mask at the end.
        end = tensors[2].end()
        return f"{name}({arguments[:end]}{OF_BIAS.sub(',-', arguments[end:])}"
    if name.startswith(ATTENTION) and base != name:
        return f"{name}({','.join(one.group(0) for one in tensors[:5])})"
    return text


def of_lists(key: str) -> tuple[int, int]:
    """Return how many tensors the first list of an optimizer's operator has, and their elements."""
    found = re.search(r"\{(\d+),(\d+)\}", key)
    return (int(found.group(1)), int(found.group(2))) if found else (1, 0)

"""An operator as its time is recorded and looked up: one line of text, the bytes it moves, its operations.

The same description is made on a GPU and of meta tensors, so that one finds what the other wrote.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch.utils.flop_counter import conv_flop_count, flop_registry, shape_wrapper

DTYPES = {
    torch.float32: "f32",
    torch.bfloat16: "bf16",
    torch.float16: "f16",
    torch.float64: "f64",
    torch.int64: "i64",
    torch.int32: "i32",
    torch.uint8: "u8",
    torch.bool: "bool",
}
WHERE = ("device", "layout", "pin_memory", "generator")
"""Options that say where a tensor is made and not what is computed."""
ROOM_ONLY = (
    "empty",
    "empty_strided",
    "empty_like",
    "new_empty",
    "new_empty_strided",
    "detach",
    "_unsafe_view",
)
"""Operators that compute nothing and are no views."""
LOOKED_UP = ("embedding", "embedding_dense_backward", "index_select", "gather")
"""Operators that touch of their largest tensor only as much as they return or are given."""


class Operator(NamedTuple):
    """One call of an operator of torch."""

    key: str
    """Its name and arguments: ``mm(f32[64,512],f32[512,10]t)``."""
    bytes: int
    """Of the tensors that it reads and writes."""
    flops: int
    """Operations of matrix products and convolutions (``torch.utils.flop_counter``, ``FLOPS``), else 0."""


def describe(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], made: Any) -> Operator | None:
    """Describe a call that returned ``made``; ``None`` where it computes nothing on its own.

    Views, operators that only make room, and those of torch's profiler are such.
    """
    if func.namespace == "profiler" or func.is_view:
        return None
    name = func._schema.name.removeprefix("aten::")
    if name in ROOM_ONLY:
        return None
    overload = func._overloadname
    named = name if overload == "default" else f"{name}.{overload}"
    parts = [_text(one) for one in args]
    parts += [f"{key}={_text(one)}" for key, one in kwargs.items() if key not in WHERE]
    sizes = [one.numel() * one.element_size() for one in _tensors((args, kwargs.values(), made))]
    if name in LOOKED_UP:
        sizes.remove(max(sizes))
        sizes.append(max(sizes, default=0))
    return Operator(f"{named}({','.join(parts)})", sum(sizes), _flops(func, args, kwargs, made))


def flops_of_gradients(result: Any, images: Any, weight: Any, *options: Any, out_shape: Any = None) -> int:
    """Count the operations of a convolution's gradients, from shapes: each takes as many as forward.

    Torch counts a grouped one's weight as though each group saw all channels: 960 times too many of 960.
    """
    *_, transposed, _, _, mask = options
    return int(sum(mask[:2]) * conv_flop_count(images, weight, result, transposed))


FLOPS = {torch.ops.aten.convolution_backward: flops_of_gradients}
"""Operators whose operations torch miscounts, for its ``FlopCounterMode``, too."""
COUNTED = {**flop_registry, **{one: shape_wrapper(count) for one, count in FLOPS.items()}}


def _flops(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], made: Any) -> int:
    count = COUNTED.get(func._overloadpacket)
    return 0 if count is None else int(count(*args, **kwargs, out_val=made))


def _tensors(values: Iterable[Any]) -> Iterable[torch.Tensor]:
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, Iterable) and not isinstance(value, str):
            yield from _tensors(value)


def _text(value: Any) -> str:
    """Write an argument: shapes, dtypes and whole numbers; no other number decides what a kernel takes."""
    if isinstance(value, torch.Tensor):
        return f"{_short(value.dtype)}[{','.join(map(str, value.shape))}]{_order(value)}"
    if isinstance(value, (list, tuple)):
        tensors = [one for one in value if isinstance(one, torch.Tensor)]
        if tensors:  # of an optimizer's: how many there are, and their elements
            return f"{_short(tensors[0].dtype)}{{{len(tensors)},{sum(one.numel() for one in tensors)}}}"
        return f"[{','.join(map(_text, value))}]"
    if isinstance(value, torch.dtype):
        return _short(value)
    if value is None or isinstance(value, float):
        return "-" if value is None else "."
    return str(value).removeprefix("torch.")


def _short(dtype: torch.dtype) -> str:
    return DTYPES.get(dtype, str(dtype).removeprefix("torch."))


def _order(tensor: torch.Tensor) -> str:
    """Say how a tensor lies in memory: nothing where contiguous, ``l`` channels last, ``t`` transposed.

    Else its dimensions from the outermost to the innermost, with ``+`` where there are gaps; ``e`` where one
    element stands for many.
    """
    if tensor.is_contiguous():
        return ""
    if tensor.dim() == 4 and tensor.is_contiguous(memory_format=torch.channels_last):
        return "l"
    if tensor.dim() >= 2 and tensor.transpose(-1, -2).is_contiguous():
        return "t"
    strides = tensor.stride()
    real = [dim for dim in range(tensor.dim()) if tensor.shape[dim] > 1]
    if any(strides[dim] == 0 for dim in real):
        return "e"
    order = sorted(real, key=lambda dim: -strides[dim])
    reach = 1 + sum((tensor.shape[dim] - 1) * strides[dim] for dim in real)
    gaps = "+" if reach > math.prod(tensor.shape) else ""
    return f"@{''.join(map(str, order))}{gaps}"

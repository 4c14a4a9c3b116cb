"""Operators that torch makes of others: what they allocate is asked of torch, with the tape on inside."""

from __future__ import annotations

import functools
from typing import Any

import torch

COMPOSITE = (
    "CompositeImplicitAutograd",
    "CompositeExplicitAutograd",
    "CompositeExplicitAutogradNonFunctional",
)
AS_ON_CUDA = torch._C.DispatchKeySet(torch._C.DispatchKey.CUDA)


@functools.cache
def is_composite(func: Any) -> bool:
    """Say whether CUDA runs ``func`` by torch's one kernel for all devices, which calls other operators.

    Views allocate nothing, and of foreach operators a CPU build of torch does not know that CUDA has its own.
    """
    name: str = func.name()
    if func.is_view or name.startswith("aten::_foreach_"):
        return False
    has = torch._C._dispatch_has_kernel_for_dispatch_key
    return any(has(name, key) for key in COMPOSITE) and not (has(name, "CUDA") or has(name, "CPU"))


def run_composite(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run that kernel on meta tensors; modes that are on see the operators that it calls."""
    return func.redispatch(AS_ON_CUDA, *args, **kwargs)


def with_tensors(func: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Make tensors of numbers again: C++ hands an operator a number as a tensor, a mode sees a number.

    A number does not widen a tensor of its kind; sums and products take numbers as such.
    """
    places = [place for place in _tensor_places(func) if place < len(args)]
    if not any(isinstance(args[place], int | float) for place in places):
        return args
    beside = next((one.dtype for one in args if isinstance(one, torch.Tensor)), None)
    made = list(args)
    for place in places:
        if isinstance(args[place], int | float):
            kind = torch.get_default_dtype() if isinstance(args[place], float) else torch.int64
            fits = beside is not None and torch.can_cast(kind, beside)
            made[place] = torch.tensor(args[place], dtype=beside if fits else kind, device="cpu")
    return tuple(made)


@functools.cache
def _tensor_places(func: Any) -> frozenset[int]:
    # Private in torch (2.6 to 2.15 have it): whether Python may hand the operator a number for a tensor.
    if torch._C._should_allow_numbers_as_tensors(func._schema.name.removeprefix("aten::")):
        return frozenset()
    return frozenset(
        place for place, one in enumerate(func._schema.arguments) if isinstance(one.type, torch.TensorType)
    )

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

"""Operators that torch makes of others: what they allocate is asked of torch, with the tape on inside."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
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


def _fused_rms_norm(
    images: torch.Tensor, normalized_shape: list[int], weight: torch.Tensor | None, eps: float | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Make what CUDA's kernel makes: the output, and one over the root of the mean square (float32)."""
    kept = [*images.shape[: images.dim() - len(normalized_shape)], *[1] * len(normalized_shape)]
    wide = torch.float64 if images.dtype == torch.float64 else torch.float32
    return torch.empty(images.shape, dtype=images.dtype, device="meta"), torch.empty(
        kept, dtype=wide, device="meta"
    )


@contextlib.contextmanager
def kernels_of_their_own() -> Iterator[None]:
    """Give the meta device what CUDA has a kernel for, where torch would make it of others there."""
    library = torch.library.Library("aten", "IMPL")
    kernels = {
        "mish_backward": lambda gradient, given: torch.empty_like(given),
        "_fused_rms_norm": _fused_rms_norm,
    }
    try:
        for name, kernel in kernels.items():
            if hasattr(torch.ops.aten, name):
                # Past a check of ``Library.impl``: it wants such operators decomposed, as they are for export.
                library.m.impl(name, "Meta", kernel, False)
        yield
    finally:
        library._destroy()

"""Kernels of one's own before autograd's: how operators are met that C++ and Python both call.

Torch dispatches an operator over a list of keys. Two keys of autocast belong to devices that nobody traces on
here; they are switched on for this thread, so that every operator comes by, also those that other operators
call in C++. An operator without a kernel there passes through.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any

import torch

AUTOCAST, ON_CUDA = "AutocastHPU", "AutocastIPU"
"""Casts come first (``autocast.py``), then what CUDA does otherwise (``as_on_cuda.py``)."""
Kernel = Callable[..., Any]
"""Called as ``kernel(proceed, *arguments)``; ``proceed(*arguments)`` is the operator without it."""


@contextlib.contextmanager
def dispatched(key: str, kernels: Mapping[str, Kernel]) -> Iterator[None]:
    """Run ``kernels``, by the names of operators (``dropout``, ``norm.Scalar``), in this thread."""
    dispatch_key, device = getattr(torch._C.DispatchKey, key), key.removeprefix("Autocast").lower()
    after = torch._C._dispatch_keyset_full_after(dispatch_key)
    every = torch.library.Library("_", "IMPL", key)
    library = torch.library.Library("aten", "IMPL", key)
    was_enabled = torch.is_autocast_enabled(device)
    try:
        every.fallback(torch.library.fallthrough_kernel)
        for name, kernel in kernels.items():
            library.impl(name, _with_keys(operator(name), kernel, after), with_keyset=True)
        torch.set_autocast_enabled(device, True)
        with torch._C._IncludeDispatchKeyGuard(dispatch_key):
            yield
    finally:
        torch.set_autocast_enabled(device, was_enabled)
        library._destroy()
        every._destroy()


def operator(name: str) -> Any:
    """Return an operator of torch by its name, such as ``norm.Scalar``."""
    packet, _, overload = name.removeprefix("aten::").partition(".")
    return getattr(getattr(torch.ops.aten, packet), overload or "default")


def without(*keys: str) -> Any:
    """Do not meet operators at ``keys`` meanwhile: a context manager."""
    return torch._C._ExcludeDispatchKeyGuard(_key_set(keys))


@cache
def _key_set(keys: tuple[str, ...]) -> Any:
    first, *others = (torch._C.DispatchKeySet(getattr(torch._C.DispatchKey, key)) for key in keys)
    for one in others:
        first = first | one
    return first


def with_gradient_of_cuda(function: Any) -> Kernel:
    """Return a kernel for an operator that is one on CUDA alone; elsewhere torch composes it of others.

    Autograd's kernel for CUDA records it, and then it comes to the tape, which needs a rule for it.
    """
    dispatch = torch._C.DispatchKey
    keys = torch._C.DispatchKeySet(dispatch.AutogradCUDA) | torch._C.DispatchKeySet(dispatch.Python)

    def run(proceed: Any, input: torch.Tensor, *args: Any) -> Any:
        return function.redispatch(keys, input, *args) if input.is_meta else proceed(input, *args)

    return run


def _with_keys(function: Any, kernel: Kernel, after: Any) -> Any:
    def run(keys: Any, *args: Any, **kwargs: Any) -> Any:
        def proceed(*args: Any, **kwargs: Any) -> Any:
            return function.redispatch(keys & after, *args, **kwargs)

        return kernel(proceed, *args, **kwargs)

    return run

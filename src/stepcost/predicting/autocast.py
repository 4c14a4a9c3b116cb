"""Autocast on meta tensors, as torch does it on CUDA: which operators cast what is asked of torch.

Torch's own state says whether autocast is on and to what: ``torch.autocast("cuda")`` sets it here too. What
an operator does under it is seen by running it once on fake CUDA tensors, which needs no GPU. Source:
``aten/src/ATen/autocast_mode.h`` and ``autocast_mode.cpp``.
"""

from __future__ import annotations

import contextlib
import sys
import weakref
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils._pytree import tree_flatten, tree_unflatten

from stepcost.predicting.autocast_plan import Plan, operators_with_a_rule, plan_of
from stepcost.predicting.dispatched import AUTOCAST, Kernel, dispatched, operator, without

is_on, lower_dtype = torch.is_autocast_enabled, torch.get_autocast_dtype


@contextlib.contextmanager
def as_autocast_on_cuda() -> Iterator[None]:
    """Let autocast work on meta tensors as it does on CUDA ones; ``meta`` is ``cuda`` where it is asked."""
    casts = Casts()
    with contextlib.ExitStack() as stack:
        for owner, name, instead in list(_patches(casts)):
            stack.callback(setattr, owner, name, getattr(owner, name))
            setattr(owner, name, instead)
        stack.enter_context(
            dispatched(AUTOCAST, {name: casts.kernel(operator(name)) for name in operators_with_a_rule()})
        )
        yield


class Casts:
    """The casts of a run, and the weights that are kept cast."""

    def __init__(self) -> None:
        self._plans: dict[Any, Plan] = {}
        self._kept: dict[int, tuple[weakref.ref[torch.Tensor], torch.Tensor]] = {}

    def forget(self) -> None:
        """Drop the weights that are kept, as torch does at the end of the outermost autocast."""
        self._kept.clear()

    def kernel(self, function: Any) -> Kernel:
        """Return the kernel of an operator."""

        def run(proceed: Any, *args: Any, **kwargs: Any) -> Any:
            if not is_on("cuda"):
                return proceed(*args, **kwargs)
            leaves, spec = tree_flatten((args, kwargs))
            with without(AUTOCAST):
                plan = self._plan(function, leaves, spec)
                for index, dtype in plan.casts:
                    leaves[index] = self._cast(leaves[index], dtype)
                args, kwargs = tree_unflatten(leaves, spec)
                if plan.dtype is not None:
                    kwargs = kwargs | {"dtype": plan.dtype}
                return (plan.instead or function)(*args, **kwargs)

        return run

    def _cast(self, tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """Cast; keep a weight's (``cached_cast``)."""
        if tensor.dtype == dtype:
            return tensor
        keeps = (
            torch.is_autocast_cache_enabled()
            and dtype == lower_dtype("cuda")
            and tensor.dtype == torch.float32
            and tensor.requires_grad
            and tensor.is_leaf
            and not tensor._is_view()
        )
        if not keeps:
            return tensor.to(dtype)
        kept = self._kept.get(id(tensor))
        if kept is None or kept[0]() is not tensor:
            kept = self._kept[id(tensor)] = weakref.ref(tensor), tensor.to(dtype)
        return kept[1]

    def _plan(self, function: Any, leaves: list[Any], spec: Any) -> Plan:
        """Return what is done, as was seen the first time."""
        key = (function, lower_dtype("cuda"), *(_seen_as(one) for one in leaves), spec)
        plan = self._plans.get(key)
        if plan is None:
            plan = self._plans[key] = plan_of(function, leaves, spec, lower_dtype("cuda"))
        return plan


def _seen_as(leaf: Any) -> Any:
    """Return what of an argument autocast looks at."""
    if isinstance(leaf, torch.Tensor):
        return leaf.dtype, leaf.is_meta
    return leaf if isinstance(leaf, torch.dtype) else leaf is None


def _cuda(device_type: Any) -> Any:
    return "cuda" if device_type == "meta" else device_type


def _patches(casts: Casts) -> Iterator[tuple[Any, str, Any]]:
    """Torch's Python functions that ask for a device's autocast, or whether there is a GPU for it."""
    modes = sys.modules["torch.amp.autocast_mode"]
    for owner, name in (
        (torch, "is_autocast_enabled"),
        (torch, "get_autocast_dtype"),
        (torch, "set_autocast_enabled"),
        (torch, "set_autocast_dtype"),
        (torch.amp, "is_autocast_available"),
        (modes, "is_autocast_available"),
    ):
        yield owner, name, _of_device(getattr(owner, name))
    yield torch.autocast, "__init__", _refusing_cpu(_of_device(torch.autocast.__init__, 1))
    yield torch.cuda.amp.common, "amp_definitely_not_available", lambda: False
    yield torch.cuda, "is_bf16_supported", lambda *_, **__: True
    plain_clear, plain_cast = torch.clear_autocast_cache, modes._cast

    def clear() -> None:
        casts.forget()
        plain_clear()

    def cast(value: Any, device_type: str, dtype: torch.dtype) -> Any:
        return plain_cast(value, "meta" if device_type == "cuda" else device_type, dtype)

    yield torch, "clear_autocast_cache", clear
    yield modes, "_cast", cast
    # Transformers leaves autocast as it is on the meta device; elsewhere it is switched off for a moment.
    asked = getattr(sys.modules.get("transformers.utils.generic"), "maybe_autocast", None)
    if asked is not None:
        yield asked, "__code__", _maybe_autocast.__code__


def _of_device(function: Any, place: int = 0) -> Any:
    """Return a function that takes ``meta`` for ``cuda`` as its argument ``device_type``."""

    def ask(*args: Any, **kwargs: Any) -> Any:
        if "device_type" in kwargs:
            kwargs["device_type"] = _cuda(kwargs["device_type"])
        return function(*(_cuda(one) if place == index else one for index, one in enumerate(args)), **kwargs)

    return ask


def _refusing_cpu(made: Any) -> Any:
    """Refuse the processor's autocast: on CUDA it does nothing, and most that ask for it would not there."""

    def init(self: Any, device_type: str, dtype: Any = None, enabled: bool = True, **more: Any) -> None:
        if device_type == "cpu" and enabled:
            raise ValueError(
                "the step enters autocast of the CPU, and on CUDA it would be another; "
                "torch.autocast(tensor.device.type, ...) is right on both"
            )
        made(self, device_type, dtype, enabled, **more)

    return init


def _maybe_autocast(
    device_type: Any, dtype: Any = None, enabled: bool = True, cache_enabled: Any = None
) -> Any:
    """Do what transformers' function of this name does, for the meta device too; its code takes its place."""
    import contextlib  # noqa: PLC0415 (it runs among the names of another module)

    import torch  # noqa: PLC0415

    if torch.is_autocast_enabled(device_type) or enabled:
        return torch.autocast(device_type, dtype=dtype, enabled=enabled, cache_enabled=cache_enabled)
    return contextlib.nullcontext()

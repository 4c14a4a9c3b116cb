"""What autocast does to the arguments of an operator: asked of torch.

The operator is run once on fake CUDA tensors under autocast, which needs no GPU, and what it does first is
seen. Which operators have a rule is asked too, of torch's dispatcher.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
from torch._subclasses import fake_tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_unflatten

from stepcost.predicting.dispatched import AUTOCAST, ON_CUDA, without

LOWER = (torch.float16, torch.bfloat16)


def operators_with_a_rule() -> list[str]:
    """Name the operators to which torch's autocast for CUDA does something."""
    return [
        name.removeprefix("aten::")
        for name in torch._C._dispatch_get_all_op_names()
        if name.startswith("aten::") and torch._C._dispatch_has_kernel_for_dispatch_key(name, "AutocastCUDA")
    ]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What autocast does to the arguments of an operator."""

    casts: tuple[tuple[int, torch.dtype], ...] = ()
    """Which of the flattened arguments are cast and to what, in order."""
    dtype: torch.dtype | None = None
    """What the operator is told to compute in."""
    instead: Any = None
    """The overload that can be told so."""


class _Watch(TorchDispatchMode):
    """Note which of some tensors are cast before anything else is done."""

    def __init__(self, leaves: list[Any]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._index = {id(one): number for number, one in enumerate(leaves)}
        self.casts: list[tuple[int, torch.dtype]] = []
        self._done = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operator."""
        if func.namespace != "prim" and not self._done:
            index = self._index.get(id(args[0])) if args else None
            if func is torch.ops.aten._to_copy.default and index is not None:
                self.casts.append((index, (kwargs or {})["dtype"]))
            else:
                self._done = True
        return func(*args, **(kwargs or {}))


def plan_of(function: Any, leaves: list[Any], spec: Any, lower: torch.dtype) -> Plan:
    """Run the operator on fake CUDA tensors under autocast, and see what it does to them."""

    def fake(leaf: Any) -> Any:
        if not isinstance(leaf, torch.Tensor):
            return leaf
        device = "cuda" if leaf.is_meta else leaf.device
        return torch.empty_strided(leaf.shape, leaf.stride(), dtype=leaf.dtype, device=device)

    own: list[tuple[int, torch.dtype]] = []

    def run() -> tuple[list[tuple[int, torch.dtype]], Any]:
        fakes = [fake(leaf) for leaf in leaves]
        args, kwargs = tree_unflatten(fakes, spec)
        with _Watch(fakes) as watch:
            made = function(*args, **kwargs)
        return watch.casts, made[0] if isinstance(made, (tuple, list)) else made

    # Fused attention would ask the driver which card there is; products are cast as it is. And where there is
    # a card, fake tensors would start CUDA in this process, for a backward pass that is never run.
    neutral: tuple[Any, ...] = (
        without(AUTOCAST, ON_CUDA),
        torch.no_grad(),
        sdpa_kernel(SDPBackend.MATH),
        mock.patch.object(fake_tensor, "init_gpu_context"),
        FakeTensorMode(),
    )
    with _disable_current_modes(), contextlib.ExitStack() as stack:
        for one in neutral:
            stack.enter_context(one)
        casts, made = run()
        to_lower = [one for one in casts if one[1] == lower]
        if casts and not to_lower:  # to float32, as some operators do by themselves
            # Autocast is needed where that is an error.
            with torch.autocast("cuda", enabled=False), contextlib.suppress(RuntimeError):
                own, _ = run()
        casts = to_lower or [one for one in casts if one not in own]
    first = next((one for one in leaves if isinstance(one, torch.Tensor)), None)
    names = [one.name for one in function._schema.arguments]
    args, kwargs = tree_unflatten(leaves, spec)
    if "dtype" in names and (dict(zip(names, args, strict=False)) | kwargs).get("dtype") is None:
        # Sums and softmax are told what to compute in.
        return Plan(dtype=None if first is None or made.dtype == first.dtype else made.dtype)
    if casts or first is None or first.dtype not in LOWER or made.dtype in LOWER:
        return Plan(casts=tuple(casts))
    instead = _told_dtype(function)
    return Plan() if instead is None else Plan(dtype=made.dtype, instead=instead)


def _told_dtype(function: Any) -> Any:
    """Return the overload that takes the same arguments and a dtype (of ``norm``); ``None`` without one."""
    names = [one.name for one in function._schema.arguments]
    packet = getattr(torch.ops.aten, function._schema.name.removeprefix("aten::"))
    for overload in packet.overloads():
        found = getattr(packet, overload)
        if [one.name for one in found._schema.arguments] == [*names, "dtype"]:
            return found
    return None

"""Real values of small tensors beside the meta ones: models ask whether a mask is full, or where it is.

What is made of numbers or of the batch is computed on the CPU too, as far as it does not depend on weights.
It is kept by storage, so that views see what is written through others.
"""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch.utils._pytree import tree_flatten, tree_unflatten

aten = torch.ops.aten
MOST_ELEMENTS, MOST_FLOATS, MOST_FLOATS_OF_STATE = 1 << 22, 1 << 20, 1 << 12
"""Values of larger tensors are not kept: they would cost time, and nobody asked for one yet. An optimizer
asks for single numbers, and makes as many zeros as there are weights."""
SHAPED_BY_VALUES = (
    aten.nonzero.default,
    aten.masked_select.default,
    aten.bincount.default,
    aten.repeat_interleave.Tensor,
    aten._unique2.default,
    aten.unique_dim.default,
    aten.unique_consecutive.default,
)
"""Operators that cannot say without values how much they return."""
OVERWRITES = ("aten::fill_", "aten::zero_", "aten::copy_", "aten::random_")
"""Operators after which a whole tensor is known, whatever was there."""
MASKS = (torch.bool, torch.uint8)
A_NUMBER = aten._local_scalar_dense.default
OF_GRADIENTS = (aten._amp_foreach_non_finite_check_and_unscale_.default,)
"""A step is predicted as though no gradient overflowed: the flag that says so stays as it was."""


class Values:
    """What is known of the values of meta tensors."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[torch.UntypedStorage, weakref.ref[Any]]] = {}

    def of(self, tensor: torch.Tensor) -> torch.Tensor | None:
        """Return the values of a meta tensor, with its strides; ``None`` where they are not known."""
        known = self._known.get(tensor.untyped_storage()._cdata)
        if known is None:
            return None
        place = tensor.storage_offset(), tensor.shape, tensor.stride()
        return torch.empty(0, dtype=tensor.dtype).set_(known[0], *place)

    def _has(self, tensor: torch.Tensor) -> bool:
        return tensor.untyped_storage()._cdata in self._known

    def answer(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], *, else_one: bool) -> Any:
        """Answer an operator that ``is_asked``; with 1.0 for a float that is not known, where that will do.

        Raises ``ValueError`` in one line where it is not known.
        """
        asked = [isinstance(one, torch.Tensor) and one.is_meta for one in args]
        known = [self.of(one) if is_meta else one for one, is_meta in zip(args, asked, strict=True)]
        if any(one is None and is_meta for one, is_meta in zip(known, asked, strict=True)):
            one = args[asked.index(True)]
            if else_one and func is A_NUMBER and one.is_floating_point():
                return 1.0
            raise ValueError(
                f"the step asks for the value of a tensor {tuple(one.shape)} of "
                f"{str(one.dtype).removeprefix('torch.')}, which only a real step has"
            )
        return func(*known, **kwargs)

    def shaped(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Make what an operator of ``SHAPED_BY_VALUES`` returns, without noting it.

        Raises ``ValueError`` in one line where the values are not known.
        """
        if func is aten.masked_select.default:  # of anything, by a mask that must be known
            tensor, mask = args
            spread = torch.broadcast_shapes(tensor.shape, mask.shape)
            chosen = self._needed(func, mask).expand(spread).sum().item()
            return torch.empty(int(chosen), dtype=tensor.dtype, device="meta")
        known = [self._needed(func, one) if isinstance(one, torch.Tensor) else one for one in args]
        found = func(*known, **kwargs)
        made = [
            torch.empty_strided(one.shape, one.stride(), dtype=one.dtype, device="meta")
            for one in (found if isinstance(found, tuple) else (found,))
        ]
        for one, values in zip(made, found if isinstance(found, tuple) else (found,), strict=True):
            if one.numel():
                self.know(one, values)
        return tuple(made) if isinstance(found, tuple) else made[0]

    def _needed(self, func: Any, tensor: torch.Tensor) -> torch.Tensor:
        values = self.of(tensor) if tensor.is_meta else tensor
        if values is None:
            raise ValueError(
                f"what {func.__name__.split('.')[0]} returns depends on values of a tensor "
                f"{tuple(tensor.shape)}, which only a real step has"
            )
        return values

    def follow(
        self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], made: Any, *, by_optimizer: bool
    ) -> None:
        """Compute what ``func`` made of ``args`` where that is small and known; forget what it overwrote."""
        changes = func._schema.is_mutable
        is_kept = _is_kept(made, MOST_FLOATS_OF_STATE if by_optimizer else MOST_FLOATS)
        if func in OF_GRADIENTS or not (changes or is_kept):
            return
        if not changes and self._has(made):  # a view
            return
        if not changes and any(
            isinstance(one, torch.Tensor) and one.is_meta and not self._has(one) for one in args
        ):
            return  # nothing follows from what is not known
        leaves, spec = tree_flatten((args, kwargs))
        meta = [one for one in leaves if isinstance(one, torch.Tensor) and one.is_meta]
        if changes and not (is_kept or any(self.of(one) is not None for one in meta)):
            return
        if func._schema.name.startswith("aten::empty") or func._schema.name == "aten::new_empty":
            return
        if func._schema.name in OVERWRITES and _fills_its_storage(made) and self.of(made) is None:
            self.know(made, torch.zeros((), dtype=made.dtype))
        found = self._computed(func, leaves, spec)
        if found is None:
            if changes:
                for one in meta:
                    self._known.pop(one.untyped_storage()._cdata, None)
        elif isinstance(made, torch.Tensor) and made.is_meta:
            self.know(made, found)

    def know(self, tensor: torch.Tensor, values: torch.Tensor) -> None:
        """Say what the values of a meta tensor are; what shares its storage is known with it."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key not in self._known:
            twin = torch.UntypedStorage(storage.nbytes())
            self._known[key] = twin, weakref.ref(storage, lambda _: self._known.pop(key, None))
        own = self.of(tensor)
        if own is not None and own.data_ptr() != values.data_ptr():
            own.copy_(values)

    def forget(self, tensors: Any) -> None:
        """Take note that lists of tensors are overwritten with what is not known."""
        for one in tree_flatten(tensors)[0]:
            if isinstance(one, torch.Tensor):
                self._known.pop(one.untyped_storage()._cdata, None)

    def _computed(self, func: Any, leaves: list[Any], spec: Any) -> torch.Tensor | None:
        """Run ``func`` on the values of its arguments; ``None`` where one is unknown or it cannot be run."""
        real = []
        for leaf in leaves:
            one = leaf
            if isinstance(leaf, torch.Tensor):
                one = self.of(leaf) if leaf.is_meta else leaf
                if one is None:
                    return None
            elif isinstance(leaf, torch.device):
                one = torch.device("cpu")
            real.append(one)
        args, kwargs = tree_unflatten(real, spec)
        try:
            found = func(*args, **kwargs)
        except (RuntimeError, NotImplementedError):
            return None
        return found if isinstance(found, torch.Tensor) else None


def _fills_its_storage(tensor: torch.Tensor) -> bool:
    return tensor.numel() * tensor.element_size() == tensor.untyped_storage().nbytes()


def is_asked(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Say whether an operator answers with values of meta tensors, or copies them to the CPU."""
    tensors = [one for one in args if isinstance(one, torch.Tensor)]
    if func is aten._to_copy.default:
        device = kwargs.get("device")
        return tensors[0].is_meta and device is not None and device.type == "cpu"
    if func is aten.copy_.default:
        return not tensors[0].is_meta and tensors[1].is_meta
    return func in (A_NUMBER, aten.equal.default) and any(one.is_meta for one in tensors)


def _is_kept(made: Any, most_floats: int) -> bool:
    """Say whether values of this are kept where they are known: of a tensor that is not large."""
    if not isinstance(made, torch.Tensor) or not made.is_meta:
        return False
    return 0 < made.numel() <= (most_floats if made.is_floating_point() else MOST_ELEMENTS)

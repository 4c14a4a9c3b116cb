"""Operators of which CUDA makes other memory than the meta device: a rule for each."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from typing import Any

import torch

from stepcost.predicting import cudnn, indexing
from stepcost.predicting.embedding import EMBEDDING_RULES
from stepcost.predicting.fused_attention import ATTENTION_RULES
from stepcost.predicting.losses import LOSS_RULES
from stepcost.predicting.norms import NORM_RULES
from stepcost.predicting.reduction import REDUCTION_RULES
from stepcost.predicting.tape import EXCHANGED, GEMM, Rule, Tape

aten = torch.ops.aten


def _add(tape: Tape, func: Any, left: Any, right: Any, **options: Any) -> Any:
    """Two sums that torch writes over an operand, but never on meta tensors.

    Autograd adds to a gradient that nobody else holds, and a linear layer adds its bias to
    a product (``aten/src/ATen/native/Linear.cpp``).
    """
    if not options and isinstance(right, torch.Tensor) and right.is_meta and _are_alike(left, right):
        made = torch.empty(left.shape, dtype=left.dtype, device="meta")
    else:
        made = func(left, right, **options)
    if not options and isinstance(right, torch.Tensor):
        alike = left.shape == made.shape and left.dtype == made.dtype
        if tape.sums_in_place() and alike and _is_alone(left):
            return tape.note_in_place(made, left)
    return tape.note(made)


def _value_by_value(tape: Tape, func: Any, *args: Any, **options: Any) -> Any:
    """Make what has a value for each of its operands', which torch is slow to work out on meta tensors."""
    tensors = [one for one in args if isinstance(one, torch.Tensor)]
    as_it_is = all(one is torch.preserve_format for one in options.values())
    if as_it_is and tensors[0].is_floating_point() and _are_alike(*tensors):
        return tape.note(torch.empty(tensors[0].shape, dtype=tensors[0].dtype, device="meta"))
    return tape.note(func(*args, **options))


def _are_alike(one: torch.Tensor, *others: torch.Tensor) -> bool:
    """Say whether all have the same shape and dtype, and dimensions in order: so has what is made of them."""
    alike = all(one.is_meta and (one.shape, one.dtype) == (other.shape, other.dtype) for other in others)
    return alike and all(
        high > low > 0 for tensor in (one, *others) for high, low in itertools.pairwise(tensor.stride())
    )


def _is_alone(tensor: torch.Tensor) -> bool:
    """Say whether the tensor fills a storage that no other tensor shares; a view shares its base's."""
    fills = tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()
    return fills and not tensor._is_view()


def _dropout_in_one(tape: Tape, func: Any, *args: Any, **kwargs: Any) -> Any:
    """Make the mask first, then the output."""
    out, mask = func(*args, **kwargs)
    tape.note((mask, out))
    return out, mask


def _roll(tape: Tape, func: Any, tensor: torch.Tensor, shifts: list[int], dims: Iterable[int] = ()) -> Any:
    """CUDA rolls contiguous memory, one dimension at a time, each into memory of its own.

    ``roll_common`` in ``aten/src/ATen/native/TensorTransformations.h`` and ``roll_cuda`` next to it.
    """
    between = [tensor.numel() * tensor.element_size()] * (len(shifts) - 1)
    held = []
    # The first roll gives its copy of the input back before the second begins.
    with tape.copied((tensor, "nchw")):
        if not between:
            return tape.note(torch.empty(tensor.shape, dtype=tensor.dtype, device="meta"))
        held.append(tape.hold(between.pop()))
    held += [tape.hold(size) for size in between]
    out = tape.note(torch.empty(tensor.shape, dtype=tensor.dtype, device="meta"))
    for one in reversed(held):
        tape.drop(one)
    return out


def _scalar_tensor(tape: Tape, func: Any, *args: Any, **kwargs: Any) -> Any:
    """Keep on the CPU a number written into part of a tensor (``set_item`` in ``ATen/TensorIndexing.h``)."""
    if tape.in_setitem:
        kwargs["device"] = "cpu"
    return tape.note(func(*args, **kwargs))


def _index_put(tape: Tape, func: Any, tensor: torch.Tensor, indices: Any, values: Any, *rest: Any) -> Any:
    """Autograd adds the gradient of ``tensor[index, ...]`` in place, by sorting the indices.

    ``index_put_with_sort_kernel`` in ``aten/src/ATen/native/cuda/Indexing.cu``: each index within bounds and
    times its stride, added up to addresses; the values, the sorted addresses, their old places, these
    numbered, and what the sort takes. Indices that are not next to each other are not known here.
    """
    made = func(tensor, indices, values, *rest)
    accumulates = bool(rest and rest[0])
    if not accumulates or not tape.sums_in_place() or not _is_alone(tensor):
        return tape.note(made)
    given = [(dim, index) for dim, index in enumerate(indices) if index is not None]
    number = math.prod(torch.broadcast_shapes(*(index.shape for _, index in given)))
    if number:
        size, slice_values = number * indexing.INDEX_BYTES, math.prod(tensor.shape[given[-1][0] + 1 :])
        within, addresses = tape.hold(size), tape.hold(size)
        tape.drop(within)
        for _ in given[1:]:
            with tape.holding(size, size):
                pass
        sort = indexing.sort_bytes(number, ((tensor.numel() - 1) // slice_values).bit_length())
        with tape.copied((values, "nchw")), tape.holding(size, size, size, sort):
            pass
        tape.drop(addresses)
    return tape.note_in_place(made, tensor)


CHUNK_VALUES = 65536


def _foreach_norm(tape: Tape, func: Any, tensors: list[torch.Tensor], *args: Any, **kwargs: Any) -> Any:
    """Make a sum for each chunk of the longest tensor, for every tensor; then the norms.

    ``foreach_tensor_norm_cuda`` in ``aten/src/ATen/native/cuda/ForeachReduceOp.cu``.
    """
    made = func(tensors, *args, **kwargs)
    chunks = max(-(-one.numel() // CHUNK_VALUES) for one in tensors)
    with tape.holding(len(tensors) * chunks * max(4, tensors[0].element_size())):
        return tape.note(made)


def _gemm(tape: Tape, func: Any, *args: Any, **kwargs: Any) -> Any:
    """cuBLAS makes the output; its handle takes a workspace.

    cuBLASLt takes one of its own where it adds a bias (``isInputCompliesAddmmCudaLt`` in
    ``aten/src/ATen/native/cuda/Blas.cpp``).
    """
    made = tape.note(func(*args, **kwargs))
    bias, matrix = args[0], args[-1]
    with_bias = (
        func is aten.addmm.default and bias.dim() == 1 and bias.is_contiguous() and min(matrix.shape) > 1
    )
    tape.events.append((GEMM, tape.phase, with_bias and kwargs.get("beta", 1) == 1))
    return made


def _exchange(tape: Tape, func: Any, *args: Any) -> Any:
    """Several GPUs exchange what is in some tensors, in place."""
    tape.events.append(EXCHANGED)
    return func(*args)


PRODUCTS = (
    *(getattr(aten, name).default for name in ("mm", "addmm", "addmm_", "bmm", "baddbmm", "baddbmm_")),
    *(getattr(aten, name).default for name in ("addmv", "addmv_", "dot", "vdot")),
    *(getattr(aten, name).out for name in ("mm", "addmm", "bmm", "baddbmm", "addmv")),
)
"""Operators that call cuBLAS."""
VALUE_BY_VALUE = (
    *(getattr(aten, name).default for name in ("empty_like", "zeros_like", "clone")),
    *(getattr(aten, name).default for name in ("threshold_backward", "sigmoid_backward")),
    aten.mul.Tensor,
)
"""Operators with one value for each of their operands', that steps call often."""
RULES: dict[Any, Rule] = {
    **ATTENTION_RULES,
    **EMBEDDING_RULES,
    **LOSS_RULES,
    **NORM_RULES,
    **REDUCTION_RULES,
    aten.convolution.default: cudnn.convolution,
    aten.convolution_backward.default: cudnn.convolution_backward,
    aten.native_batch_norm.default: cudnn.batch_norm,
    aten.native_batch_norm_backward.default: cudnn.batch_norm_backward,
    aten.native_dropout.default: _dropout_in_one,
    aten.add.Tensor: _add,
    **dict.fromkeys(VALUE_BY_VALUE, _value_by_value),
    aten.roll.default: _roll,
    **dict.fromkeys((aten.index_put.default, aten._index_put_impl_.default), _index_put),
    aten.scalar_tensor.default: _scalar_tensor,
    aten._foreach_norm.Scalar: _foreach_norm,
    **dict.fromkeys(PRODUCTS, _gemm),
    torch.ops.c10d.broadcast_.default: _exchange,
}

"""Operators of which CUDA makes other memory than the meta device: a rule for each."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch

from stepcost.predicting import cudnn, indexing
from stepcost.predicting.reduction import note_reduction
from stepcost.predicting.tape import GEMM, Rule, Tape
from stepcost.reading import BACKWARD

aten = torch.ops.aten


def _add(tape: Tape, func: Any, left: Any, right: Any, **options: Any) -> Any:
    """Two sums that torch writes over an operand, but never on meta tensors.

    Autograd adds to a gradient that nobody else holds, and a linear layer adds its bias to
    a product (``aten/src/ATen/native/Linear.cpp``).
    """
    made = func(left, right, **options)
    if not options and isinstance(right, torch.Tensor):
        # Autograd's own sums are made without recording; what a checkpoint computes again is recorded.
        of_autograd = tape.phase == BACKWARD and not torch.is_grad_enabled()
        alike = left.shape == made.shape and left.dtype == made.dtype
        if (of_autograd or tape.adds_in_place) and alike and _is_alone(left):
            return tape.note_in_place(made, left)
    return tape.note(made)


def _is_alone(tensor: torch.Tensor) -> bool:
    """Say whether the tensor fills a storage that no other tensor shares; a view shares its base's."""
    fills = tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()
    return fills and not tensor._is_view()


def _layer_norm(tape: Tape, func: Any, images: torch.Tensor, *rest: Any) -> Any:
    """CUDA normalizes contiguous memory into contiguous memory, and copies what is not."""
    with tape.copied((images, "nchw")):
        return tape.note(_contiguous(func(images, *rest)))


def _layer_norm_backward(
    tape: Tape, func: Any, gradient: torch.Tensor, images: torch.Tensor, *rest: Any
) -> Any:
    """Copy inputs and gradient that are not contiguous; make contiguous gradients."""
    with tape.copied((images, "nchw")):
        made = tape.note(_contiguous(func(gradient, images, *rest)))
        with tape.copied((gradient, "nchw")):
            return made


def _contiguous(made: Iterable[torch.Tensor | None]) -> tuple[torch.Tensor | None, ...]:
    """Tensors of the same shapes, each contiguous: the meta device gives them the strides of an input."""
    return tuple(
        None if one is None else torch.empty(one.shape, dtype=one.dtype, device="meta") for one in made
    )


def _softmax_backward(tape: Tape, func: Any, gradient: torch.Tensor, *rest: Any) -> Any:
    """Make the gradient, then gradient times output (``aten/src/ATen/native/cuda/SoftMax.cu``)."""
    made = tape.note(func(gradient, *rest))
    with tape.holding(gradient.numel() * gradient.element_size()):
        return made


def _efficient_attention(tape: Tape, func: Any, *args: Any, **kwargs: Any) -> Any:
    """Make the output and the logarithms of its sums; the seed and offset of dropout stay on the CPU."""
    made = func(*args, **kwargs)
    tape.note(made[:2])
    return made


def _efficient_attention_backward(tape: Tape, func: Any, *args: Any, **kwargs: Any) -> Any:
    """Make three gradients, and also row sums of gradient times output, and blocks of one gradient.

    ``aten/src/ATen/native/transformers/cuda/attention_backward.cu``, and ``kernel_backward.h`` for float32:
    blocks of 64 queries by 64 features, each with 16 bytes to count who has added to it.
    """
    gradient, query = args[0], args[1]
    made = func(*args, **kwargs)
    batch, heads, queries, features = query.shape
    sums = 4 * batch * heads * queries
    blocks = batch * heads * -(-queries // 64) * -(-features // 64)
    with tape.copied((gradient.transpose(1, 2), "nchw")):
        tape.note(made)
        product, first = tape.hold(gradient.numel() * 4), tape.hold(sums)
        kept = tape.hold(sums)
        tape.drop(first)
        tape.drop(product)
        with tape.holding(blocks * (64 * 64 * 4 + 16)):
            tape.drop(kept)
    return made


def _dropout_in_one(tape: Tape, func: Any, *args: Any, **kwargs: Any) -> Any:
    """Make the mask first, then the output."""
    out, mask = func(*args, **kwargs)
    tape.note((mask, out))
    return out, mask


def _reduce(tape: Tape, func: Any, tensor: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
    """Make the output; a long sum is split over blocks, which need memory to meet in."""
    made = tape.note(func(tensor, *args, **kwargs))
    dims = args[0] if args and isinstance(args[0], (list, tuple)) else []
    note_reduction(tape, tensor, list(dims))
    return made


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
    """Autograd adds the gradient of ``tensor[index]`` in place, for one index by sorting it.

    ``index_put_with_sort_kernel`` in ``aten/src/ATen/native/cuda/Indexing.cu``: the index within bounds, its
    addresses, the values, the sorted addresses, their old places, these numbered, and what the sort takes.
    """
    made = func(tensor, indices, values, *rest)
    accumulates = bool(rest and rest[0])
    if tape.phase != BACKWARD or not accumulates or not _is_alone(tensor):
        return tape.note(made)
    given = [(dim, index) for dim, index in enumerate(indices) if index is not None]
    if len(given) == 1 and given[0][1].numel():
        dim, index = given[0]
        size, slice_values = index.numel() * indexing.INDEX_BYTES, math.prod(tensor.shape[dim + 1 :])
        within = tape.hold(size)
        addresses = tape.hold(size)
        tape.drop(within)
        sort = indexing.sort_bytes(index.numel(), (tensor.numel() - 1) // slice_values)
        with tape.copied((values, "nchw")), tape.holding(size, size, size, sort):
            pass
        tape.drop(addresses)
    return tape.note_in_place(made, tensor)


def _gemm(tape: Tape, func: Any, *args: Any, **kwargs: Any) -> Any:
    """cuBLAS makes the output; its handle takes a workspace."""
    made = tape.note(func(*args, **kwargs))
    tape.events.append((GEMM, tape.phase, func is aten.addmm.default))
    return made


def _rms_norm(tape: Tape, func: Any, images: torch.Tensor, shape: list[int], *rest: Any) -> Any:
    """Make the output, then the inverse of each root mean square (float32)."""
    outer = images.shape[: images.dim() - len(shape)]
    out = torch.empty(images.shape, dtype=images.dtype, device="meta")
    return tape.note((out, torch.empty((*outer, *(1 for _ in shape)), device="meta")))


def _mish_backward(tape: Tape, func: Any, gradient: torch.Tensor, images: torch.Tensor) -> Any:
    """Make the gradient alone; the meta device would compose it of many products."""
    return tape.note(aten.mul.Tensor(gradient, images))


RULES: dict[Any, Rule] = {
    aten.convolution.default: cudnn.convolution,
    aten.convolution_backward.default: cudnn.convolution_backward,
    aten.native_batch_norm.default: cudnn.batch_norm,
    aten.native_batch_norm_backward.default: cudnn.batch_norm_backward,
    aten.native_layer_norm.default: _layer_norm,
    aten._fused_rms_norm.default: _rms_norm,
    aten.mish_backward.default: _mish_backward,
    aten.native_layer_norm_backward.default: _layer_norm_backward,
    aten._scaled_dot_product_efficient_attention.default: _efficient_attention,
    aten._scaled_dot_product_efficient_attention_backward.default: _efficient_attention_backward,
    aten._softmax_backward_data.default: _softmax_backward,
    aten.native_dropout.default: _dropout_in_one,
    aten.add.Tensor: _add,
    aten.roll.default: _roll,
    **dict.fromkeys((aten.index_put.default, aten._index_put_impl_.default), _index_put),
    aten.scalar_tensor.default: _scalar_tensor,
    **dict.fromkeys((aten.sum.default, aten.sum.dim_IntList, aten.mean.default, aten.mean.dim), _reduce),
    **dict.fromkeys((aten.mm.default, aten.addmm.default, aten.bmm.default, aten.baddbmm.default), _gemm),
}

"""Where CUDA does otherwise than the meta device: operators by rule, torch's own choices by patch."""

from __future__ import annotations

import contextlib
import importlib
import math
from collections.abc import Iterable, Iterator
from typing import Any
from unittest import mock

import torch
from torch.nn import functional

from stepcost.predict import convolution, indexing, reduction
from stepcost.predict.convolution import Convolution
from stepcost.predict.tape import GEMM, REDUCTION, WORKSPACE, Rule, Tape, memory_format_of
from stepcost.reading import BACKWARD

aten = torch.ops.aten


def _convolution(tape: Tape, func: Any, *args: Any) -> torch.Tensor:
    """cuDNN makes the output, then takes a workspace."""
    images, weight, _bias, stride, padding, dilation, transposed, _output_padding, groups = args
    if transposed or images.dim() != 4:
        out: torch.Tensor = tape.note(func(*args))
        return out
    described = convolution.describe(images, weight, (stride, padding, dilation), groups)
    _must_fit(described)
    out = _empty(
        images, (images.shape[0], described.outputs, *described.output_size), described.output_layout
    )
    tape.note(out)
    # Layouts are part of what was recorded; a tensor that fits neither is copied first.
    with tape.copied((images, described.input_layout), (weight, described.output_layout)):
        tape.events.append((WORKSPACE, described, (images.shape[0], convolution.FORWARD)))
    return out


def _must_fit(described: Convolution) -> None:
    if min(described.output_size) < 1:
        height, width = described.size
        raise ValueError(f"a convolution gets {height}x{width} pixels, less than its kernel")


def _empty(like: torch.Tensor, shape: Iterable[int], layout: str) -> torch.Tensor:
    return torch.empty(tuple(shape), dtype=like.dtype, device="meta", memory_format=memory_format_of(layout))


def _convolution_backward(tape: Tape, func: Any, *args: Any) -> Any:
    """cuDNN makes each gradient, then takes a workspace for it."""
    gradient, images, weight, _bias_sizes, stride, padding, dilation, transposed, _, groups, wanted = args
    if transposed or images.dim() != 4:
        return tape.note(func(*args))
    described = convolution.describe(images, weight, (stride, padding, dilation), groups)
    made: list[torch.Tensor | None] = [None, None, None]

    def make(index: int) -> None:
        like = (images, weight)[index]
        made[index] = tape.note(_empty(like, like.shape, described.output_layout))

    layout = described.output_layout
    depthwise = described.kind[3] == "depthwise" and layout == "nchw"
    if depthwise and wanted[1]:
        make(1)  # torch's own depthwise kernel; the others are cuDNN's
    # A gradient in another layout than the images' is copied once, one with gaps for each direction.
    with contextlib.ExitStack() as both:
        if convolution.layout_of(gradient) != layout:
            both.enter_context(tape.copied((gradient, layout)))
            copies: list[tuple[torch.Tensor, str]] = [(images, described.input_layout)]
        else:
            copies = [(gradient, layout), (images, described.input_layout)]
        if wanted[0]:
            make(0)
            with tape.copied(*copies, (weight, layout)):
                tape.events.append((WORKSPACE, described, (images.shape[0], convolution.BACKWARD_DATA)))
        if wanted[1]:
            with tape.copied(*copies):
                if not depthwise:
                    make(1)
                tape.events.append((WORKSPACE, described, (images.shape[0], convolution.BACKWARD_WEIGHT)))
    if wanted[2]:
        made[2] = tape.note(torch.empty(weight.shape[0], dtype=weight.dtype, device="meta"))
        _note_reduction(tape, gradient, [0, 2, 3])
    return tuple(made)


def _batch_norm(tape: Tape, func: Any, images: torch.Tensor, weight: Any, *rest: Any) -> Any:
    """Make the output, then the saved mean and inverse deviation (float32)."""
    out = torch.empty_like(images)
    saved = [torch.empty(images.shape[1], dtype=torch.float32, device="meta") for _ in range(2)]
    return tape.note((out, *saved))


def _batch_norm_backward(
    tape: Tape,
    func: Any,
    gradient: torch.Tensor,
    images: torch.Tensor,
    weight: torch.Tensor | None,
    *rest: Any,
) -> Any:
    """Make the gradients of images, weight and bias."""
    made = [torch.empty_like(images)]
    if weight is None:
        return (*tape.note(made), None, None)
    made += [torch.empty_like(weight), torch.empty_like(weight)]
    return tuple(tape.note(made))


def _add(tape: Tape, func: Any, left: Any, right: Any, **options: Any) -> Any:
    """Two sums that torch writes over an operand, but never on meta tensors.

    Autograd adds to a gradient that nobody else holds, and a linear layer adds its bias to
    a product (``aten/src/ATen/native/Linear.cpp``).
    """
    made = func(left, right, **options)
    if not options and isinstance(right, torch.Tensor):
        in_place = tape.phase == BACKWARD or tape.in_linear
        if in_place and left.shape == made.shape and _is_alone(left):
            return tape.note_in_place(made, left)
    return tape.note(made)


def _is_alone(tensor: torch.Tensor) -> bool:
    """Does the tensor fill a storage that no other tensor shares? A view shares its base's."""
    fills = tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()
    return fills and not tensor._is_view()


def _layer_norm(tape: Tape, func: Any, images: torch.Tensor, *rest: Any) -> Any:
    """CUDA normalizes contiguous memory into contiguous memory, and copies what is not."""
    with tape.copied((images, "nchw")):
        return tape.note(_contiguous(func(images, *rest)))


def _layer_norm_backward(
    tape: Tape, func: Any, gradient: torch.Tensor, images: torch.Tensor, *rest: Any
) -> Any:
    """The same, of the gradient too."""
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
    _note_reduction(tape, tensor, list(dims))
    return made


def _note_reduction(tape: Tape, tensor: torch.Tensor, dims: list[int]) -> None:
    described = reduction.describe(tensor, dims) if tensor.is_meta else None
    if described is not None:
        tape.events.append((REDUCTION, described, None))


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
    """A number written into part of a tensor stays on the CPU (``set_item`` in ``ATen/TensorIndexing.h``)."""
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


RULES: dict[Any, Rule] = {
    aten.convolution.default: _convolution,
    aten.convolution_backward.default: _convolution_backward,
    aten.native_batch_norm.default: _batch_norm,
    aten.native_batch_norm_backward.default: _batch_norm_backward,
    aten.native_layer_norm.default: _layer_norm,
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


@contextlib.contextmanager
def as_on_cuda(tape: Tape) -> Iterator[None]:
    """Let torch's Python code choose on the meta device what it would choose on CUDA."""
    plain_linear = functional.linear

    def linear(*args: Any, **kwargs: Any) -> Any:
        tape.in_linear = True
        try:
            return plain_linear(*args, **kwargs)
        finally:
            tape.in_linear = False

    plain_setitem = torch.Tensor.__setitem__

    def setitem(*args: Any) -> None:
        tape.in_setitem = True
        try:
            plain_setitem(*args)
        finally:
            tape.in_setitem = False

    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.object(functional, "linear", linear))
        stack.enter_context(mock.patch.object(torch.Tensor, "__setitem__", setitem))
        stack.enter_context(mock.patch.object(functional, "scaled_dot_product_attention", _attention))
        stack.enter_context(mock.patch.object(functional, "dropout", _dropout))
        # Private in torch (tried from 2.6 to 2.15): the devices that fused optimizers accept.
        optimizers = importlib.import_module("torch.optim.optimizer")
        if hasattr(optimizers, "_get_fused_kernels_supported_devices"):
            supported = mock.Mock(return_value=["cuda", "cpu", "meta"])
            stack.enter_context(
                mock.patch.object(optimizers, "_get_fused_kernels_supported_devices", supported)
            )
        yield


def _attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
    """Memory-efficient attention, which CUDA chooses for float32 (``sdp_utils.cpp``)."""
    names = ("attn_mask", "dropout_p", "is_causal")
    options: dict[str, Any] = dict(zip(names, args, strict=False)) | kwargs
    return aten._scaled_dot_product_efficient_attention(
        query,
        key,
        value,
        options.get("attn_mask"),
        query.requires_grad,
        options.get("dropout_p", 0.0),
        options.get("is_causal", False),
        scale=options.get("scale"),
    )[0]


def _dropout(
    input: torch.Tensor,
    p: float = 0.5,
    training: bool = True,
    inplace: bool = False,
) -> torch.Tensor:
    """Fused dropout, which keeps one byte a value; in place or with nothing to drop, the plain one."""
    if inplace:
        return torch.dropout_(input, p, training)
    if not training or not 0 < p < 1:
        return torch.dropout(input, p, training)
    out: torch.Tensor = torch.native_dropout(input, p, training)[0]
    return out

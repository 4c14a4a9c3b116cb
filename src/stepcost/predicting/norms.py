"""What CUDA's norms, softmax and activations make and take: copies of what is not contiguous, sums."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch

from stepcost.predicting.reduction import describe
from stepcost.predicting.tape import REDUCTION, Rule, Tape

aten = torch.ops.aten
FLOAT_BYTES = 4
WARP = 32
MANY_ROWS, MOST_BLOCKS = 64 * 1024, 64 * 1024 // 2


def _layer_norm(tape: Tape, func: Any, images: torch.Tensor, *rest: Any) -> Any:
    """CUDA normalizes contiguous memory into contiguous memory, and copies what is not."""
    with tape.copied((images, "nchw")):
        return tape.note(_contiguous(func(images, *rest)))


@dataclass(frozen=True, slots=True)
class ManyRows:
    """Gradients of a norm's weight and bias over many short rows: summed by blocks of rows, then these.

    ``LaunchGammaBetaBackwardCUDAKernel`` in ``aten/src/ATen/native/cuda/layer_norm_kernel.cu``.
    """

    rows: int
    features: int
    gradients: int
    """2 with a bias, 1 without."""
    element_bytes: int

    def scratch_bytes(self, multiprocessors: int, threads_per_multiprocessor: int) -> tuple[int, ...]:
        """Bytes on a card, in the order in which they are taken; none for long rows or few."""
        if self.rows <= MANY_ROWS or self.features // WARP >= multiprocessors // 2:
            return ()
        blocks = min(-(-self.rows // WARP), MOST_BLOCKS // -(-self.features // WARP))
        sums = describe(torch.empty((blocks, self.features), device="meta"), [0])
        last = () if sums is None else sums.scratch_bytes(multiprocessors, threads_per_multiprocessor)
        return (*[blocks * self.features * self.element_bytes] * self.gradients, *last)


def _layer_norm_backward(
    tape: Tape, func: Any, gradient: torch.Tensor, images: torch.Tensor, *rest: Any
) -> Any:
    """Copy inputs and gradient that are not contiguous; make contiguous gradients."""
    with tape.copied((images, "nchw")):
        made = tape.note(_contiguous(func(gradient, images, *rest)))
        with tape.copied((gradient, "nchw")):
            weights = [one for one in made[1:] if one is not None]
            if weights:
                features = weights[0].numel()
                rows = ManyRows(images.numel() // features, features, len(weights), weights[0].element_size())
                tape.events.append((REDUCTION, rows, None))
            return made


def _contiguous(made: Iterable[torch.Tensor | None]) -> tuple[torch.Tensor | None, ...]:
    """Tensors of the same shapes, each contiguous: the meta device gives them the strides of an input."""
    return tuple(
        None if one is None else torch.empty(one.shape, dtype=one.dtype, device="meta") for one in made
    )


def _rms_norm(tape: Tape, func: Any, images: torch.Tensor, shape: list[int], *rest: Any) -> Any:
    """Make the output, then the inverse of each root mean square (float32)."""
    kept = (*images.shape[: images.dim() - len(shape)], *(1 for _ in shape))
    with tape.copied((images, "nchw")):
        out = torch.empty(images.shape, dtype=images.dtype, device="meta")
        return tape.note((out, torch.empty(kept, device="meta")))


def _mish_backward(tape: Tape, func: Any, gradient: torch.Tensor, images: torch.Tensor) -> Any:
    """Make the gradient alone; the meta device would compose it of many products."""
    return tape.note(torch.empty_like(images))


def _group_norm(tape: Tape, func: Any, *args: Any) -> Any:
    """Make the output and the statistics, then a factor and a summand for each channel of each image.

    ``aten/src/ATen/native/cuda/group_norm_kernel.cu``.
    """
    made = tape.note(func(*args))
    weight, bias, size, channels, pixels = args[1:6]
    each = [] if pixels == 1 or (weight is None and bias is None) else [FLOAT_BYTES * size * channels] * 2
    with tape.holding(*each):
        return made


def _group_norm_backward(tape: Tape, func: Any, *args: Any) -> Any:
    """Make the gradients, then sums by channel, coefficients by group and, with a weight, by channel."""
    made = tape.note(func(*args))
    weight, size, channels, groups = args[4], args[5], args[6], args[8]
    by_channel, by_group = FLOAT_BYTES * size * channels, FLOAT_BYTES * size * groups
    with tape.holding(by_channel, by_channel):
        if args[9][0]:
            held = [tape.hold(by_group), tape.hold(by_group)]
            with tape.holding(*([] if weight is None else [by_channel])):
                for one in held:
                    tape.drop(one)
    return made


def _softmax_backward(tape: Tape, func: Any, gradient: torch.Tensor, *rest: Any) -> Any:
    """Make the gradient, then gradient times output (``aten/src/ATen/native/cuda/SoftMax.cu``)."""
    made = tape.note(func(gradient, *rest))
    with tape.holding(gradient.numel() * gradient.element_size()):
        return made


def _cumsum(tape: Tape, func: Any, tensor: torch.Tensor, *rest: Any, **options: Any) -> Any:
    """Make the output, and a copy of what is summed in the output's dtype."""
    made = tape.note(func(tensor, *rest, **options))
    with tape.holding(
        *([math.prod(tensor.shape) * made.element_size()] if made.dtype != tensor.dtype else [])
    ):
        return made


NORM_RULES: dict[Any, Rule] = {
    aten.native_layer_norm.default: _layer_norm,
    aten.native_layer_norm_backward.default: _layer_norm_backward,
    aten.native_group_norm.default: _group_norm,
    aten.native_group_norm_backward.default: _group_norm_backward,
    aten._softmax_backward_data.default: _softmax_backward,
    aten.cumsum.default: _cumsum,
    aten.mish_backward.default: _mish_backward,
}
if hasattr(aten, "_fused_rms_norm"):  # from torch 2.9 on
    NORM_RULES[aten._fused_rms_norm.default] = _rms_norm
    NORM_RULES[aten._fused_rms_norm_backward.default] = _layer_norm_backward

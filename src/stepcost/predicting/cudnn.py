"""What cuDNN makes and takes in a convolution and a batch norm, as rules in place of meta operators."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import Any

import torch

from stepcost.predicting.convolution import (
    BACKWARD_DATA,
    BACKWARD_WEIGHT,
    FORWARD,
    Convolution,
    describe,
    layout_of,
)
from stepcost.predicting.reduction import note_reduction
from stepcost.predicting.tape import WORKSPACE, Tape, memory_format_of


def convolution(tape: Tape, func: Any, *args: Any) -> torch.Tensor:
    """cuDNN makes the output, then takes a workspace."""
    images, weight, _bias, stride, padding, dilation, transposed, _output_padding, groups = args
    _refuse_unknown(images, transposed)
    described = describe(images, weight, (stride, padding, dilation), groups)
    _must_fit(described)
    out = _empty(
        images, (images.shape[0], described.outputs, *described.output_size), described.output_layout
    )
    tape.note(out)
    # Layouts are part of what was recorded; a tensor that fits neither is copied first.
    with tape.copied((images, described.input_layout), (weight, described.output_layout)):
        tape.events.append((WORKSPACE, described, (images.shape[0], FORWARD)))
    return out


def _refuse_unknown(images: torch.Tensor, transposed: bool) -> None:
    """Refuse convolutions of which no workspace was ever recorded: peaks came out up to 23 % too low."""
    if transposed or images.dim() != 4:
        kind = (
            "a transposed convolution" if transposed else f"a convolution over {images.dim() - 2} dimensions"
        )
        raise ValueError(f"{kind} cannot be predicted yet, only one over images (N, C, H, W)")


def _must_fit(described: Convolution) -> None:
    if min(described.output_size) < 1:
        height, width = described.size
        raise ValueError(f"a convolution gets {height}x{width} pixels, less than its kernel")


def _empty(like: torch.Tensor, shape: Iterable[int], layout: str) -> torch.Tensor:
    return torch.empty(tuple(shape), dtype=like.dtype, device="meta", memory_format=memory_format_of(layout))


def convolution_backward(tape: Tape, func: Any, *args: Any) -> Any:
    """cuDNN makes each gradient, then takes a workspace for it."""
    gradient, images, weight, _bias_sizes, stride, padding, dilation, transposed, _, groups, wanted = args
    _refuse_unknown(images, transposed)
    described = describe(images, weight, (stride, padding, dilation), groups)
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
        if layout_of(gradient) != layout:
            both.enter_context(tape.copied((gradient, layout)))
            copies: list[tuple[torch.Tensor, str]] = [(images, described.input_layout)]
        else:
            copies = [(gradient, layout), (images, described.input_layout)]
        if wanted[0]:
            make(0)
            with tape.copied(*copies, (weight, layout)):
                tape.events.append((WORKSPACE, described, (images.shape[0], BACKWARD_DATA)))
        if wanted[1]:
            with tape.copied(*copies):
                if not depthwise:
                    make(1)
                tape.events.append((WORKSPACE, described, (images.shape[0], BACKWARD_WEIGHT)))
    if wanted[2]:
        made[2] = tape.note(torch.empty(weight.shape[0], dtype=weight.dtype, device="meta"))
        note_reduction(tape, gradient, [0, 2, 3])
    return tuple(made)


def batch_norm(tape: Tape, func: Any, images: torch.Tensor, weight: Any, *rest: Any) -> Any:
    """Make the output, then the saved mean and inverse deviation (float32)."""
    out = torch.empty_like(images)
    saved = [torch.empty(images.shape[1], dtype=torch.float32, device="meta") for _ in range(2)]
    return tape.note((out, *saved))


def batch_norm_backward(
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

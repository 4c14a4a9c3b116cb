"""What CUDA's losses make and take: a loss that is reduced is made for each value first."""

from __future__ import annotations

from typing import Any

import torch

from stepcost.predicting.tape import Rule, Tape

aten = torch.ops.aten
NONE = 0
"""Of a loss: not reduced."""


def _in_its_place(tape: Tape, func: Any, given: torch.Tensor, target: torch.Tensor, *rest: Any) -> Any:
    """Make each value's loss, then reduce it into a result that was made as large and then shrunk.

    ``TORCH_META_FUNC(mse_loss)`` in ``aten/src/ATen/native/BinaryOps.cpp`` leaves its size to the iterator.
    """
    made = func(given, target, *rest)
    if (rest[0] if rest else 1) == NONE:
        return tape.note(made)
    return _shrunk(tape, given, target, held=True)


def _shrunk(tape: Tape, given: torch.Tensor, target: torch.Tensor, *, held: bool) -> torch.Tensor:
    made = torch.empty(torch.broadcast_shapes(given.shape, target.shape), dtype=given.dtype, device="meta")
    tape.note(made)
    with tape.holding(made.numel() * made.element_size() if held else made.element_size()):
        return made.resize_(())


def _cross_entropy_of_two(
    tape: Tape, func: Any, given: torch.Tensor, target: torch.Tensor, *rest: Any
) -> Any:
    """Make each value's loss; its reduction is copied into the same memory (``cuda/Loss.cu``)."""
    if len(rest) > 1 and rest[1] == NONE:
        return tape.note(func(given, target, *rest))
    return _shrunk(tape, given, target, held=False)


def _huber(tape: Tape, func: Any, given: torch.Tensor, target: torch.Tensor, *rest: Any) -> Any:
    """Make each value's loss, then reduce it."""
    made = func(given, target, *rest)
    if rest and rest[0] == NONE:
        return tape.note(made)
    with tape.holding(torch.broadcast_shapes(given.shape, target.shape).numel() * given.element_size()):
        return tape.note(made)


def _log_sigmoid(tape: Tape, func: Any, tensor: torch.Tensor) -> Any:
    """Make the output; what the CPU keeps for backward is empty (``cuda/ActivationLogSigmoidKernel.cu``)."""
    return tape.note((torch.empty_like(tensor), torch.empty(0, dtype=tensor.dtype, device="meta")))


def _plainly(tape: Tape, func: Any, *args: Any) -> Any:
    """Make the gradient: the meta device's kernel that writes into one makes a second of 16-bit types."""
    return tape.note(func(*args))


LOSS_RULES: dict[Any, Rule] = {
    aten.mse_loss.default: _in_its_place,
    aten.smooth_l1_loss.default: _in_its_place,
    aten.binary_cross_entropy.default: _cross_entropy_of_two,
    aten.huber_loss.default: _huber,
    aten.smooth_l1_loss_backward.default: _plainly,
    aten.log_sigmoid_forward.default: _log_sigmoid,
}

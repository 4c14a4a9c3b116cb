"""Where torch would choose otherwise on CUDA than on the meta device: done as on CUDA meanwhile."""

from __future__ import annotations

import contextlib
import itertools
import sys
from collections.abc import Iterator
from typing import Any
from unittest import mock

import torch
from torch import nn

from stepcost.predicting.attention import ON_HOPPER, Attention
from stepcost.predicting.autocast import as_autocast_on_cuda
from stepcost.predicting.dispatched import ON_CUDA, dispatched, with_gradient_of_cuda
from stepcost.predicting.tape import Tape

aten = torch.ops.aten
DEVICES_OF_KERNELS = (
    "_get_foreach_kernels_supported_devices",
    "_get_fused_kernels_supported_devices",
    "_get_capturable_supported_devices",
)
"""What torch's optimizers ask for the devices that have such kernels (private, tried from 2.6 to 2.15)."""


@contextlib.contextmanager
def as_on_cuda(tape: Tape, attention: Attention = ON_HOPPER) -> Iterator[None]:
    """Let torch choose on the meta device what it would choose on CUDA."""

    def linear(proceed: Any, *args: Any) -> Any:
        with tape.adding_in_place():
            return proceed(*args)

    def attend(proceed: Any, *args: Any, **kwargs: Any) -> Any:
        with tape.adding_in_place():  # of a mask, to scores
            return attention(proceed, *args, **kwargs)

    plain_setitem = torch.Tensor.__setitem__

    def setitem(*args: Any) -> None:
        tape.in_setitem = True
        try:
            plain_setitem(*args)
        finally:
            tape.in_setitem = False

    kernels = {
        "linear": linear,
        "scaled_dot_product_attention": attend,
        "dropout": _dropout,
        "softmax.int": _in_float(aten._softmax.default),
        "log_softmax.int": _in_float(aten._log_softmax.default),
        "mish_backward": with_gradient_of_cuda(aten.mish_backward.default),
    }
    if hasattr(aten, "_fused_rms_norm"):  # from torch 2.9 on
        kernels["_fused_rms_norm"] = with_gradient_of_cuda(aten._fused_rms_norm.default)
    with torch.device("meta"):
        torch.empty(0)  # torch notes, once, which functions take the device: before one of them is changed
    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.object(torch.Tensor, "__setitem__", setitem))
        stack.enter_context(mock.patch.object(torch, "tensor", _tensor(torch.tensor)))
        for layer in (nn.LSTM, nn.GRU, nn.RNN):
            stack.enter_context(mock.patch.object(layer, "forward", _recurrent))
        for module, name in itertools.product(_modules_of_kernels(), DEVICES_OF_KERNELS):
            supported = getattr(module, name, None)
            if supported is not None:
                devices = mock.Mock(return_value=[*supported(), "meta"])
                stack.enter_context(mock.patch.object(module, name, devices))
        stack.enter_context(as_autocast_on_cuda())
        stack.enter_context(dispatched(ON_CUDA, kernels))
        yield


def _modules_of_kernels() -> list[Any]:
    """Return the modules of torch that ask for the devices of kernels, each by a name of its own."""
    names = ("torch.optim.", "torch.utils._foreach_utils")
    return [module for name, module in list(sys.modules.items()) if name.startswith(names)]


def _tensor(plain: Any) -> Any:
    """Make a tensor of numbers on the CPU and copy it, as for CUDA: on the meta device they would be lost."""

    def tensor(data: Any, *, device: Any = None, requires_grad: bool = False, **options: Any) -> Any:
        if device is not None and torch.device(device).type == "meta":
            return plain(data, **options, device="cpu").to("meta").requires_grad_(requires_grad)
        return plain(data, **options, device=device, requires_grad=requires_grad)

    return tensor


def _recurrent(layer: nn.Module, *_: Any, **__: Any) -> None:
    """Refuse layers that cuDNN computes whole: their peaks came out up to 30 % too low."""
    raise ValueError(
        f"{type(layer).__name__} cannot be predicted yet: cuDNN's recurrent layers were not recorded"
    )


def _dropout(proceed: Any, input: torch.Tensor, p: float, train: bool) -> Any:
    """Fused dropout, which keeps one byte a value; with nothing to drop, the plain one."""
    if input.is_meta and train and 0 < p < 1 and input.numel():
        return torch.native_dropout(input, p, train)[0]
    return proceed(input, p, train)


def _in_float(function: Any) -> Any:
    """CUDA takes float16 to float32 inside a softmax (``aten/src/ATen/native/SoftMax.cpp``)."""

    def softmax(proceed: Any, input: torch.Tensor, dim: int, dtype: torch.dtype | None = None) -> Any:
        if input.is_meta and input.dtype == torch.float16 and dtype == torch.float32:
            return function(input, dim, True)
        return proceed(input, dim, dtype)

    return softmax

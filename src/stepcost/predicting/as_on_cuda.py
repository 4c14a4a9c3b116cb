"""Where torch's Python code would choose otherwise on CUDA than on the meta device: patched meanwhile."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator
from typing import Any
from unittest import mock

import torch
from torch import nn
from torch.nn import functional

from stepcost.predicting.composite import kernels_of_their_own
from stepcost.predicting.tape import Tape


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
        stack.enter_context(kernels_of_their_own())
        stack.enter_context(mock.patch.object(functional, "linear", linear))
        stack.enter_context(mock.patch.object(torch.Tensor, "__setitem__", setitem))
        stack.enter_context(mock.patch.object(functional, "scaled_dot_product_attention", _attention))
        stack.enter_context(mock.patch.object(functional, "dropout", _dropout))
        for layer in (nn.LSTM, nn.GRU, nn.RNN):
            stack.enter_context(mock.patch.object(layer, "forward", _recurrent))
        # Private in torch (tried from 2.6 to 2.15): the devices that fused optimizers accept.
        optimizers = importlib.import_module("torch.optim.optimizer")
        if hasattr(optimizers, "_get_fused_kernels_supported_devices"):
            supported = mock.Mock(return_value=["cuda", "cpu", "meta"])
            stack.enter_context(
                mock.patch.object(optimizers, "_get_fused_kernels_supported_devices", supported)
            )
        yield


def _recurrent(layer: nn.Module, *_: Any, **__: Any) -> None:
    """Refuse layers that cuDNN computes whole: their peaks came out up to 30 % too low."""
    raise ValueError(
        f"{type(layer).__name__} cannot be predicted yet: cuDNN's recurrent layers were not recorded"
    )


def _attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
    """Memory-efficient attention, which CUDA chooses for float32 (``sdp_utils.cpp``)."""
    names = ("attn_mask", "dropout_p", "is_causal")
    options: dict[str, Any] = dict(zip(names, args, strict=False)) | kwargs
    return torch.ops.aten._scaled_dot_product_efficient_attention(
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

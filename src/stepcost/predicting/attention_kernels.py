"""What ``scaled_dot_product_attention`` is asked for, and the operators that each of its kernels runs.

Source: ``scaled_dot_product_attention`` in ``aten/src/ATen/native/transformers/attention.cpp``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

aten = torch.ops.aten


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What attention is asked for: query (N, H, L, E), key (N, H, S, E) and value (N, H, S, F)."""

    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    mask: torch.Tensor | None
    dropout: float
    is_causal: bool
    scale: float | None
    grouped: bool
    """Whether heads of key and value are shared by several of the query (``enable_gqa``)."""

    @property
    def tensors(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Query, key and value."""
        return self.query, self.key, self.value

    @property
    def keeps_sums(self) -> bool:
        """Whether a backward pass will need the logarithms of the sums."""
        return torch.is_grad_enabled() and any(one.requires_grad for one in self.tensors)

    def is_dense(
        self,
        *,
        takes_groups: bool,
        takes_one_head: bool,
        same_heads: bool = True,
        ignores_single: bool = True,
    ) -> bool:
        """Say whether shapes and strides are what all fused kernels ask for.

        ``takes_one_head`` of key and value for all of the query, unasked; ``same_heads`` of key and value.
        """
        query, key, value = self.tensors
        if not all(one.dim() == 4 for one in self.tensors):
            return False
        of_query, of_key, of_value = (one.shape[1] for one in self.tensors)
        if takes_groups and self.grouped:
            divides = of_query % of_key == of_query % of_value == 0
            heads_fit = divides and (of_key == of_value or not same_heads)
        else:
            heads_fit = of_query == of_key == of_value or (takes_one_head and of_key == of_value == 1)
        strides_fit = all(one.stride(-1) == 1 for one in self.tensors)
        strides_fit = strides_fit or (ignores_single and query.shape[-1] == 1)
        return (
            heads_fit
            and query.shape[0] == key.shape[0] == value.shape[0]
            and 0 not in (query.shape[2], key.shape[2])
            and strides_fit
            and (self.mask is None or self.mask.stride(-1) == 1)
        )


def _added(asked: Asked) -> torch.Tensor | None:
    """Return the mask as it is added to the scores: zeros and minus infinity for a mask of bools."""
    if asked.mask is None or asked.mask.dtype != torch.bool:
        return asked.mask
    lowest = torch.scalar_tensor(float("-inf"), dtype=asked.query.dtype, device="meta")
    return torch.where(asked.mask, 0.0, lowest)


def run_cudnn(asked: Asked) -> Any:
    """Run cuDNN's kernel."""
    options = asked.keeps_sums, asked.dropout, asked.is_causal, False
    made = aten._scaled_dot_product_cudnn_attention(
        *asked.tensors, _added(asked), *options, scale=asked.scale
    )
    return made[0]


def run_flash(asked: Asked) -> Any:
    """Run flash attention, on features padded to a multiple of 8."""
    size = asked.query.shape[-1]
    scale = size**-0.5 if asked.scale is None else asked.scale
    padded = [functional.pad(one, (0, -size % 8)) if size % 8 else one for one in asked.tensors]
    made = aten._scaled_dot_product_flash_attention(
        *padded, asked.dropout, asked.is_causal, False, scale=scale
    )[0]
    return made[..., :size] if size % 8 else made


def run_efficient(asked: Asked) -> Any:
    """Run memory-efficient attention, on a mask that is aligned (``preprocess_mask``)."""
    mask = _added(asked)
    if mask is not None:
        mask = mask.expand(*asked.query.shape[:3], asked.key.shape[2])
        keys = mask.shape[-1]
        if keys % 16:
            mask = functional.pad(mask, (0, -keys % 16))[..., :keys]
        elif any(stride % 16 for stride in mask.stride()[:3]):
            mask = mask.contiguous()
    return aten._scaled_dot_product_efficient_attention(
        *asked.tensors, mask, asked.keeps_sums, asked.dropout, asked.is_causal, scale=asked.scale
    )[0]


def run_math(asked: Asked) -> Any:
    """Run products and a softmax."""
    return aten._scaled_dot_product_attention_math(
        *asked.tensors,
        _added(asked),
        asked.dropout,
        asked.is_causal,
        None,
        scale=asked.scale,
        enable_gqa=asked.grouped,
    )[0]

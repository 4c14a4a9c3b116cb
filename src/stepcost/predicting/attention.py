"""Which kernel ``scaled_dot_product_attention`` takes on a card.

Source: ``cuda/sdp_utils.cpp`` and ``sdp_utils_cpp.h`` in ``aten/src/ATen/native/transformers``. What
``torch.nn.attention.sdpa_kernel`` allows is torch's own state, which is read.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from stepcost.catalog.cards import Card
from stepcost.predicting.attention_kernels import Asked, run_cudnn, run_efficient, run_flash, run_math
from stepcost.predicting.torch_versions import (
    ATTENTION_OF_2_15,
    CUDNN_ATTENTION_FIRST,
    CUDNN_DROPOUT_IN_16THS,
    Version,
)

HALVES = (torch.float16, torch.bfloat16)
FLASH_MOST_FEATURES, CUDNN_MOST_FEATURES, CUDNN_192_TO_128, CUDNN_256 = 256, 128, (192, 128), (256, 256)
Capability = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Attention:
    """The kernel of ``scaled_dot_product_attention`` on cards of a compute capability, with a torch."""

    capability: Capability
    version: Version

    def __call__(  # noqa: PLR0917 (as torch calls it)
        self,
        proceed: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attn_mask: torch.Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        *,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Any:
        """Run what torch would run; raises ``ValueError`` in one line where no kernel is left."""
        if not query.is_meta:
            return proceed(
                query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
            )
        asked = Asked(
            query=query,
            key=key,
            value=value,
            mask=attn_mask,
            dropout=dropout_p,
            is_causal=is_causal,
            scale=scale,
            grouped=enable_gqa,
        )
        return self.chosen(asked)(asked)

    def chosen(self, asked: Asked) -> Callable[[Asked], Any]:
        """Return the first kernel that is allowed and can do it, in torch's order."""
        allowed: Any = torch.backends.cuda
        cudnn = (allowed.cudnn_sdp_enabled, self.cudnn_can, run_cudnn)
        others = (
            (allowed.flash_sdp_enabled, self.flash_can, run_flash),
            (allowed.mem_efficient_sdp_enabled, self.efficient_can, run_efficient),
            (allowed.math_sdp_enabled, lambda _: True, run_math),
        )
        cudnn_first = self.version >= CUDNN_ATTENTION_FIRST and self.capability[0] in (9, 10)
        for is_allowed, can, run in (cudnn, *others) if cudnn_first else (*others, cudnn):
            if is_allowed() and can(asked):
                return run
        dtype = str(asked.query.dtype).removeprefix("torch.")
        mask = "a mask" if asked.mask is not None else "no mask"
        raise ValueError(
            f"none of the attention kernels that are allowed takes {dtype} with {mask}, query "
            f"{tuple(asked.query.shape)} and key {tuple(asked.key.shape)} on compute capability "
            f"{'.'.join(map(str, self.capability))}"
        )

    @property
    def _newest(self) -> bool:
        return self.version >= ATTENTION_OF_2_15

    def _takes_half(self, asked: Asked) -> bool:
        """Whether query, key and value are of one of the halves that this card computes with."""
        halves = HALVES if self.capability >= (8, 0) else HALVES[:1]
        return all(one.dtype == asked.query.dtype and one.dtype in halves for one in asked.tensors)

    def cudnn_can(self, asked: Asked) -> bool:
        """``can_use_cudnn_attention``, for cuDNN from 9.14 on."""
        if not (
            (8, 0) <= self.capability <= (12, 1)
            and asked.is_dense(takes_groups=True, takes_one_head=self._newest, same_heads=False)
            and self._takes_half(asked)
            and _fits(asked.mask, asked)
            and (self.version < CUDNN_DROPOUT_IN_16THS or asked.dropout * 16 == int(asked.dropout * 16))
            and not torch.are_deterministic_algorithms_enabled()
        ):
            return False
        features = asked.query.shape[-1], asked.value.shape[-1]
        few = max(features) <= CUDNN_MOST_FEATURES
        if self.capability == (9, 0) or self.capability[0] == 10:
            few = few or features == CUDNN_192_TO_128
            if self._newest:
                few = few or features == CUDNN_256 or (max(features) <= CUDNN_256[0] and not asked.keeps_sums)
            elif self.capability == (9, 0):  # ``check_cudnn_tensor_shapes``, for cuDNN from 9.10 on
                few = max(features) <= CUDNN_256[0]
        long_enough = asked.key.shape[2] > 1 and not (asked.dropout and asked.query.shape[2] == 1)
        return few and features[0] % 8 == features[1] % 8 == 0 and long_enough

    def flash_can(self, asked: Asked) -> bool:
        """``can_use_flash_attention``."""
        if asked.mask is not None or not (8, 0) <= self.capability <= (12, 1):
            return False
        dense = asked.is_dense(takes_groups=True, takes_one_head=self._newest)
        if not dense or not self._takes_half(asked):
            return False
        features = {one.shape[-1] for one in asked.tensors}
        size = max(features)
        if len(features) > 1 or size > FLASH_MOST_FEATURES:
            return False
        small = (8, 6) <= self.capability <= (8, 9) or self.capability >= (12, 0)
        if small and asked.keeps_sums and size > 192 and (asked.dropout or size <= 224):
            return False
        return not asked.is_causal or asked.query.shape[2] == asked.key.shape[2]

    def efficient_can(self, asked: Asked) -> bool:
        """``can_use_mem_efficient_attention``."""
        groups = self._newest
        if not asked.is_dense(takes_groups=groups, takes_one_head=groups, ignores_single=False):
            return False
        is_half = asked.query.dtype in HALVES
        if self.capability >= (8, 0):
            alignment = 8 if is_half else 4
        else:
            alignment = 8 if is_half and self.capability >= (7, 0) else 1
        dtypes = (torch.float32, *(HALVES if self.capability >= (8, 0) else HALVES[:1]))
        features = asked.query.shape[-1], asked.value.shape[-1]
        return (
            all(one.dtype == asked.query.dtype and one.dtype in dtypes for one in asked.tensors)
            and asked.key.shape[-1] == features[0]
            and all(size > 0 and size % alignment == 0 for size in features)
        )


@dataclass(frozen=True, kw_only=True)
class Compared(Attention):
    """Attention that strikes from ``alike`` those that would have taken another kernel, each time it runs."""

    alike: set[Attention] = field(compare=False)

    def chosen(self, asked: Asked) -> Callable[[Asked], Any]:
        """Return the kernel as ``Attention`` does."""
        kernel = super().chosen(asked)
        for other in list(self.alike):
            try:
                is_alike = other.chosen(asked) is kernel
            except ValueError:  # it has none
                is_alike = False
            if not is_alike:
                self.alike.remove(other)
        return kernel


ON_HOPPER = Attention(capability=(9, 0), version=(2, 11))
"""What attention takes where no card is named."""


def attention_on(card: Card | None, version: Version) -> Attention:
    """Return what a card takes with a torch; where none is named, what a Hopper takes."""
    if card is None:
        return Attention(capability=ON_HOPPER.capability, version=version)
    major, minor = card.compute_capability.split(".")
    return Attention(capability=(int(major), int(minor)), version=version)


def _fits(mask: torch.Tensor | None, asked: Asked) -> bool:
    """Whether a mask can be spread over the scores (``check_attn_mask_shape``)."""
    if mask is None:
        return True
    (batch, heads, queries, _), keys = asked.query.shape, asked.key.shape[2]
    sizes = (batch, heads, queries, keys)[4 - mask.dim() :]
    fits = all(one in (1, size) for one, size in zip(mask.shape, sizes, strict=False))
    return mask.dim() in (2, 4) and fits and not mask.requires_grad

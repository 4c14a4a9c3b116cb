"""The kernel that attention takes, by card, torch, dtype, shapes and what is allowed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention
from torch.utils._python_dispatch import TorchDispatchMode

from stepcost.predicting.as_on_cuda import as_on_cuda
from stepcost.predicting.attention import Attention
from stepcost.predicting.rules import RULES
from stepcost.predicting.tape import ALLOC, Tape

BF16, FP16, FP32 = torch.bfloat16, torch.float16, torch.float32
OPERATORS = {
    "cudnn": "aten._scaled_dot_product_cudnn_attention.default",
    "flash": "aten._scaled_dot_product_flash_attention.default",
    "efficient": "aten._scaled_dot_product_efficient_attention.default",
    "math": "aten._safe_softmax.default",
}


class Seen(TorchDispatchMode):
    """The names of operators that are run."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Note it, and run it."""
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


def taken(
    *,
    dtype: torch.dtype = BF16,
    on: tuple[int, int] = (9, 0),
    version: tuple[int, int] = (2, 11),
    features: int = 64,
    heads: tuple[int, int] = (4, 4),
    mask: torch.dtype | None = None,
    dropout: float = 0.0,
    is_causal: bool = False,
) -> str:
    """Return the kernel for 128 queries and keys of two sequences."""
    query = torch.empty(2, heads[0], 128, features, dtype=dtype, device="meta", requires_grad=True)
    key = torch.empty(2, heads[1], 128, features, dtype=dtype, device="meta")
    given = None if mask is None else torch.empty(128, 128, dtype=mask, device="meta")
    tape = Tape(RULES)
    with as_on_cuda(tape, Attention(capability=on, version=version)), tape, Seen() as seen:
        made = scaled_dot_product_attention(
            query, key, key, given, dropout, is_causal, enable_gqa=heads[0] != heads[1]
        )
    assert made.shape == query.shape
    return next(name for name, operator in OPERATORS.items() if operator in seen.names)


@pytest.mark.parametrize(
    ("kernel", "case"),
    [
        ("efficient", {"dtype": FP32}),
        ("cudnn", {}),
        ("cudnn", {"dtype": FP16, "mask": torch.bool}),
        ("cudnn", {"dropout": 0.1, "is_causal": True}),
        ("flash", {"dropout": 0.1, "is_causal": True, "version": (2, 12)}),
        ("cudnn", {"dropout": 0.125, "version": (2, 12)}),
        ("cudnn", {"on": (10, 0)}),
        ("flash", {"on": (8, 0)}),
        ("flash", {"on": (12, 0)}),
        ("cudnn", {"features": 256}),
        ("cudnn", {"features": 200, "mask": torch.bool}),
        ("flash", {"on": (8, 9), "features": 256}),
        ("efficient", {"on": (8, 9), "features": 256, "dropout": 0.1}),
        ("efficient", {"on": (8, 0), "mask": torch.bool}),
        ("efficient", {"on": (7, 5), "dtype": FP16}),
        ("math", {"on": (7, 5)}),
        ("math", {"dtype": FP32, "heads": (4, 2)}),
        ("efficient", {"dtype": FP32, "heads": (4, 2), "version": (2, 15)}),
        ("cudnn", {"heads": (4, 2)}),
        ("flash", {"heads": (4, 2), "on": (8, 0)}),
        ("cudnn", {"features": 256, "version": (2, 15)}),
        ("flash", {"features": 200, "version": (2, 15)}),
        ("flash", {"features": 60, "on": (8, 0)}),
        ("math", {"dtype": FP32, "features": 62}),
        ("math", {"dtype": torch.float64}),
    ],
)
def test_the_kernel_is_the_first_that_can(kernel: str, case: dict[str, object]) -> None:
    """As ``sdp_utils.cpp`` decides; those of 2.11 on 9.0 are what an H100 took."""
    assert taken(**case) == kernel  # type: ignore[arg-type]


def test_what_is_not_allowed_is_not_taken() -> None:
    """``sdpa_kernel`` and torch's flags hold here as on CUDA."""
    with sdpa_kernel(SDPBackend.EFFICIENT_ATTENTION):
        assert taken() == "efficient"
    with sdpa_kernel([SDPBackend.MATH, SDPBackend.FLASH_ATTENTION]):
        assert taken() == "flash"
        assert taken(dtype=FP32) == "math"


def test_where_no_kernel_is_left_one_line_says_why() -> None:
    """Flash attention alone takes no fp32."""
    with (
        sdpa_kernel(SDPBackend.FLASH_ATTENTION),
        pytest.raises(
            ValueError, match=r"none of the attention kernels .* float32 .* capability 9\.0"
        ) as raised,
    ):
        taken(dtype=FP32)
    assert "\n" not in str(raised.value)


def test_without_gradients_nothing_is_kept_for_them() -> None:
    """The logarithms of the sums, 4 bytes for each of 2 x 4 x 128 queries, are made for backward alone."""
    query = torch.empty(2, 4, 128, 64, device="meta", requires_grad=True)
    made: list[list[int]] = []
    for grad in (True, False):
        tape = Tape(RULES)
        with (
            as_on_cuda(tape, Attention(capability=(9, 0), version=(2, 11))),
            tape,
            torch.set_grad_enabled(grad),
        ):
            scaled_dot_product_attention(query, query, query)
            made.append([size for action, _, size in tape.events if action == ALLOC])
    assert made[0][:2] == [262_144, 4096]
    assert 4096 not in made[1]


def test_no_key_at_all_is_for_products() -> None:
    """Fused kernels take no sequence of length 0."""
    query, key = (torch.empty(2, 4, size, 64, dtype=BF16, device="meta") for size in (8, 0))
    tape = Tape(RULES)
    with as_on_cuda(tape), tape, Seen() as seen:
        scaled_dot_product_attention(query, key, key)
    assert OPERATORS["math"] in seen.names

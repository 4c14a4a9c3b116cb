"""Fused attention, worked out by hand where no GPU was asked: wide heads, shared keys, few queries."""

from __future__ import annotations

import pytest

from experiments.operator_calls import Call, replay
from stepcost.predicting.fused_attention import SplitKeys

BACKWARD = {
    "efficient": lambda q, k, sums: [
        q,
        q,
        k,
        k,
        None,
        q,
        sums,
        "int64[]",
        "int64[]",
        0.0,
        [True] * 3 + [False],
    ],
    "flash": lambda q, k, sums: [
        q,
        q,
        k,
        k,
        q,
        sums,
        None,
        None,
        128,
        128,
        0.0,
        True,
        "uint64[2]",
        "uint64[]",
    ],
    "cudnn": lambda q, k, sums: [
        q,
        q,
        k,
        k,
        q,
        sums,
        "int64[]",
        "int64[]",
        None,
        None,
        None,
        128,
        128,
        0.0,
        True,
    ],
}


def scratch(kind: str, dtype: str, features: int, heads: int = 4) -> list[int]:
    """Bytes that the gradient of (2, 4, 128, features) takes besides three gradients, and gives back."""
    # As projections make them: the heads of a word lie together.
    q, k = (
        f"{dtype}[2,{number},128,{features}|{number * 128 * features},{features},{number * features},1]"
        for number in (4, heads)
    )
    name = f"aten._scaled_dot_product_{kind}_attention_backward.default"
    (_, changes, _), *_ = replay([Call(name, BACKWARD[kind](q, k, "float32[2,4,128]"), {}, [])])
    return [size for size in changes[3:] if size > 0]


ROWS = 2 * 4 * 128
"""Batch size times heads times queries, all of these tests."""


@pytest.mark.parametrize(
    ("dtype", "features", "blocks"),
    [
        ("float32", 64, 2 * (64 * 64 * 4 + 16)),
        ("float32", 128, 2 * (128 * 64 * 4 + 16)),  # 128 queries by 64 features: two blocks a head
        ("bfloat16", 96, 2 * (128 * 64 * 4 + 16)),
        ("bfloat16", 128, 128 * 128 * 4 + 16),
        # Not in registers: 3 blocks, and gradients of keys and values, features padded to 256, in 2 splits.
        ("bfloat16", 192, 3 * (128 * 64 * 4 + 16) + 4 * 2 * 128 * 2 * 256),
    ],
)
def test_efficient_attention_accumulates_in_blocks(dtype: str, features: int, blocks: int) -> None:
    """The last scratch is each head's blocks of one gradient, with 16 bytes each."""
    assert scratch("efficient", dtype, features)[-1] == 2 * 4 * blocks


@pytest.mark.parametrize(("features", "padded"), [(64, 64), (80, 96), (128, 128), (192, 192), (200, 256)])
def test_flash_attention_pads_features(features: int, padded: int) -> None:
    """Row sums, and a gradient in float32: of 32 features up to 128, of 64 above."""
    assert scratch("flash", "bfloat16", features) == [4 * ROWS, 4 * ROWS * padded]


def test_keys_that_heads_share_have_gradients_of_each_head() -> None:
    """4 heads on 2 of keys: flash attention makes two gradients of 4 heads, cuDNN in its workspace."""
    wide = 2 * 4 * 128 * 64 * 2
    assert scratch("flash", "bfloat16", 64, heads=2)[2:] == [wide, wide]
    assert scratch("cudnn", "bfloat16", 64, heads=2) == [256 + 4 * ROWS * 65 + 2 * wide]
    assert scratch("cudnn", "bfloat16", 64) == [256 + 4 * ROWS * 65]


@pytest.mark.parametrize(
    ("batch", "heads", "queries", "splits"),
    [
        (1, 12, 2048, 1),  # 384 blocks fill more than 0.8 of 264 places
        (1, 12, 512, 2),  # 96 blocks on keys of two blocks: 192 of 264 places
        (1, 1, 1024, 4),  # 16 blocks on keys of four blocks
    ],
)
def test_few_queries_split_the_keys(batch: int, heads: int, queries: int, splits: int) -> None:
    """As many splits as fill the H100's 264 places best."""
    rows = batch * heads * queries
    split = SplitKeys(rows, batch * heads * -(-queries // 64), -(-queries // 256), 64)
    expected = (0, 0) if splits == 1 else (4 * splits * rows, 4 * splits * rows * 64)
    assert split.scratch_bytes(132, 2048) == expected
    assert split.scratch_bytes(0, 0) == (0, 0)


def test_an_output_of_wide_heads_is_accumulated_in_float32() -> None:
    """The efficient kernel's output of 160 features and 16 bits has a copy of 4 bytes meanwhile."""
    name = "aten._scaled_dot_product_efficient_attention.default"
    q = "float16[2,4,128,160]"
    (_, changes, _), *_ = replay([Call(name, [q, q, q, None, True], {}, [])])
    values = ROWS * 160
    assert changes == [2 * values, 4 * ROWS, 4 * values, -4 * values]

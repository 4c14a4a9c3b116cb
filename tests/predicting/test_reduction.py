from __future__ import annotations

import pytest
import torch

from stepcost.predicting.norms import ManyRows
from stepcost.predicting.reduction import describe

H100 = (132, 2048)


@pytest.mark.parametrize(
    ("shape", "dims", "scratch"),
    [
        ((3152, 768), [0], (19_660_800, 24)),
        ((3152, 3072), [0], (78_643_200, 96)),
        ((3152, 2304), [0], (58_982_400, 72)),
        ((16, 128, 112, 112), [0, 2, 3], (2560, 512)),
        ((16, 64, 224, 224), [0, 2, 3], (2304, 256)),
        ((16, 512, 14, 14), [0, 2, 3], (0, 0)),
        ((16, 256, 56, 56), [0, 2, 3], (0, 0)),
    ],
)
def test_scratch_is_what_was_recorded(
    shape: tuple[int, ...], dims: list[int], scratch: tuple[int, int]
) -> None:
    """Partial sums and semaphores of bias gradients are those recorded on an H100 (vit_b_16, vgg16)."""
    described = describe(torch.empty(shape, device="meta"), dims)
    assert described is not None
    assert described.scratch_bytes(*H100) == scratch


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sums_of_16_bits_meet_in_float32(dtype: torch.dtype) -> None:
    """A bias gradient of convnext_tiny takes as much in 16 bits as in float32."""
    for one in (dtype, torch.float32):
        described = describe(torch.empty((50176, 384), dtype=one, device="meta"), [0])
        assert described is not None
        assert described.scratch_bytes(*H100) == (138_412_032, 12)


def test_integers_meet_in_8_bytes() -> None:
    """A mask of 2**24 values is counted in blocks of 512 threads that read 4 at a time, 132 x 4 of them."""
    described = describe(torch.empty(1 << 24, dtype=torch.bool, device="meta"), [])
    assert described is not None
    assert described.scratch_bytes(*H100) == (528 * 8, 4)


@pytest.mark.parametrize(
    ("rows", "features", "gradients", "expected"),
    [
        (65_536, 96, 2, ()),
        (65_537, 2112, 2, ()),  # 66 x 32 features: half of the multiprocessors
        # 2,049 blocks of 32 rows; then 512 x 4 threads' worth of them are summed without a second split.
        (65_537, 96, 2, (2049 * 96 * 4, 2049 * 96 * 4)),
    ],
)
def test_many_short_rows_are_summed_by_blocks(
    rows: int, features: int, gradients: int, expected: tuple[int, ...]
) -> None:
    """Gradients of a norm's weight and bias: a sum for each 32 of more than 65,536 short rows."""
    scratch = ManyRows(rows, features, gradients, 4).scratch_bytes(*H100)
    assert scratch[: len(expected)] == expected
    assert bool(scratch) == bool(expected)


def test_without_a_card_there_is_no_scratch() -> None:
    """How a sum is split depends on the card; without one nothing is taken."""
    described = describe(torch.empty((3152, 768), device="meta"), [0])
    assert described is not None
    assert described.scratch_bytes(0, 0) == (0, 0)

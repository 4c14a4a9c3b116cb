from __future__ import annotations

import pytest
import torch

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


def test_without_a_card_there_is_no_scratch() -> None:
    """How a sum is split depends on the card; without one nothing is taken."""
    described = describe(torch.empty((3152, 768), device="meta"), [0])
    assert described is not None
    assert described.scratch_bytes(0, 0) == (0, 0)

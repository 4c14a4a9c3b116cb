"""The largest batch that a card would train, by prediction."""

from __future__ import annotations

from dataclasses import replace

import torch

from stepcost.catalog.cards import Card
from stepcost.predict.prediction import predict
from stepcost.request import Request

RESOLUTION = 0.005
"""The search ends where the neighbour that does not fit is within this share."""
MOST = 1 << 20
"""No batch larger than this is looked at."""


def largest_batch(request: Request, card: Card, *, torch_version: str = torch.__version__) -> int | None:
    """Return the largest batch size predicted to fit ``card``, to 0.5 %; ``None`` where none fits.

    ``request.batch_size`` is where the search starts. Tensor bytes grow with the batch, and
    where a convolution's workspace finds no room a smaller one is taken, so one boundary is
    looked for: by doubling or halving first, then by bisection.
    """

    def fits(batch_size: int) -> bool:
        if batch_size == 1 and not trains_on_one(request):
            return False
        return (
            predict(replace(request, batch_size=batch_size), card, torch_version=torch_version).fits is True
        )

    low = max(2, request.batch_size)
    if fits(low):
        high = low * 2
        while high <= MOST and fits(high):
            low, high = high, high * 2
        if high > MOST:
            raise ValueError(f"more than {low:,} images fit, and the search ends at {MOST:,}")
    else:
        high = low
        while high > 1 and not fits(high // 2):
            high //= 2
        low = high // 2
        if low < 1:
            return None
    while high - low > max(1, int(low * RESOLUTION)):
        middle = (low + high) // 2
        if fits(middle):
            low = middle
        else:
            high = middle
    return low


def trains_on_one(request: Request) -> bool:
    """Can the model train on a single image? Batch norm over a single value cannot."""
    try:
        predict(replace(request, batch_size=1))
    except ValueError:
        return False
    return True

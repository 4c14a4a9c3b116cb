"""The largest batch that a card would train, by prediction."""

from __future__ import annotations

import functools
from dataclasses import replace

import torch

from stepcost.catalog.cards import Card
from stepcost.predicting.simulate import simulate
from stepcost.predicting.torch_versions import version_of
from stepcost.predicting.trace import Trace, trace_run
from stepcost.predicting.validation import is_validated
from stepcost.predicting.workspaces import find_table, workspaces_on
from stepcost.request import Request
from stepcost.search import PredictedLargest, bracket, guess_from_tensors

RESOLUTION = 0.005
"""The search ends where the neighbour that does not fit is within this share."""
MOST = 1 << 20
"""No batch larger than this is looked at."""
MOST_PREDICTIONS = 64
"""More than any search needs: the strides double."""


def largest_batch(
    request: Request, card: Card, *, torch_version: str = torch.__version__
) -> PredictedLargest:
    """Find the largest batch predicted to fit ``card``, to 0.5 %, or bounds where its context is unknown.

    ``request`` says what is trained; its batch size only says where tensor bytes are read for a guess. Where
    a convolution's workspace finds no room, one that needs less is taken, as on a GPU. Raises
    ``ValueError`` with one line for what cannot be built or traced.
    """
    version = version_of(torch_version)

    @functools.cache
    def trace(batch_size: int) -> Trace:
        return trace_run(replace(request, batch_size=batch_size))

    def search(room_bytes: int, guess: int) -> tuple[int, int | None]:
        def fits(batch_size: int) -> bool:
            try:
                traced = trace(batch_size)
            except ValueError:
                if batch_size == 1:  # batch norm cannot train on a single value
                    return False
                raise
            return simulate(traced, workspaces_on(card, version), room_bytes).peak is not None

        return bracket(fits, guess, resolution=RESOLUTION, most_attempts=MOST_PREDICTIONS, most=MOST)

    few = min(max(2, request.batch_size), MOST // 2)
    tensors = [(size, _tensor_bytes(trace(size))) for size in (few, 2 * few)]
    good, bad = search(card.room_bytes, guess_from_tensors(tensors, card.room_bytes))
    at_most = None if bad is None else bad - 1
    if not good:
        return PredictedLargest(largest_batch=None, largest_batch_at_most=0)
    if card.is_measured and find_table(card.compute_capability) is not None:
        if bad is None:
            return PredictedLargest(largest_batch=None, largest_batch_at_least=good)
        workspaces = workspaces_on(card, version)
        simulate(trace(good), workspaces, card.room_bytes)
        untested = None if is_validated(card, version) else "no run was compared with this card and torch"
        rests_on = "; ".join(filter(None, (workspaces.why_estimated, untested))) or None
        return PredictedLargest(
            largest_batch=good, largest_batch_at_most=at_most, largest_batch_rests_on=rests_on
        )
    low, high = (search(room, guess_from_tensors(tensors, room)) for room in card.likely_room_bytes)
    likely = (low[0],) if high[1] is None else (low[0], high[1] - 1)
    return PredictedLargest(largest_batch=None, largest_batch_at_most=at_most, largest_batch_likely=likely)


def _tensor_bytes(traced: Trace) -> int:
    """Bytes of live tensors at the end of a traced step's forward pass, as ``Reading.tensor_bytes``."""
    kept = simulate(traced, workspaces_on(None, (0, 0)), None).kept_bytes
    held = ("parameter_bytes", "buffer_bytes", "optimizer_state_bytes", "input_bytes")
    return kept + sum(traced.counted[name] for name in held)

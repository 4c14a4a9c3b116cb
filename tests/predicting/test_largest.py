"""The largest batch by prediction: exact where a card was measured, bounds where it was not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from stepcost.catalog.cards import CARDS
from stepcost.predicting import largest, predict, traces
from stepcost.predicting.largest import largest_batch
from stepcost.predicting.tape import ALLOC, FREE, MARK, Event
from stepcost.predicting.trace import STEP_BEGINS, STEP_DONE, Trace, trace_run
from stepcost.predicting.traces import Traces
from stepcost.reading import BACKWARD, FORWARD
from stepcost.request import Request

SMALL = Request(model="small-cnn", optimizer="sgd", batch_size=64, image_size=224)
H100 = CARDS["h100-80gb"]
TINY = replace(H100, name="tiny", total_bytes=3 << 30)
"""An H100 with little memory, so that few images fit."""


def test_the_largest_batch_is_the_last_that_may_fit() -> None:
    """On a measured card one batch that is 1 % larger does not fit; of what is estimated none is said to."""
    found = largest_batch(SMALL, TINY, torch_version="2.11")
    assert found.largest_batch is not None
    assert found.largest_batch_rests_on is not None
    assert "convolutions are not in the table" in found.largest_batch_rests_on
    there = predict(replace(SMALL, batch_size=found.largest_batch), TINY, torch_version="2.11")
    assert there.fits is None
    assert "up to 52 % too low" in there.unread["fits"]
    more = found.largest_batch + max(1, found.largest_batch // 100)
    assert predict(replace(SMALL, batch_size=more), TINY, torch_version="2.11").fits is False
    half = predict(replace(SMALL, batch_size=found.largest_batch // 8), TINY, torch_version="2.11")
    assert half.fits is True


def test_a_card_that_was_never_measured_has_bounds() -> None:
    """No batch is named: more than the upper bound cannot fit, and the likely range is below it."""
    found = largest_batch(SMALL, CARDS["t4"])
    assert found.largest_batch is None
    assert found.largest_batch_at_most is not None
    assert found.largest_batch_likely is not None
    low, high = found.largest_batch_likely
    assert 0 < low < high < found.largest_batch_at_most
    assert predict(replace(SMALL, batch_size=found.largest_batch_at_most + 1), CARDS["t4"]).fits is False
    assert predict(replace(SMALL, batch_size=low), CARDS["t4"]).fits is None


def test_nothing_fits_is_not_unknown() -> None:
    """Where not even one image fits, no more than 0 do."""
    found = largest_batch(SMALL, replace(TINY, total_bytes=(480 + 760 + 4) << 20))
    assert (found.largest_batch, found.largest_batch_at_most) == (None, 0)


def test_the_end_of_the_search_is_a_lower_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where more images fit than the search looks at, it says at least how many; unmeasured, likely so."""
    monkeypatch.setattr(largest, "MOST", 128)
    found = largest_batch(SMALL, H100)
    assert (found.largest_batch, found.largest_batch_at_least, found.largest_batch_at_most) == (
        None,
        128,
        None,
    )
    found = largest_batch(SMALL, CARDS["b200"])
    assert (found.largest_batch_at_least, found.largest_batch_likely) == (None, (128,))


def test_a_batch_that_fails_does_not_hide_a_larger_one_that_fits() -> None:
    """A step of n MiB, and 10 MiB more at 41, 42 and from 44 on: in 45 MiB 43 fit; 40 are not the end."""
    mib = 1 << 20

    def made(number: int) -> list[Trace]:
        size = (number + 10 * (number in {41, 42} or number >= 44)) * mib
        events: list[Event] = [
            (MARK, STEP_BEGINS, None),
            (ALLOC, 1, size),
            (MARK, FORWARD, BACKWARD),
            (FREE, 1, size),
            (MARK, STEP_DONE, None),
        ]
        held = ("parameter_bytes", "buffer_bytes", "optimizer_state_bytes", "input_bytes")
        return [Trace(events=events, kinds={}, counted=dict.fromkeys(held, 0))]

    card = replace(H100, total_bytes=(45 + 480 + 760) * mib)
    found = largest_batch(replace(SMALL, batch_size=2), card, torch_version="2.11", traces=Traces(made))
    assert (found.largest_batch, found.largest_batch_at_most) == (43, 43)


def test_few_predictions_find_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two batches give a guess, and what lies between is on a line: half a dozen traces are enough."""
    traced: list[int] = []

    def counted(request: Request, **options: Any) -> Trace:
        traced.append(request.batch_size)
        return trace_run(request, **options)

    monkeypatch.setattr(traces, "trace_run", counted)
    largest_batch(SMALL, H100)
    assert len(traced) <= 7
    assert len(set(traced)) == len(traced)

"""Traces at sizes that were not traced: as they would have been, or made."""

from __future__ import annotations

from typing import Any

import pytest

from stepcost.catalog.cards import CARDS
from stepcost.predicting import traces
from stepcost.predicting.tape import ALLOC, FREE, WORKSPACE
from stepcost.predicting.trace import Trace, trace_run
from stepcost.predicting.traces import Traces, traces_of
from stepcost.request import Request

SMALL = Request(model="small-cnn", optimizer="sgd", batch_size=8, image_size=64)
VERSION = (2, 11)


def made_of(size_of: Any) -> tuple[Traces, list[int]]:
    """Return traces of a step that takes one allocation of ``size_of(batch)`` bytes, and what was made."""
    made: list[int] = []

    def make(number: int) -> list[Trace]:
        made.append(number)
        return [Trace(events=[(ALLOC, 1, size_of(number)), (FREE, 1, size_of(number))], kinds={})]

    return Traces(make), made


def test_a_step_on_a_line_is_the_one_that_would_be_traced() -> None:
    """Of three batches that were traced a fourth one between follows, to the byte and in every event."""
    found = traces_of(SMALL, [CARDS["h100-80gb"]], VERSION)[CARDS["h100-80gb"]]
    for number in (8, 64, 30):
        found.about(number)
    there = trace_run(Request(model="small-cnn", optimizer="sgd", batch_size=41, image_size=64))
    assert found.about(41)[0].events == there.events
    assert {more[0] for action, _, more in there.events if action == WORKSPACE} == {41}


def test_what_lies_on_a_line_is_not_traced() -> None:
    """The first size between two is traced to see whether the line holds; the others follow from it."""
    found, made = made_of(lambda number: 1000 + 10**6 * number)
    for number in (10, 100, 40, 41, 99):
        assert found.about(number)[0].events[0][2] == 1000 + 10**6 * number
    assert made == [10, 100, 40]


def test_where_the_step_bends_it_is_traced() -> None:
    """Sizes that grow by no line, or that bend between the two ends, are those of the trace itself."""
    found, made = made_of(lambda number: 10**6 * min(number, 50))
    for number in (10, 100, 40, 45, 60, 80, 70):
        assert found.about(number)[0].events[0][2] == 10**6 * min(number, 50), number
    assert made == [10, 100, 40, 45, 60, 80]  # 45 lies between 40 and 100, 70 on the line from 60 to 100


@pytest.mark.parametrize(
    ("request_", "shared"),
    [
        (SMALL, [{"h100-80gb", "h200-141gb", "t4", "b200"}]),
        (
            Request(model="vit_b_16", optimizer="sgd", batch_size=2, image_size=224, precision="fp16"),
            [{"h100-80gb", "h200-141gb", "b200"}, {"t4"}],  # cuDNN's attention, and the efficient one
        ),
    ],
)
def test_cards_share_the_traces_of_which_attention_is_the_same(
    monkeypatch: pytest.MonkeyPatch, request_: Request, shared: list[set[str]]
) -> None:
    """A trace depends on the card by its kernels of attention alone: those that share them share it."""
    asked = 0

    def counted(*given: Any, **options: Any) -> Trace:
        nonlocal asked
        asked += 1
        return trace_run(*given, **options)

    monkeypatch.setattr(traces, "trace_run", counted)
    found = traces_of(request_, [CARDS[name] for name in sorted(set().union(*shared))], VERSION)
    together = [{card.name for card in found if found[card] is one} for one in {*found.values()}]
    assert sorted(map(sorted, together)) == sorted(map(sorted, shared))
    for one in found.values():
        one.at(request_.batch_size)
    assert asked == len(shared)

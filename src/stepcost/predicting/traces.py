"""Traces of one step at many sizes and for many cards: few are made, the others lie on lines through them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import astuple, replace
from typing import Any, Literal

from stepcost.catalog.cards import Card
from stepcost.predicting.attention import Attention, Compared, attention_on
from stepcost.predicting.ranks import trace_ranks
from stepcost.predicting.tape import ALLOC, FREE, REDUCTION, WORKSPACE, Event
from stepcost.predicting.torch_versions import Version
from stepcost.predicting.trace import Trace, trace_run
from stepcost.request import Request

Size = Literal["batch_size", "sequence_length"]
APART = {ALLOC: 4096, FREE: 4096, REDUCTION: 1}
"""So far an event on a line may be from the traced one: temporaries of a sort grow in steps."""


class Line:
    """The traces between two batch sizes, where the same happens at both and every size is on a line."""

    def __init__(self, first: int, low: Trace, last: int, high: Trace) -> None:
        """Raise ``ValueError`` where the two traces do not take the same course."""
        self.first, self.last, self._low = first, last, low
        self._shape, self._from = _parted(low.events)
        shape, until = _parted(high.events)
        if self._shape != shape:
            raise ValueError("the step takes another course at another size")
        self._grows = [
            tuple(b - a for a, b in zip(one, other, strict=True))
            for one, other in zip(self._from, until, strict=True)
        ]

    def at(self, number: int) -> Trace:
        """Return the trace at a size between the two."""
        sizes = self._sizes(number)
        return replace(self._low, events=[_joined(*one) for one in zip(self._shape, sizes, strict=True)])

    def agrees(self, number: int, traced: Trace) -> bool:
        """Say whether the trace that was made at a size is the one on the line."""
        shape, made = _parted(traced.events)
        return shape == self._shape and all(
            abs(a - b) <= APART.get(action, 0)
            for (action, _), one, other in zip(shape, made, self._sizes(number), strict=True)
            for a, b in zip(one, other, strict=True)
        )

    def _sizes(self, number: int) -> list[tuple[int, ...]]:
        along, whole = number - self.first, self.last - self.first
        return [
            tuple(a + grows * along // whole for a, grows in zip(one, more, strict=True))
            if any(more)
            else one
            for one, more in zip(self._from, self._grows, strict=True)
        ]


class Traces:
    """What a step does at each of its sizes, traced once at each; ``make(number)`` traces it.

    A step of several GPUs has a trace for each of them, in order.
    """

    def __init__(self, make: Callable[[int], Sequence[Trace]]) -> None:
        self._make = make
        self._made: dict[int, Sequence[Trace]] = {}
        self._lines: list[Line] = []

    def at(self, number: int) -> Sequence[Trace]:
        """Return the traces at a size, as they were traced. Raises ``ValueError`` as ``trace_run``."""
        if number not in self._made:
            self._made[number] = self._make(number)
        return self._made[number]

    def about(self, number: int) -> Sequence[Trace]:
        """Return the traces at a size from a line that was seen to hold, else as they were traced.

        A line is drawn for one GPU. It holds between two sizes where the first trace that is asked for
        between them lies on it. Raises ``ValueError`` as ``trace_run``.
        """
        if number in self._made:
            return self._made[number]
        for line in self._lines:
            if line.first < number < line.last:
                return [line.at(number)]
        below = max((one for one in self._made if one < number), default=None)
        above = min((one for one in self._made if one > number), default=None)
        traced = self.at(number)
        if below is not None and above is not None and len(traced) == 1:
            with contextlib.suppress(ValueError):
                line = Line(below, self._made[below][0], above, self._made[above][0])
                if line.agrees(number, traced[0]):
                    self._lines.append(line)
        return traced


def traces_of(
    request: Request, cards: Iterable[Card], version: Version, field: Size = "batch_size"
) -> dict[Card, Traces]:
    """Return the traces of a request by one of its sizes, as each card runs it.

    Cards of which attention takes the same kernels share them. Raises ``ValueError`` as ``trace_run``.
    """
    waiting = {card: attention_on(card, version) for card in cards}
    found: dict[Card, Traces] = {}
    while waiting:
        first = next(iter(waiting.values()))
        compared = Compared(capability=first.capability, version=first.version, alike={*waiting.values()})

        def make(number: int, attention: Attention = compared) -> list[Trace]:
            changed: dict[str, Any] = {field: number}
            return _by_rank(replace(request, **changed), attention)

        traces = Traces(make)
        if len(compared.alike) > 1:
            traces.at(getattr(request, field))
        found |= {card: traces for card, attention in waiting.items() if attention in compared.alike}
        waiting = {card: attention for card, attention in waiting.items() if card not in found}
    return found


def runs_of(traces: Iterable[Trace]) -> list[Trace]:
    """Return what may happen on any GPU: of alike ones once, and for each time at which a bucket may go."""
    ranks = {id(one): one for one in traces}
    return [replace(one, events=events) for one in ranks.values() for events in (one.events, *one.otherwise)]


def _by_rank(request: Request, attention: Attention) -> list[Trace]:
    if request.gpus == 1:
        return [trace_run(request, attention=attention)]
    return trace_ranks(request, attention=attention)


def _parted(events: list[Event]) -> tuple[list[tuple[str, Any]], list[tuple[int, ...]]]:
    """Part events into what happens and by which sizes."""
    shape: list[tuple[str, Any]] = []
    sizes: list[tuple[int, ...]] = []
    for action, what, more in events:
        if action in (ALLOC, FREE):
            shape.append((action, what))
            sizes.append((more,))
        elif action == WORKSPACE:
            shape.append((action, (what, more[1])))
            sizes.append((more[0],))
        elif action == REDUCTION and _of_numbers(what):
            shape.append((action, type(what)))
            sizes.append(astuple(what))
        else:
            shape.append((action, (what, more)))
            sizes.append(())
    return shape, sizes


def _of_numbers(what: Any) -> bool:
    """Whether numbers say all of it; what has lists of them does not grow with the batch."""
    return all(isinstance(one, int) for one in astuple(what))


def _joined(shape: tuple[str, Any], sizes: tuple[int, ...]) -> Event:
    """Put an event together again."""
    action, what = shape
    if action in (ALLOC, FREE):
        return action, what, sizes[0]
    if action == WORKSPACE:
        return action, what[0], (sizes[0], what[1])
    if action == REDUCTION and sizes:
        return action, what(*sizes), None
    return action, what[0], what[1]

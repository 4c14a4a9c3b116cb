"""A traced run with more steps: its steady step again and again, each freeing what the one before it left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from stepcost.predicting.tape import ALLOC, FREE, MARK, Event
from stepcost.predicting.trace import STEP_DONE, Trace


def with_steps(traced: Trace, steps: int) -> Trace | None:
    """Return a run of ``steps`` steps, its last one repeated; ``None`` where the last two are not alike."""
    ends = [
        place
        for place, (action, what, _) in enumerate(traced.events, 1)
        if (action, what) == (MARK, STEP_DONE)
    ]
    if len(ends) < 3 or ends[-1] != len(traced.events):
        return None
    before, last = traced.events[ends[-3] : ends[-2]], traced.events[ends[-2] :]
    if [_course(one) for one in before] != [_course(one) for one in last]:
        return None
    made = _made(last)
    place = {what: number for number, what in enumerate(made)}
    earlier = {what: number for number, what in enumerate(_made(before))}
    events, streams = list(traced.events), dict(traced.streams)
    names = made
    for again in range(steps - len(ends)):
        # Traced allocations are numbered from 0 on.
        previous, names = names, [-1 - again * len(made) - number for number in range(len(made))]
        streams |= {
            name: streams[one] for name, one in zip(names, made, strict=True) if one in traced.streams
        }
        now = {one: names[number] for one, number in place.items()}
        now |= {one: previous[number] for one, number in earlier.items()}
        for action, what, more in last:
            if action in (ALLOC, FREE) and what not in now:
                return None  # it frees what an older step left, which happens once
            events.append((action, now[what] if action in (ALLOC, FREE) else what, more))
    return replace(traced, events=events, streams=streams)


def _course(event: Event) -> tuple[object, ...]:
    action, what, more = event
    return (action, more) if action in (ALLOC, FREE) else (action, what, more)


def _made(events: Sequence[Event]) -> list[int]:
    return [what for action, what, _ in events if action == ALLOC]

"""The optimizers of all ranks under ``ZeroRedundancyOptimizer``, each with its own share of the parameters.

All else of a step is the same on every rank. So one trace has the steps of all their optimizers: where that
of the first rank takes its step, those of the others do, one by one, and what they do is kept apart.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import replace
from typing import Any

from stepcost.ledger import STATE
from stepcost.predicting.tape import Event, Tape
from stepcost.predicting.trace import Trace
from stepcost.tensors import count_state


class LocalOptimizers:
    """The optimizers of those ranks that differ, the first rank's among them."""

    def __init__(self, zero: Any, tape: Tape) -> None:
        """Take the ``ZeroRedundancyOptimizer`` of the first rank (private inside; tried with 2.11, 2.15)."""
        parts = zero._partition_parameters()
        self._of_rank = [_shapes(groups) for groups in parts]
        self._first, self._tape = zero.optim, tape
        self._others = {
            shapes: type(zero.optim)(groups, **zero._optim_defaults)
            for shapes, groups in zip(self._of_rank, parts, strict=True)
            if shapes != self._of_rank[0]
        }
        self._steps: list[tuple[int, int, dict[Hashable, list[Event]]]] = []
        """Of each step, from where to where the first rank's stands among the events, and the others'."""
        self._step_first, zero.optim.step = zero.optim.step, self._step

    def _step(self, **options: Any) -> Any:
        events, others = self._tape.events, {}
        start = len(events)
        for shapes, optimizer in self._others.items():
            optimizer.step(**options)
            others[shapes] = events[start:]
            del events[start:]
        done = self._step_first(**options)
        self._steps.append((start, len(events), others))
        return done

    def traces(self, first: Trace) -> list[Trace]:
        """Return the trace of each rank, of which ``first`` is the first; ranks that are alike have one."""
        found: dict[Hashable, Trace] = {self._of_rank[0]: first}
        for shapes, optimizer in self._others.items():
            self._tape.know(STATE, (value for state in optimizer.state.values() for value in state.values()))
            found[shapes] = replace(
                first,
                events=self._with_steps_of(shapes, first.events),
                counted=first.counted | count_state(optimizer.state),
            )
        return [found[shapes] for shapes in self._of_rank]

    def _with_steps_of(self, shapes: Hashable, events: list[Event]) -> list[Event]:
        made: list[Event] = []
        done = 0
        for start, end, others in self._steps:
            made += [*events[done:start], *others[shapes]]
            done = end
        return made + events[done:]


def _shapes(groups: Sequence[dict[str, Any]]) -> Hashable:
    """Return what of a rank's share of the parameters decides what its optimizer takes of memory."""
    return tuple(tuple((tuple(one.shape), one.dtype) for one in group["params"]) for group in groups)

"""A GPU of several that holds the whole model: what ``DistributedDataParallel`` takes of memory, and when.

It sums gradients in buckets. The first is made with the wrapper and holds them all. Where the next forward
begins, others take its place, in the order in which gradients came.

The first may be held a while longer (``ProcessGroupNCCL.cpp``). NCCL keeps it until a thread of its own,
which looks every 100 ms, has seen its sum done; the next collective then gives it back. So time decides
where the buckets that follow find place, and with that what is reserved.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any
from unittest import mock

import torch
from torch.nn.parallel import distributed as ddp

from stepcost.ledger import PARALLEL
from stepcost.parallel import first_collectives, share
from stepcost.predicting.tape import ALLOC, EXCHANGED, FREE, MARK, Event, Tape
from stepcost.predicting.trace import Alone, Trace
from stepcost.predicting.zero import LocalOptimizers
from stepcost.request import Request
from stepcost.step import TrainingStep

WHY_OTHERWISE = "when NCCL gives the first bucket of DDP back, which a thread of its own decides"


class Replica(Alone):
    """A GPU that sums gradients with the others, by ``DistributedDataParallel``: the first of its ranks."""

    def __init__(self, request: Request) -> None:
        """Take the request that the GPUs share."""
        self._request = replace(request, device="meta")
        self._first_buckets: set[int] = set()
        self._optimizers: LocalOptimizers | None = None
        self.traces: list[Trace] = []
        """Those of all ranks in order, when the first was traced; ranks that are alike have one."""

    def join(self) -> None:
        """Do the first collectives, which take memory of two small tensors."""
        first_collectives(self._request)

    def share(self, step: TrainingStep, tape: Tape) -> TrainingStep:
        """Wrap the step as a measured one is, with gradients to which nobody adds."""
        before = len(tape.events)
        # It would read back what the shapes of the others are.
        with mock.patch.object(ddp, "_verify_param_shape_across_processes"):
            step = share(self._request, step)
        made, gone = (
            {what for action, what, _ in tape.events[before:] if action == one} for one in (ALLOC, FREE)
        )
        self._first_buckets = made - gone
        if self._request.parallel == "zero1":
            self._optimizers = LocalOptimizers(step.optimizer, tape)

        def summed(_, bucket):  # type: ignore[no-untyped-def]  # DDP takes no annotations that are text
            tape.events.append(EXCHANGED)
            future: Any = torch.futures.Future()
            future.set_result(bucket.buffer())
            return future

        wrapper: Any = step.forward
        wrapper.register_comm_hook(None, summed)
        return step

    def after_first_step(self, step: TrainingStep) -> None:
        """Make the buckets anew, as the next forward would, and as is done where they are measured."""
        wrapper: Any = step.forward
        wrapper.reducer._rebuild_buckets()

    def finish(self, trace: Trace) -> None:
        """Make the traces of all ranks, which say how else it may have gone."""
        ranks = [trace] * self._request.gpus if self._optimizers is None else self._optimizers.traces(trace)
        found = {id(one): self._with_buckets(one) for one in ranks}
        self.traces = [found[id(one)] for one in ranks]

    def _with_buckets(self, trace: Trace) -> Trace:
        """Return the trace with where the buckets are, and how else it may have gone."""
        events = trace.events
        freed = [
            at for at, event in enumerate(events) if event[0] == FREE and event[1] in self._first_buckets
        ]
        if not freed:
            return trace
        last = freed[-1]
        anew = itertools.takewhile(lambda event: event[0] == ALLOC, events[last + 1 :])
        freeing = [events[at] for at in freed]
        others = [event for at, event in enumerate(events) if at not in freed]
        late = [[*others[:at], *freeing, *others[at:]] for at in (*_enqueued(others, last), len(others))]
        # The buckets are made anew within the first step where it has a second micro-batch.
        usual, otherwise = (events, late) if self._request.accumulate == 1 else (late[0], [events, *late[1:]])
        return replace(
            trace,
            events=usual,
            otherwise=otherwise,
            why_otherwise=WHY_OTHERWISE,
            kinds=trace.kinds | {what: PARALLEL for _, what, _ in anew},
        )


def _enqueued(events: Sequence[Event], start: int) -> Iterator[int]:
    """Yield where the first collective after each moment is enqueued, of those from ``start`` on."""
    fresh = False
    for at, event in enumerate(events[start:], start):
        if event == EXCHANGED and fresh:
            yield at
        fresh = event[0] == MARK or (fresh and event != EXCHANGED)

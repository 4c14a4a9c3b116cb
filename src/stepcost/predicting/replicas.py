"""A GPU of several that holds the whole model: what ``DistributedDataParallel`` takes of memory, and when.

It sums gradients in buckets. The first is made with the wrapper and holds them all. Where the next forward
begins, others take its place, in the order in which gradients came.

The first may be held a while longer (``ProcessGroupNCCL.cpp``). NCCL keeps it until a thread of its own,
which looks every 100 ms, has seen its sum done; the next collective then gives it back. So time decides
where the buckets that follow find place, and with that what is reserved.
"""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import replace
from typing import Any
from unittest import mock

import torch
from torch.distributed.optim import ZeroRedundancyOptimizer
from torch.nn.parallel import distributed as ddp

from stepcost.ledger import PARALLEL
from stepcost.parallel import first_collectives, share
from stepcost.predicting.tape import ALLOC, EXCHANGED, FREE, MARK, Event, Tape
from stepcost.predicting.trace import Alone, Trace
from stepcost.request import Request
from stepcost.step import TrainingStep

WHY_OTHERWISE = "when NCCL gives the first bucket of DDP back, which a thread of its own decides"


class Replica(Alone):
    """A GPU that sums gradients with the others, by ``DistributedDataParallel``."""

    def __init__(self, request: Request) -> None:
        """Take the request that the GPUs share."""
        self._request = replace(request, device="meta")
        self._first_buckets: set[int] = set()
        self._alike: list[Hashable] = [None] * request.gpus

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

        def summed(_, bucket):  # type: ignore[no-untyped-def]  # DDP takes no annotations that are text
            tape.events.append(EXCHANGED)
            future: Any = torch.futures.Future()
            future.set_result(bucket.buffer())
            return future

        wrapper: Any = step.forward
        wrapper.register_comm_hook(None, summed)
        if isinstance(step.optimizer, ZeroRedundancyOptimizer):
            self._alike = [_shapes(groups) for groups in _parts(step.optimizer)]
        return step

    def after_first_step(self, step: TrainingStep) -> None:
        """Make the buckets anew, as the next forward would, and as is done where they are measured."""
        wrapper: Any = step.forward
        wrapper.reducer._rebuild_buckets()

    def finish(self, trace: Trace) -> None:
        """Say which ranks are like this one, where the buckets are, and how else it may have gone."""
        trace.alike = self._alike
        events = trace.events
        freed = [
            at
            for at, (action, what, _) in enumerate(events)
            if what in self._first_buckets and action == FREE
        ]
        if not freed:
            return
        last = freed[-1]
        anew = itertools.takewhile(lambda event: event[0] == ALLOC, events[last + 1 :])
        trace.kinds |= {what: PARALLEL for _, what, _ in anew}
        freeing = [events[at] for at in freed]
        others = [event for at, event in enumerate(events) if at not in freed]
        late = [[*others[:at], *freeing, *others[at:]] for at in (*_enqueued(others, last), len(others))]
        # The buckets are made anew within the first step where it has a second micro-batch.
        trace.why_otherwise = WHY_OTHERWISE
        soon = self._request.accumulate == 1
        trace.events, trace.otherwise = (events, late) if soon else (late[0], [events, *late[1:]])


def _parts(optimizer: Any) -> list[list[dict[str, Any]]]:
    """Return the groups of parameters of each rank (private; tried with 2.11 and 2.15)."""
    parts: list[list[dict[str, Any]]] = optimizer._partition_parameters()
    return parts


def _shapes(groups: Sequence[dict[str, Any]]) -> Hashable:
    """Return what of a rank's share of the parameters decides what its optimizer takes of memory."""
    return tuple(tuple((tuple(one.shape), one.dtype) for one in group["params"]) for group in groups)


def _enqueued(events: Sequence[Event], start: int) -> Iterator[int]:
    """Yield where the first collective after each moment is enqueued, of those from ``start`` on."""
    fresh = False
    for at, event in enumerate(events[start:], start):
        if event == EXCHANGED and fresh:
            yield at
        fresh = event[0] == MARK or (fresh and event != EXCHANGED)

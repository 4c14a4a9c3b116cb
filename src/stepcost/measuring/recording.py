"""Record what the caching allocator does in a training step on a GPU.

The recording is replayed by ``stepcost.allocator.history``, which says what the peak is made of.
"""

from __future__ import annotations

import gc
from collections.abc import Iterable, Mapping
from typing import Any

import torch

from stepcost.allocator.history import History, HistoryUnavailable
from stepcost.ledger import BUFFER, GRADIENT, INPUT, PARALLEL, PARAMETER, STATE
from stepcost.reading import FORWARD
from stepcost.step import TrainingStep, held_here, state_of, tensors_in

MAX_EVENTS = 4_000_000
"""A step of ResNet-152 makes about 10,000; the allocator forgets the oldest beyond this."""

FSDP = "torch/distributed/fsdp/"
"""Where the code of ``fully_shard`` is."""


class Recorder:
    """Record what the allocator of ``device`` does, from now until ``stop``."""

    def __init__(self, device: torch.device, *, stacks: bool = False) -> None:
        """Start; raises ``HistoryUnavailable`` where this torch cannot.

        With ``stacks`` it is recorded too which code asks, by which what FSDP asks for is known.
        """
        self._index = torch.cuda.current_device() if device.index is None else device.index
        _set_recording("alloc" if stacks else None)
        segments, trace = _snapshot(self._index)
        self._segments, self._first = segments, len(trace)
        self._marks: list[tuple[str, int]] = []

    def mark(self, name: str) -> None:
        """Name this moment."""
        self._marks.append((name, len(_snapshot(self._index)[1])))

    def stop(self) -> History:
        """Stop recording and return what was recorded."""
        trace = _snapshot(self._index)[1]
        _set_recording(on=False)
        names = {"free_completed": "free"}
        kept = ("alloc", "free_completed", "segment_alloc", "segment_free")
        events: list[tuple[str, int, int]] = []
        before: list[int] = []
        born: dict[int, str] = {}
        for action, address, size, by_fsdp in trace:
            before.append(len(events))
            if len(before) > self._first and action in kept:
                if by_fsdp and action == "alloc":
                    born[len(events)] = PARALLEL
                events.append((names.get(action, action), address, size))
        before.append(len(events))
        marks = [(name, before[min(count, len(trace))]) for name, count in self._marks]
        return History(segments=self._segments, events=events, marks=marks, kinds_born=born)


def _set_recording(context: str | None = None, *, on: bool = True) -> None:
    """Switch the allocator's recording (private interface, tried with torch 2.11)."""
    try:
        if on:
            stacks = {} if context is None else {"stacks": "python"}
            torch.cuda.memory._record_memory_history(
                enabled="all", context=context, max_entries=MAX_EVENTS, **stacks
            )
        else:
            torch.cuda.memory._record_memory_history(enabled=None)
    except (AttributeError, TypeError, RuntimeError) as error:
        raise HistoryUnavailable(
            f"torch {torch.__version__} does not record allocations so: {error}"
        ) from error


def _snapshot(
    index: int,
) -> tuple[list[tuple[int, list[tuple[int, bool]]]], list[tuple[str, int, int, bool]]]:
    """Segments now and all events so far on one device (private interface, tried with torch 2.11)."""
    try:
        snapshot = torch.cuda.memory._snapshot()
        segments = [
            (
                segment["address"],
                [(block["size"], block["state"] == "active_allocated") for block in segment["blocks"]],
            )
            for segment in snapshot["segments"]
            if segment["device"] == index
        ]
        trace = [
            (event["action"], event.get("addr", 0), event.get("size", 0), _is_by_fsdp(event))
            for event in snapshot["device_traces"][index]
        ]
    except (AttributeError, KeyError, IndexError, RuntimeError) as error:
        raise HistoryUnavailable(
            f"torch {torch.__version__} has another snapshot format: {error!r}"
        ) from error
    return segments, trace


def _is_by_fsdp(event: Mapping[str, Any]) -> bool:
    """Whether the code of ``fully_shard`` asks: it runs in hooks, and calls nothing of the model."""
    return any(FSDP in frame["filename"] for frame in event.get("frames") or ())


def record_step(training_step: TrainingStep, batch: Any, device: torch.device) -> History:
    """Take one training step on a GPU, ``device``, and return what the allocator did in it."""
    gc.collect()
    training_step.optimizer.zero_grad(set_to_none=True)
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    kinds = known_kinds(training_step, batch)
    before = torch.cuda.memory_allocated(device)
    kept: list[int] = []
    in_parts = any(hasattr(parameter, "to_local") for parameter in training_step.model.parameters())
    recorder = Recorder(device, stacks=in_parts)

    def after(phase: str) -> None:
        if phase == FORWARD:  # no other moment is asked for, and each takes all events so far out of torch
            recorder.mark(phase)
            kept.append(torch.cuda.memory_allocated(device) - before)

    try:
        training_step(batch, after)
    finally:
        torch.cuda.synchronize(device)
        history = recorder.stop()
    history.kinds.update(kinds)
    history.kinds_after.update(known_kinds(training_step, batch))
    history.about.update(
        peak_allocated_bytes=torch.cuda.max_memory_allocated(device),
        peak_reserved_bytes=torch.cuda.max_memory_reserved(device),
        activation_bytes=kept[0],
    )
    return history


def known_kinds(training_step: TrainingStep, batch: Any) -> dict[int, str]:
    """Address of every tensor a training step keeps, to what it is."""
    kinds: dict[int, str] = dict(training_step.known)

    def note(kind: str, tensors: Iterable[Any]) -> None:
        for tensor in tensors:
            if isinstance(tensor, torch.Tensor):
                kinds[held_here(tensor).untyped_storage().data_ptr()] = kind

    model, optimizer = training_step.model, training_step.optimizer
    note(INPUT, tensors_in(batch))
    note(STATE, (value for state in state_of(optimizer).values() for value in state.values()))
    note(GRADIENT, (parameter.grad for parameter in model.parameters()))
    note(BUFFER, model.buffers())
    note(PARAMETER, model.parameters())
    return kinds

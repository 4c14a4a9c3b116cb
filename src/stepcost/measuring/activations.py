"""Sum by module what a training step on a GPU keeps for backward, from the allocator's recorded events."""

from __future__ import annotations

from bisect import bisect_right
from typing import Any

import torch

from stepcost.activations import (
    LOSS,
    ModuleActivations,
    Owner,
    by_module,
    watched,
)
from stepcost.allocator.history import History, HistoryUnavailable, allocations_of, forward_ends, peak_of
from stepcost.ledger import ALWAYS
from stepcost.measuring.recording import record_step
from stepcost.step import TrainingStep

Changes = list[tuple[int, Owner]]
"""How many allocations a step had made when the innermost running module changed, and to which; at last
how many it made in all."""


def kept_by_module(history: History, changes: Changes) -> list[ModuleActivations]:
    """Sum by module what a recorded step's first forward left allocated, attributed as by ``by_module``.

    Raises ``HistoryUnavailable`` where the recording or the sum is not what the allocator counted.
    """
    peak_of(history, None)  # the replay gives the allocator's own peak, or there is no table
    allocations, _ = allocations_of(history)
    forward_end = forward_ends(history)[0]
    made = [event for event, (action, *_) in enumerate(history.events) if action == "alloc"]
    number = {event: count for count, event in enumerate(made)}
    counts = [count for count, _ in changes]
    if len(made) != counts[-1]:
        raise HistoryUnavailable(f"{len(made)} allocations are recorded, the allocator counted {counts[-1]}")

    def owner_of(born: int) -> Owner:
        before = bisect_right(counts, number[born])
        return changes[before - 1][1] if before else LOSS

    kept = [
        (owner_of(one.born), one.bytes)
        for one in allocations
        if one.born != ALWAYS and one.lives_at(forward_end)
    ]
    found, counted = by_module(kept), history.about["activation_bytes"]
    total = sum(one.bytes for one in found)
    if total != counted:
        raise HistoryUnavailable(f"the modules add up to {total} bytes, the allocator counted {counted}")
    return found


def record_by_module(
    training_step: TrainingStep, batch: Any, device: torch.device
) -> tuple[History, Changes]:
    """Take one training step on a GPU; return what the allocator did, and when which module ran."""

    def allocations() -> int:
        # Asked as often as a module begins or ends; `memory_stats` would sort all counters each time.
        count: int = torch.cuda.memory_stats_as_nested_dict(device)["allocation"]["all"]["allocated"]
        return count

    changes: Changes = []
    first = allocations()
    with watched(training_step.model, lambda owner: changes.append((allocations() - first, owner))):
        history = record_step(training_step, batch, device)
    changes.append((allocations() - first, LOSS))
    return history, changes

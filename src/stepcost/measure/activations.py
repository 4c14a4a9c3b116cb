"""Which modules of a training step on a GPU keep most for backward, from the allocator's recorded events.

``python -m stepcost.measure.activations resnet152:sgd:64:32`` (model:optimizer:batch:image size) takes the
warm-up steps of a measured configuration, records the steady one and prints the table that ``stepcost
predict --activations`` predicts; ``--json FILE`` writes all modules.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from bisect import bisect_right
from dataclasses import asdict
from pathlib import Path

import torch

from stepcost.activations import (
    LOSS,
    ModuleActivations,
    Owner,
    as_rows,
    by_module,
    print_activations,
    watched,
)
from stepcost.allocator.history import History, HistoryUnavailable, allocations_of, peak_of
from stepcost.catalog.optimizers import OPTIMIZERS
from stepcost.ledger import ALWAYS
from stepcost.measure.child import STARTED
from stepcost.measure.recording import record_step
from stepcost.reading import FORWARD
from stepcost.request import Request
from stepcost.step import TrainingStep

Changes = list[tuple[int, Owner]]
"""How many allocations a step had made when the innermost running module changed, and to which."""


def kept_by_module(history: History, changes: Changes) -> list[ModuleActivations]:
    """Sum by module what a recorded step's forward left allocated, with the attribution of ``by_module``.

    Raises ``HistoryUnavailable`` where the sum is not what the allocator counted.
    """
    peak_of(history, None)  # the replay gives the allocator's own peak, or there is no table
    allocations, _ = allocations_of(history)
    forward_end = dict(history.marks)[FORWARD] - 1
    made = [event for event, (action, *_) in enumerate(history.events) if action == "alloc"]
    number = {event: count for count, event in enumerate(made)}
    counts = [count for count, _ in changes]

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
    training_step: TrainingStep, images: torch.Tensor, labels: torch.Tensor
) -> tuple[History, Changes]:
    """Take one training step on a GPU; return what the allocator did, and when which module ran."""

    def allocations() -> int:
        count: int = torch.cuda.memory_stats(images.device)["allocation.all.allocated"]
        return count

    changes: Changes = []
    first = allocations()
    with watched(training_step.model, lambda owner: changes.append((allocations() - first, owner))):
        history = record_step(training_step, images, labels)
    made = sum(action == "alloc" for action, *_ in history.events)
    if made != allocations() - first:
        raise HistoryUnavailable(
            f"{made} allocations are recorded, the allocator counted {allocations() - first}"
        )
    return history, changes


def main(arguments: list[str] | None = None) -> int:
    """Measure the configuration on the command line in this process; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m stepcost.measure.activations", description=__doc__)
    parser.add_argument("row", metavar="MODEL:OPTIMIZER:BATCH:IMAGE_SIZE")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all modules to a file")
    options = parser.parse_args(arguments)
    try:
        model, optimizer, batch_size, image_size = options.row.rsplit(":", 3)
        request = Request(
            model=model, optimizer=optimizer, batch_size=int(batch_size), image_size=int(image_size)
        )
    except ValueError:
        parser.error(f"{options.row!r} is not MODEL:OPTIMIZER:BATCH:IMAGE_SIZE")
    if optimizer not in OPTIMIZERS:
        parser.error(f"unknown optimizer {optimizer!r}; it takes {', '.join(OPTIMIZERS)}")
    if min(request.batch_size, request.image_size) < 1:
        parser.error(f"{options.row!r}: batch and image size are 1 or more")
    if not torch.cuda.is_available():
        parser.error("there is no GPU here; stepcost predict --activations predicts without one")
    from stepcost.measure.configuration import WARM_UP_STEPS, Configuration  # noqa: PLC0415 (starts NVML)

    now = time.perf_counter()
    STARTED.update(requested_at=now, forked_at=now)
    try:
        configuration = Configuration(request)
    except ValueError as error:  # a model that cannot be built, in one line
        parser.error(str(error))
    for _ in range(WARM_UP_STEPS):
        configuration.step()
    try:
        history, changes = record_by_module(
            configuration.training_step, configuration.images, configuration.labels
        )
        found = kept_by_module(history, changes)
    except HistoryUnavailable as error:
        sys.stderr.write(f"{options.row}: {error}\n")
        return 1
    gpu = torch.cuda.get_device_name(request.device)
    print_activations(found, f"measured on {gpu}")
    if options.json:
        answer = asdict(request) | {"source": "measured", "gpu": gpu, "torch": torch.__version__}
        answer |= {"activation_bytes": sum(one.bytes for one in found)}
        options.json.write_text(json.dumps(answer | {"activations_by_module": as_rows(found)}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The simulation against histories recorded on an H100 (torch 2.11.0+cu130, cuDNN 9.19.0), event by event."""

from __future__ import annotations

import itertools
from functools import cache
from pathlib import Path

import pytest

from stepcost.allocator.caching import Block, CachingAllocator
from stepcost.allocator.history import History, allocations_of, load
from stepcost.catalog.cards import CARDS
from stepcost.predicting import predict
from stepcost.predicting.simulate import Simulation, simulate
from stepcost.predicting.trace import trace_run
from stepcost.predicting.workspaces import workspaces_on
from stepcost.reading import PHASES
from stepcost.request import Request

FOLDER = Path(__file__).parent / "histories"
NAMES = sorted(path.name.removesuffix(".json.gz") for path in FOLDER.glob("*.json.gz"))
H100 = CARDS["h100-80gb"]
TORCH = "2.11"


@cache
def recorded(name: str) -> History:
    """Return a recorded run, from the first allocation through three training steps."""
    return load(FOLDER / f"{name}.json.gz")


def request(name: str) -> Request:
    """Return the request whose run was recorded."""
    about = recorded(name).about
    return Request(**{key: about[key] for key in ("model", "optimizer", "batch_size", "image_size")})


@cache
def simulated(name: str) -> Simulation:
    """Simulate the run that was recorded."""
    return simulate(trace_run(request(name)), workspaces_on(H100, (2, 11)), None)


@pytest.mark.parametrize("name", NAMES)
def test_the_trace_asks_for_what_the_run_asked_for(name: str) -> None:
    """Every allocation and every free of the run is predicted, in order, with its bytes."""
    asked = [(action, size) for action, _, size in recorded(name).events if action in ("alloc", "free")]
    predicted = simulated(name).requests
    # The run was recorded to its end, the prediction stops where the steady step does.
    for index, (ours, theirs) in enumerate(itertools.zip_longest(predicted, asked[: len(predicted)])):
        assert ours == theirs, f"request {index}"


@pytest.mark.parametrize("name", NAMES)
def test_the_allocator_reserves_what_the_allocator_reserved(name: str) -> None:
    """Given the recorded requests, the simulated allocator makes the segments that torch's made."""
    history = recorded(name)
    allocator = CachingAllocator()
    made: list[int] = []
    allocator.on_segment = lambda action, address, size: made.append(size)
    blocks: dict[int, Block] = {}
    for action, address, size in history.events:
        if action == "alloc":
            blocks[address] = allocator.allocate(size)
        elif action == "free":
            allocator.free(blocks.pop(address))
    assert made == [size for action, _, size in history.events if action == "segment_alloc"]
    assert allocator.peak_reserved_bytes == allocations_of(history)[1].peak_reserved_bytes


@pytest.mark.parametrize("name", NAMES)
def test_peaks_are_predicted_to_the_byte(name: str) -> None:
    """The peak of each phase of the steady step, and reserved memory, are those that were counted."""
    about = recorded(name).about
    reading = predict(request(name), H100, torch_version=TORCH)
    counted = {phase: about["phase_peak_bytes"][f"{about['steps'] - 1} {phase}"] for phase in PHASES}
    assert reading.phase_peak_bytes == counted
    assert reading.peak_reserved_bytes == about["peak_reserved_bytes"]

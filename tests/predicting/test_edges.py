"""Near the largest batch steps free cached memory to go on, and a later one may run out of it."""

import json
from pathlib import Path

import pytest

from stepcost.predicting.further import with_steps
from stepcost.predicting.simulate import simulate
from stepcost.predicting.tape import ALLOC, FREE
from stepcost.predicting.trace import trace_run
from stepcost.predicting.workspaces import workspaces_on
from stepcost.request import Request
from stepcost.search import MOST_STEPS

HERE = Path(__file__).parent
WRITTEN = HERE.parents[1] / "experiments" / "edge-predictions-h100-80gb.jsonl"
STEP = Request(model="resnet18", optimizer="adam", batch_size=32, image_size=64, num_classes=10)
UNASKED = workspaces_on(None, (0, 0))


def by_size(path):
    """The lines of a file by model and batch size."""
    rows = map(json.loads, path.read_text().splitlines())
    return {(one["request"]["model"], one["request"]["batch_size"]): one for one in rows}


def test_steps_end_where_they_were_predicted_to_end():
    """Eleven batches on an H100 took as many of six steps as was written before; eight ran out of memory."""
    written, measured = by_size(WRITTEN), by_size(HERE / "edges-h100-80gb.jsonl")
    assert len(measured) == 11
    assert sum(one["out_of_memory"] is not None for one in measured.values()) == 8
    for name, one in measured.items():
        assert written[name]["steps_done"] == len(one["steps"]), name


@pytest.fixture(scope="module")
def traces():
    """A step traced three times, and as often as a search goes."""
    return trace_run(STEP), trace_run(STEP, steps=MOST_STEPS)


def test_a_repeated_step_is_a_traced_one(traces):
    """Repeated, the last of three steps asks for and frees the same bytes as steps that are traced."""
    few, many = traces
    more = with_steps(few, MOST_STEPS)

    def course(trace):
        return [(a, x if a in (ALLOC, FREE) else (w, x)) for a, w, x in trace.events]

    assert course(more) == course(many)


def test_it_fits_where_all_steps_fit(traces):
    """Between too little room and enough three steps say what eight say; in some rooms a later one fails."""
    few, many = traces
    whole = simulate(many, UNASKED, None).allocator.peak_reserved_bytes
    later = 0
    for thousandth in range(880, 1001):
        room = whole * thousandth // 1000
        said, all_steps = simulate(few, UNASKED, room), simulate(many, UNASKED, room)
        assert (said.peak is None) == (all_steps.peak is None), room
        later += "(in step" in (said.out_of_memory_in or "")
    assert later


def test_what_is_not_alike_is_not_repeated(traces):
    """Of two steps, of which the first makes the state, nothing is said of further ones."""
    assert with_steps(trace_run(STEP, steps=2), 3) is None

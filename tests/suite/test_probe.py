"""The shell around the engine: what it stores where a configuration does not fit."""

from types import SimpleNamespace

import pytest

from fixtures import memory as probe
from fixtures import training
from fixtures.rows import OUT_OF_MEMORY_TIMED
from stepcost.costs import Costs
from stepcost.failures import ChildDied, OutOfMemory
from stepcost.reading import Reading


class Benchmark:
    """pytest-benchmark's fixture, as far as the shell uses it."""

    def __init__(self):
        self.stats = {"median": 0.5}

    def pedantic(self, target, args=(), **_):
        return target(*args)


class Worker:
    """A child that fails as told when it is asked for ``failing``."""

    def __init__(self, failing, error):
        self.failing, self.error, self.closed = failing, error, False

    def call(self, method, *_, **__):
        if method == self.failing:
            raise self.error
        return {"timed_steps": [0.1], "profiled": {"gpu_busy_s": 0.05}}.get(method)

    def close(self):
        self.closed = True

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def take(failing, error):
    """Time a step in a child that fails; returns the reading, the stored fields and the child."""
    worker, stored = Worker(failing, error), {}
    reading = Reading(source="measured", fits=True, peak_allocated_bytes=1)

    def read(child):
        child.call("reading")
        return reading

    lab = SimpleNamespace(costs=Costs(), configuration=lambda request: worker, read=read)
    taken = probe._timed_step(lab, Benchmark(), lambda **fields: stored.update(fields), None, True)
    return taken, stored, worker


def test_out_of_memory_is_a_row():
    """Running out of memory gives a reading that does not fit, and a row that says so."""
    reading, stored, worker = take("reading", OutOfMemory("out of memory in forward: no room"))
    assert (reading.fits, reading.reason) == (False, "out of memory in forward: no room")
    assert reading.peak_allocated_bytes is None
    assert worker.closed
    assert stored["timed"] == OUT_OF_MEMORY_TIMED


@pytest.mark.parametrize("phase", ["reading", "timed_steps", "step"])
def test_child_that_dies_fails_its_row(phase):
    """A child that dies, in whatever phase, has its error go up to fail the row."""
    with pytest.raises(ChildDied):
        take(phase, ChildDied("killed"))


def test_steps_that_fit_are_timed_and_their_busy_share_taken():
    """A configuration that fits is timed, with the share of the step that the GPU was busy."""
    reading, stored, worker = take(None, None)
    assert reading.fits
    assert stored["timed"] == "training step"
    assert stored["gpu_busy_share"] == pytest.approx(0.1)
    assert worker.closed


@pytest.mark.parametrize("error", [None, OutOfMemory("out of memory in epoch 1: no room")])
def test_training_that_runs_out_of_memory_is_a_row(error):
    """A training run that does not fit is an answer with its reason; one that fits adds up its epochs."""

    def study(request, advance):
        if error is not None:
            raise error
        return {"epochs": [{"train_seconds": 1.0}, {"train_seconds": 2.0}], "wall_s": 3.0}

    outcome = training._trained(
        SimpleNamespace(training=SimpleNamespace(study=study)), Benchmark(), None, None
    )
    if error is None:
        assert (outcome["fits"], outcome["train_s"]) == (True, 3.0)
    else:
        assert outcome == {"fits": False, "reason": "out of memory in epoch 1: no room"}

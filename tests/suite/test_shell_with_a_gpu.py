"""The shell as it is with a GPU, its session a stand-in: which rows are stored, skipped or failed."""

import json
import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

CONFTEST = '''
import os
from types import SimpleNamespace

import numpy as np
from fixtures import suite
from stepcost.catalog.datasets import Dataset
from stepcost.costs import Costs
from stepcost.failures import ChildDied, OutOfMemory
from stepcost.machine import Machine, ModelInfo
from stepcost.reading import Reading
from stepcost.session import Session

pytest_plugins = ["fixtures.suite", "fixtures.options", "fixtures.session", "fixtures.rows",
                  "fixtures.memory", "fixtures.training", "fixtures.engines"]
HAPPENS = os.environ["HAPPENS"]
NO_ROOM = "out of memory in forward: no room"


class StandIn(Session):
    """A session on a card that fits, is full, or whose child dies."""

    def __init__(self, settings):
        self.settings, self.costs, self._readings, self.notes = settings, Costs(), {}, []
        self.machine = Machine(device="cuda:0", why_no_gpu=None, torch="2.11", torchvision="0.26",
                               cuda="13.0", cudnn="9.19", gpu="stand-in", gpu_total_bytes=10**9)
        self.model = ModelInfo(name="m", kind="images", dtypes=("float32",), parameters=1,
                               trainable_parameters=1, frozen_parameters=0,
                               parameters_closed_form=None, parameter_bytes=4, trainable_parameter_bytes=4,
                               buffers=0, buffer_bytes=0, parameter_shapes=((1,),))
        images, labels = np.zeros((10, 3, 4, 4), np.uint8), np.arange(10, dtype=np.uint8)
        self.dataset = Dataset(name="ten", train_images=images, train_labels=labels, test_images=images,
                               test_labels=labels, source="made up")
        self.training = SimpleNamespace(learning_rate=lambda optimizer, batch_size: 0.1, study=self.trained,
                                        compared_losses=lambda request: {"fits": False, "reason": NO_ROOM})

    def outcome(self, time_rounds, fields):
        if HAPPENS == "dies":
            raise ChildDied("the child was killed by SIGSEGV")
        if HAPPENS != "full at once":
            median_s = time_rounds(lambda: None, 3)
            assert median_s is not None
        if HAPPENS.startswith("full"):
            return {"fits": False, "reason": NO_ROOM, "seconds": 0.5}
        return {"fits": True, **fields}

    def timed_step(self, request, time_rounds, *, busy=False):
        found = self.outcome(time_rounds, {})
        more = {"gpu_busy_s": 0.5, "gpu_busy_share": 0.25, "clocks": {"throttle_reasons": ["power cap"]}}
        known = {"peak_allocated_bytes": 700} if found["fits"] else {}
        return Reading(source="measured", **found, **known), more if found["fits"] and busy else {}

    def engine_step(self, request, time_rounds, *, bounds=True):
        return self.outcome(time_rounds, {"kernel_s": 0.5, "unread": {}})

    def trained(self, request, on_progress):
        if HAPPENS == "dies":
            raise ChildDied("the child was killed by SIGSEGV")
        if HAPPENS.startswith("full"):
            return {"fits": False, "reason": NO_ROOM}
        return {"fits": True, "epochs": [{"epoch": 1, "train_seconds": 3.0}], "train_s": 3.0, "wall_s": 3.0}

    def close(self):
        pass


suite.Session = StandIn
'''
BENCHMARKS = """
def test_step(step_of, batch_size):
    step_of("3a", optimizer="sgd", batch_size=batch_size, busy=True)

def test_engine(engine_step, batch_size):
    engine_step(engine="fast", batch_size=batch_size)

def test_study(study, batch_size):
    study(batch_size=batch_size, seed=0)

def test_losses(same_losses):
    same_losses(engine="fast")
"""
TRIED = "attempt that ran out of memory"


@pytest.fixture
def rows(pytester, monkeypatch):
    """``rows(happens)``: run the benchmarks on such a card; the outcomes, and the rows saved by test."""
    monkeypatch.setenv("PYTHONPATH", f"{ROOT / 'src'}{os.pathsep}{ROOT}")
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(test_made_up=BENCHMARKS)

    def run(happens):
        monkeypatch.setenv("HAPPENS", happens)
        flags = ("--batch-sizes", "8", "--optimizers", "sgd", "--benchmark-json", "run.json")
        result = pytester.runpytest_subprocess("-p", "no:cacheprovider", *flags)
        saved = pytester.path / "run.json"
        benches = (
            json.loads(saved.read_text())["benchmarks"] if saved.exists() and saved.stat().st_size else []
        )
        told = {bench["name"].partition("[")[0]: bench["extra_info"] for bench in benches}
        return result, told

    return run


def test_what_fits_is_timed_and_stored(rows):
    """A step that fits has its bytes, its busy share, its clocks and what is timed in its row."""
    result, found = rows("fits")
    result.assert_outcomes(passed=3, skipped=1)  # losses never fit here
    step = found["test_step"]
    assert (step["timed"], step["fits"], step["peak_allocated_bytes"]) == ("training step", True, 700)
    assert (step["gpu_busy_share"], step["throttled"]) == (0.25, True)
    assert len(step["rounds_s"]) == 3
    assert (found["test_engine"]["timed"], found["test_engine"]["kernel_s"]) == ("engine step", 0.5)
    assert (found["test_study"]["timed"], found["test_study"]["train_s"]) == ("training run", 3.0)


@pytest.mark.parametrize("when", ["full at once", "full while timed"])
def test_out_of_memory_is_a_row(rows, when):
    """Running out of memory, at once or while steps are timed, is a row that says so and no failure."""
    result, found = rows(when)
    result.assert_outcomes(passed=1, skipped=3)
    tried = (TRIED, False, "out of memory in forward: no room")
    names = ("test_step", "test_engine", "test_study", "test_losses")
    told = {name: (row["timed"], row["fits"], row["reason"]) for name, row in found.items()}
    assert told == dict.fromkeys(names, tried)
    assert found["test_step"].get("peak_allocated_bytes") is None


def test_a_child_that_dies_costs_its_own_row(rows):
    """A child that dies fails its benchmark in one line, and the others go on."""
    result, found = rows("dies")
    result.assert_outcomes(failed=3, skipped=1)
    result.stdout.fnmatch_lines(["the child was killed by SIGSEGV"])
    result.stdout.no_fnmatch_line("*Traceback*")
    assert list(found) == ["test_losses"]

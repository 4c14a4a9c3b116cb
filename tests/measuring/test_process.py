"""The process border, with real children that crash, hang, print noise and run out of memory."""

import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from stepcost.failures import ChildDied, ChildFailed, ChildHung, ChildKilled, OutOfMemory
from stepcost.measuring import process
from stepcost.measuring.process import Worker

FAULTY = "faulty_jobs:Faulty"
pytestmark = pytest.mark.usefixtures("capfd")


def test_answers_cross_the_border():
    """Plain data comes back as it went in, call after call, from one child."""
    with Worker(FAULTY) as worker:
        assert [worker.call("answer", value) for value in (1, "a", {"b": (2, None)})] == [
            1,
            "a",
            {"b": (2, None)},
        ]


def test_a_child_collects_its_own_garbage_alone():
    """In a child the collector is on, and looks at none of the many objects that it was forked with."""
    with Worker(FAULTY) as worker:
        is_on, objects = worker.call("collector")
    assert is_on
    assert objects < 10_000


def test_noise_stays_in_the_child(capfd):
    """What a child prints is neither taken for an answer nor seen on this process's output."""
    with Worker(FAULTY) as worker:
        assert worker.call("noise") == "heard"
    assert capfd.readouterr() == ("", "")


def test_child_that_ends_is_named_with_its_last_line():
    """A child that exits without an answer is reported with its exit code and last line."""
    with Worker(FAULTY) as worker, pytest.raises(ChildDied, match=r"exit code 3; its last line: last words$"):
        worker.call("end", 3)


def test_killed_child_is_named_with_its_signal():
    """A child that is killed is reported with the signal that killed it."""
    with Worker(FAULTY) as worker, pytest.raises(ChildKilled, match="was killed by SIGKILL"):
        worker.call("be_killed")


def test_only_sigkill_is_the_systems_way_of_saying_out_of_memory():
    """A segmentation fault is told apart from the signal that the system sends where memory runs out."""
    with Worker(FAULTY) as worker, pytest.raises(ChildDied, match="was killed by SIGSEGV") as caught:
        worker.call("be_killed", "SIGSEGV")
    assert not isinstance(caught.value, ChildKilled)


def test_exit_in_a_model_is_a_fault_with_its_code():
    """A child in which ``sys.exit`` is called is a fault in one line that says so."""
    with Worker(FAULTY) as worker, pytest.raises(ChildFailed, match=r"in leave: sys\.exit\(3\) was called$"):
        worker.call("leave", 3)


@pytest.fixture
def unkillable(monkeypatch):
    """Children whose end cannot be brought about, as those that wait inside a driver; returns their pids."""
    pids = []
    monkeypatch.setattr(process, "END_LIMIT_S", 0.2)
    monkeypatch.setattr(multiprocessing.context.ForkServerProcess, "kill", lambda self: pids.append(self.pid))
    yield pids
    for pid in set(pids):
        os.kill(pid, signal.SIGKILL)


def test_child_that_would_not_end_is_not_waited_for(unkillable):
    """A child that survives being killed is named within a bounded time, and not waited for at exit."""
    worker = Worker(FAULTY)
    start = time.perf_counter()
    with pytest.raises(ChildHung, match=r"no answer within 0\.2 s; process \d+ was killed and would not end"):
        worker.call("hang", time_limit_s=0.2)
    with pytest.warns(RuntimeWarning, match=f"Faulty: process {worker.pid} was killed and would not end"):
        worker.close()
    assert time.perf_counter() - start < 15
    assert worker.pid not in [child.pid for child in multiprocessing.active_children()]


def test_hanging_child_is_killed_at_its_time_limit():
    """A child that gives no answer is killed after its time limit, and is gone afterwards."""
    with Worker(FAULTY) as worker:
        start = time.perf_counter()
        with pytest.raises(ChildHung, match=r"no answer within 0.3 s"):
            worker.call("hang", time_limit_s=0.3)
        assert time.perf_counter() - start < 10
        assert not Path(f"/proc/{worker.pid}/exe").exists()


@pytest.mark.parametrize(
    "message",
    [
        "CUDA out of memory. Tried to allocate 20.00 MiB.",
        "CUDA error: out of memory",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        "FIND was unable to find an engine to execute this computation",
        "GET was unable to find an engine to execute this computation",
    ],
)
def test_faces_of_out_of_memory(message):
    """Every face of 'out of memory' is an answer that names its phase."""
    with Worker(FAULTY) as worker, pytest.raises(OutOfMemory, match="out of memory in forward: "):
        worker.call("run_out", message, "forward")


LIBRARY_ERRORS = (
    "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR",
    "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`",
)


@pytest.mark.parametrize("message", LIBRARY_ERRORS)
def test_library_that_fails_where_memory_is_short_ran_out_of_it(message):
    """What a library reports as an internal error is 'out of memory' where little is free."""
    with Worker(FAULTY) as worker, pytest.raises(OutOfMemory, match=r"with 16\.8 MB free on the GPU"):
        worker.call("run_out_with_free", message, 16 << 20)


@pytest.mark.parametrize("free_bytes", [4 << 30, None])
@pytest.mark.parametrize("message", LIBRARY_ERRORS)
def test_library_that_fails_with_memory_to_spare_is_a_fault(message, free_bytes):
    """The same error stays a fault where much is free, or where a broken GPU does not say."""
    with Worker(FAULTY) as worker, pytest.raises(ChildFailed, match="RuntimeError: "):
        worker.call("run_out_with_free", message, free_bytes)


def test_failure_names_the_call_where_no_phase_was_entered():
    """A phase ends with its call: a later failure is not said to be in an earlier call's phase."""
    with Worker(FAULTY) as worker, pytest.raises(ChildFailed, match="in fail in no phase: KeyError"):
        worker.call("fail_in_no_phase")


def test_torchs_own_out_of_memory():
    """torch.OutOfMemoryError is 'out of memory', in the phase in which it was raised."""
    with Worker(FAULTY) as worker, pytest.raises(OutOfMemory, match="in backward: CUDA out of memory"):
        worker.call("run_out_as_torch")


def test_host_out_of_memory():
    """The CPU allocator's refusal is 'out of memory' too."""
    with Worker(FAULTY) as worker, pytest.raises(OutOfMemory):
        worker.call("allocate_too_much")


def test_other_errors_are_faults_not_out_of_memory():
    """Any other error is a fault, in one line that names its phase."""
    with (
        Worker(FAULTY) as worker,
        pytest.raises(ChildFailed, match=r"in optimizer step: RuntimeError: wrong$"),
    ):
        worker.call("run_out", "wrong\nand more", "optimizer step")


def test_fault_while_building_is_reported_at_once():
    """A job that cannot be built is reported when the worker is made, with the reason apart."""
    with pytest.raises(ChildFailed, match="in build: no such model") as caught:
        Worker(FAULTY, "no such model")
    assert caught.value.reason == "no such model"


def test_progress_is_reported_before_the_answer():
    """What a generator yields is progress, what it returns is the answer."""
    seen = []
    with Worker(FAULTY) as worker:
        assert worker.call("count", 3, on_progress=seen.append) == "counted"
    assert seen == [0, 1, 2]


def test_child_that_dies_after_progress():
    """A child that dies between progress and answer is reported, not waited for."""
    with Worker(FAULTY) as worker, pytest.raises(ChildDied, match="exit code 7"):
        worker.call("die_while_counting")


def test_dead_child_stays_dead():
    """A call after the child has died says so again instead of hanging."""
    with Worker(FAULTY) as worker:
        for _ in range(2):
            with pytest.raises(ChildDied, match="exit code 3"):
                worker.call("end", 3)


def test_closing_leaves_no_log_and_no_process():
    """After close the child is gone and so is its log."""
    worker = Worker(FAULTY)
    log = Path(worker._log)
    assert log.exists()
    worker.close()
    assert not log.exists()
    assert not Path(f"/proc/{worker.pid}/exe").exists()

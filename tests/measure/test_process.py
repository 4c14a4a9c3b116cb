"""The process border, with real children that crash, hang, print noise and run out of memory."""

import time
from pathlib import Path

import pytest

from stepcost.failures import ChildDied, ChildFailed, ChildHung, OutOfMemory
from stepcost.measure.process import Worker

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
    with Worker(FAULTY) as worker, pytest.raises(ChildDied, match="killed by SIGKILL"):
        worker.call("be_killed")


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
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        "FIND was unable to find an engine to execute this computation",
        "GET was unable to find an engine to execute this computation",
    ],
)
def test_faces_of_out_of_memory(message):
    """Every face of 'out of memory' is an answer that names its phase."""
    with Worker(FAULTY) as worker, pytest.raises(OutOfMemory, match="out of memory in forward: "):
        worker.call("run_out", message, "forward")


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

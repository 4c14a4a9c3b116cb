"""Children that end on a GPU, and an NVML that refuses: each costs what it must, and nothing else."""

from dataclasses import asdict

import pytest

from stepcost.failures import ChildDied, ChildFailed, ChildHung, ChildKilled, MeasureError

pytestmark = pytest.mark.gpu

DEADLY = "tests.gpu.planted_jobs:deadly"
KILLED, HANGS, SEGFAULT = 5, 6, 7
"""Batch sizes at which that model ends its process."""
LIMIT_S = 8


@pytest.mark.parametrize(
    ("size", "ends"),
    [
        (KILLED, (ChildKilled, "was killed by SIGKILL")),
        (HANGS, (ChildHung, f"no answer within {LIMIT_S} s; the child was killed")),
        (SEGFAULT, (ChildDied, "was killed by SIGSEGV")),
    ],
)
def test_child_that_ends_is_a_fault_and_frees_the_card(planted, request_of, card, size, ends):
    """A child that is killed, hangs or crashes is named in one line, and its memory is free again."""
    kind, said = ends
    measure = planted(None, time_limit_s=LIMIT_S)
    with card.left_as_it_was(), pytest.raises(MeasureError) as caught:
        measure.measured(request_of(DEADLY, "sgd", size))
    assert type(caught.value) is kind, caught.value
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_segmentation_fault_is_not_does_not_fit(planted, request_of):
    """In the search for the largest batch a child that crashes is a fault, not a batch that does not fit."""
    with pytest.raises(ChildDied, match=f"^batch size {SEGFAULT}: .* was killed by SIGSEGV"):
        planted(None).trial(request_of(DEADLY, "sgd", SEGFAULT))


def test_sigkill_in_the_search_does_not_fit(planted, request_of):
    """In the search a child that the system kills is a batch that does not fit."""
    trial = planted(None).trial(request_of(DEADLY, "sgd", KILLED))
    assert trial.fits is False, trial
    assert "SIGKILL" in trial.reason


def test_failed_assertion_on_the_gpu_is_a_fault(planted, request_of, card):
    """Labels that are no classes are a fault in one line, not 'out of memory', and free the card."""
    with card.left_as_it_was(), pytest.raises(ChildFailed) as caught:
        planted("WrongLabels").measured(request_of("small-cnn", "sgd", 8))
    assert "CUDA error" in str(caught.value)  # which call meets it first is chance
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("function", ["nvmlInit", "nvmlDeviceGetHandleByUUID", "nvmlDeviceGetMemoryInfo"])
def test_nvml_that_refuses_costs_what_it_would_have_told(read, planted, request_of, rounds, function):
    """Where NVML refuses, process and context are unread with the reason; all other bytes are as ever."""
    request = request_of("resnet18", "sgd", 64)
    reading, fields = planted("NvmlRefuses", function).timed_step(request, rounds)
    assert reading.fits is True, reading
    assert reading.process_bytes is reading.context_bytes is reading.process_bytes_from is None, reading
    assert reading.unread.keys() == {"process_bytes", "context_bytes"}
    assert all(why.startswith("NVML: ") for why in reading.unread.values()), reading.unread
    assert fields["clocks"] is None
    assert len(rounds.seconds) >= 20
    ours, theirs = asdict(reading), asdict(read("resnet18", "sgd", 64))
    for name in ("process_bytes", "process_bytes_from", "context_bytes", "unread", "seconds"):
        del ours[name], theirs[name]
    for one in (ours["ledger"], theirs["ledger"], *ours["moments"], *theirs["moments"]):
        one.pop("process_bytes", None)
        one.pop("context_bytes")
    assert ours == theirs


def test_nvml_that_does_not_list_processes_is_read_by_difference(read, planted, request_of, card):
    """Where NVML lists no processes, a process is what is used more than before it, and says so."""
    card.free_bytes()  # so that there is another process, whose context is in use before
    listed = read("resnet18", "sgd", 64)
    reading = planted("NvmlRefuses", "nvmlDeviceGetComputeRunningProcesses").measured(
        request_of("resnet18", "sgd", 64)
    )
    assert reading.process_bytes_from == "nvml device difference", reading
    assert reading.unread == {}
    assert abs(reading.process_bytes - listed.process_bytes) <= 16 * 2**20, (reading, listed)
    assert reading.process_bytes - reading.peak_reserved_bytes == reading.context_bytes

"""Two GPUs that share a step, by NCCL: what each holds, and that a fault leaves nothing on either of them."""

from dataclasses import asdict
from functools import cache

import pytest

from stepcost import jobs
from stepcost.failures import ChildHung, ChildKilled, MeasureError, OutOfMemory
from stepcost.measuring.measurements import Measurements
from stepcost.measuring.process import Worker
from stepcost.measuring.ranks import Group
from tests.gpu.conftest import CHILD_LIMIT_S, Card

pytestmark = pytest.mark.gpu
FAULTY = "tests.measuring.faulty_ranks:FaultyRank"
STRATEGIES = ("ddp", "zero1", "fsdp2")


@pytest.fixture(scope="module", autouse=True)
def two_gpus(machine):
    """Skip where there are not two GPUs."""
    if machine.gpus < 2:
        pytest.skip(f"only several GPUs can tell: this machine has {machine.gpus}")


@pytest.fixture(scope="module")
def readings(request_of):
    """``readings(strategy)``: of resnet50 with Adam, taken once."""

    @cache
    def ask(strategy):
        asked = {} if strategy == "none" else {"parallel": strategy, "gpus": 2}
        found = Measurements(CHILD_LIMIT_S).measured(request_of("resnet50", "adam", 16, **asked))
        assert found.fits, found.reason
        return found

    return ask


@pytest.mark.parametrize("way", STRATEGIES)
def test_each_gpu_is_read(readings, way):
    """Both GPUs have peaks, a process, a context with NCCL's share, and a ledger of such a peak."""
    reading = readings(way)
    assert len(reading.ranks) == 2
    assert [one.moment for one in reading.moments] == [
        "first allocation",
        "communicator",
        "model loaded",
        "training step",
    ]
    for rank in reading.ranks:
        assert rank.ledger is not None, reading.unread
        # Of another step: memory that waits for another stream is free now sooner, now later.
        assert rank.ledger.allocated_bytes == pytest.approx(rank.peak_allocated_bytes, rel=0.05)
        assert rank.process_bytes > rank.peak_reserved_bytes
        assert 0 < rank.communicator_bytes < rank.context_bytes
    assert reading.peak_reserved_bytes == max(rank.peak_reserved_bytes for rank in reading.ranks)
    assert "parallel_bytes" not in reading.unread, reading.unread


@pytest.mark.parametrize("way", ["ddp", "zero1"])
def test_buckets_are_in_the_ledger(readings, way):
    """The buckets are the gradients' bytes, and the ledger has them, as the allocator rounds them up."""
    for rank in readings(way).ranks:
        assert rank.bucket_bytes == rank.gradient_bytes
        assert 0 <= rank.ledger.parallel_bytes - rank.bucket_bytes < 2**24


def test_parts_of_fsdp2(readings):
    """Parameters are half, and what is gathered at the peak is less than the model and more than nothing."""
    alone, shared = readings("none"), readings("fsdp2")
    assert sum(rank.parameter_bytes for rank in shared.ranks) == alone.parameter_bytes
    for rank in shared.ranks:
        assert 0 < rank.ledger.parallel_bytes < alone.parameter_bytes, asdict(rank)


@pytest.fixture
def shared_request(request_of, monkeypatch):
    """A request of two GPUs, whose ranks may be those that misbehave."""
    monkeypatch.setitem(jobs.OF_RANKS, FAULTY, FAULTY)
    return request_of("small-cnn", "sgd", 2, parallel="ddp", gpus=2)


@pytest.fixture
def cards(machine):
    """Both GPUs, watched."""
    with Worker(jobs.INSPECTION) as first, Worker(jobs.INSPECTION) as second:
        yield Card("cuda:0", first), Card("cuda:1", second)


@pytest.mark.parametrize(
    ("method", "kind", "said"),
    [
        ("be_killed", ChildKilled, r"^rank 1 of 2: .* was killed by SIGKILL"),
        ("take_all", OutOfMemory, r"^rank 1 of 2: out of memory in all-reduce: CUDA out of"),
        ("hang", ChildHung, r"no answer within 8 s; all ranks are killed"),
    ],
)
def test_a_fault_in_a_collective_leaves_nothing_behind(shared_request, cards, method, kind, said):
    """A rank that is killed, hangs or runs out of memory while the other waits frees both GPUs."""
    first, second = cards
    for card in cards:
        card.free_bytes()  # makes the context of the process that watches
    with Group(FAULTY, shared_request, time_limit_s=CHILD_LIMIT_S) as peers:
        peers.call_each(
            "well"
        )  # for its first peers the driver gives each context that is there 64 KiB, once
    with first.left_as_it_was(), second.left_as_it_was():
        group = Group(FAULTY, shared_request, time_limit_s=CHILD_LIMIT_S)
        group.call_each("well")
        group.time_limit_s = 8
        with pytest.raises(kind, match=said):
            group.call_each(method)


def test_a_gpu_that_is_missing_is_named(request_of, machine):
    """One more rank than there are GPUs is refused in one line, which ends the others."""
    request = request_of("small-cnn", "sgd", 2, parallel="ddp", gpus=machine.gpus + 1)
    with pytest.raises(MeasureError, match=f"this machine has {machine.gpus}$"):
        Measurements(CHILD_LIMIT_S).measured(request)

"""Several processes that share a step, by gloo on the CPU: a fault costs its own group only."""

import os
import signal
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import pytest

from stepcost import jobs
from stepcost.failures import ChildDied, ChildFailed, ChildHung, ChildKilled, MeasureError, OutOfMemory
from stepcost.ledger import PARALLEL, Ledger
from stepcost.measuring.measurements import Measurements
from stepcost.measuring.process import Worker
from stepcost.measuring.ranks import AS_ONE, Group
from stepcost.reading import Rank, Reading, as_one
from stepcost.request import Request
from stepcost.row import clean_row, measured
from stepcost.schema import build

LIMIT_S = 60
FAULTY = "tests.measuring.faulty_ranks:FaultyRank"


def request(**more):
    """A request of two processes on the CPU."""
    plain = {"model": "small-cnn", "optimizer": "adam", "batch_size": 2, "device": "cpu"}
    return Request(**plain | {"parallel": "ddp", "gpus": 2} | more)


def group(job="", time_limit_s=LIMIT_S, **more):
    """The processes of that request, with a job of one rank in place of the real one."""
    return Group(job or jobs.CONFIGURATION, request(**more), time_limit_s=time_limit_s)


@pytest.fixture(autouse=True)
def faulty(monkeypatch):
    """Jobs whose ranks misbehave."""
    ours = {
        FAULTY: FAULTY,
        "joining": "tests.measuring.faulty_ranks:KilledWhileJoining",
        "recorded": "tests.measuring.faulty_ranks:Recorded",
    }
    monkeypatch.setattr(jobs, "OF_RANKS", jobs.OF_RANKS | ours)


def is_gone(pid):
    """Whether a process has ended."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return True
    return state == "Z"


def left_behind():
    """Files of groups and children that are there."""
    return {*Path(tempfile.gettempdir()).glob("stepcost-ranks-*")}


@pytest.mark.parametrize(
    ("method", "kind", "said"),
    [
        ("be_killed", ChildKilled, r"^rank 1 of 2: FaultyRank.be_killed: the child was killed by SIGKILL"),
        ("fail_and_be_killed", ChildKilled, r"^rank 1 of 2: .* the child was killed by SIGKILL"),
        ("end", ChildDied, r"^rank 1 of 2: FaultyRank.end: the child ended by itself with exit code 3"),
        ("run_out", OutOfMemory, r"^rank 1 of 2: out of memory in all-reduce: CUDA out of memory"),
        ("fail", ChildFailed, r"^rank 1 of 2: FaultyRank.fail, in all-reduce: KeyError: 'no such thing'"),
    ],
)
def test_a_rank_that_goes_wrong_in_a_collective_ends_its_group(method, kind, said):
    """The rank at fault is named in one line, though another fails for want of it; all are gone at once."""
    before = left_behind()
    held = group(FAULTY)
    pids = held.pids
    held.call_each("well")
    started = time.perf_counter()
    with pytest.raises(kind, match=said) as caught:
        held.call_each(method)
    assert time.perf_counter() - started < LIMIT_S / 2, "nobody waits for the time limit"
    assert type(caught.value) is kind
    assert "\n" not in str(caught.value)
    assert all(map(is_gone, pids))
    assert left_behind() <= before


def test_a_rank_that_hangs_is_killed_with_those_that_wait():
    """After the time limit all ranks are killed, and the line says which gave no answer."""
    held = group(FAULTY)
    pids = held.pids
    held.time_limit_s = 1
    started = time.perf_counter()
    with pytest.raises(ChildHung, match=r"^rank 0, 1 of 2: hang: no answer within 1 s; all ranks are killed"):
        held.call_each("hang")
    assert all(map(is_gone, pids))
    assert time.perf_counter() - started < 5, "no rank is waited for"


def test_a_rank_that_is_gone_before_the_others_join():
    """A rank that is killed at the start ends the start of all."""
    with pytest.raises(ChildKilled, match=r"^rank 1 of 2: .*killed by SIGKILL"):
        group("joining")


def test_another_group_goes_on():
    """A fault in one group leaves another, and a process of its own, as they were."""
    with group(FAULTY) as well, Worker("tests.measuring.faulty_jobs:Faulty", time_limit_s=LIMIT_S) as alone:
        with pytest.raises(ChildKilled):
            group(FAULTY).call_each("be_killed")
        assert well.call_each("well") == [None, None]
        assert alone.call("answer", 1) == 1


def test_a_missing_gpu_is_refused_in_one_line():
    """Where there are fewer GPUs than ranks, the line says how many there are."""
    with pytest.raises(
        MeasureError, match=r"^rank \d of 2: .*--gpus 2: there is no cuda:\d, this machine has"
    ):
        group(device="cuda:0")


def test_out_of_memory_in_one_rank_is_an_answer(monkeypatch):
    """A reading of which one rank runs out of memory does not fit; the row says which rank."""
    monkeypatch.setattr("stepcost.measuring.ranks.AS_ONE", {"reading": lambda answers: None})
    measure = Measurements(LIMIT_S)
    monkeypatch.setattr(Group, "call", lambda self, method: self.call_each("run_out"))
    reading = measure.measured(request(), job=FAULTY)
    assert reading.fits is False
    assert reading.reason.startswith("rank 1 of 2: out of memory in all-reduce")


def test_communication_is_of_the_gpu_that_waits_least():
    """Of two profiles the one with the shorter communication: in the other, a GPU waits for a slower one."""
    waits, slow = {"communication_s": 0.03, "gpu_busy_s": 1.0}, {"communication_s": 0.02, "gpu_busy_s": 2.0}
    assert AS_ONE["profiled"]([waits, slow]) == slow


def test_groups_are_started_for_several_gpus_alone(monkeypatch):
    """A request for one GPU has one process; one for two has two, and their steps are the slowest's."""
    measure = Measurements(LIMIT_S)
    with measure.holding(jobs.CONFIGURATION, request()) as held:
        assert isinstance(held, Group)
        assert len({*held.pids}) == 2
        assert held.call("step") is None
        seconds = held.call_each("timed_steps", 2)
        assert [len(one) for one in seconds] == [2, 2]
        assert held.call("clocks") is None
        monkeypatch.setattr(held, "call_each", lambda method, count: [[1.0, 4.0], [3.0, 2.0]])
        assert held.call("timed_steps", 2) == [3.0, 4.0]
    with measure.holding(jobs.CONFIGURATION, request(parallel="none", gpus=1)) as held:
        assert isinstance(held, Worker)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"gpus": 1}, r"--parallel ddp: it takes two GPUs or more"),
        ({"parallel": "none"}, r"--gpus 2: without --parallel"),
        ({"engine": "fast", "device": "cuda:0"}, r"--parallel ddp with --engine fast"),
        ({"parallel": "zero1", "optimizer": "muon"}, r"--parallel zero1: .* muon takes the whole model"),
        ({"parallel": "fsdp2", "optimizer": "muon"}, r"--parallel fsdp2: .* muon takes them whole"),
        ({"parallel": "fsdp2", "optimizer": "adafactor"}, r"--parallel fsdp2: .* adafactor takes them whole"),
        ({"parallel": "fsdp2", "channels_last": True}, r"--parallel fsdp2 with --channels-last"),
        ({"fsdp_precision": "bf16"}, r"--fsdp-precision: it is of --parallel fsdp2"),
        ({"fsdp_keep_gathered": True}, r"--fsdp-keep-gathered: it is of --parallel fsdp2"),
        (
            {"parallel": "fsdp2", "fsdp_precision": "bf16", "precision": "bf16"},
            r"--fsdp-precision bf16 with --precision bf16: each says",
        ),
    ],
)
def test_what_does_not_go_together_is_refused_in_one_line(fields, said):
    """What several GPUs cannot do, or one, is refused before anything is started."""
    with pytest.raises(ValueError, match=said) as caught:
        request(**fields)
    assert "\n" not in str(caught.value)


BUCKETS_BYTES = 4 * 61_338
"""Of small-cnn's gradients."""


def test_buckets_are_known_by_what_stays_allocated():
    """Where DDP's buckets are is noted as they are made; what is freed again is none of them."""
    events = [
        ("segment_alloc", 0, 2**21),
        ("alloc", 512, 100),
        ("alloc", 4096, 1000),
        ("alloc", 8192, BUCKETS_BYTES - 1000),
        ("free", 512, 100),
    ]
    with group("recorded") as held:
        assert (
            held.call_each("noted", events)
            == [
                ({4096: PARALLEL, 8192: PARALLEL}, {}, BUCKETS_BYTES),
            ]
            * 2
        )


def test_buckets_that_were_not_seen_are_unread():
    """Where what stays allocated is not the buckets' bytes, nothing is noted, and the reason is kept."""
    with group("recorded") as held:
        for known, unread, _ in held.call_each("noted", [("alloc", 4096, 1000)]):
            assert known == {}
            assert "DDP's buckets were not seen" in unread["parallel_bytes"]


def test_a_reading_has_each_rank():
    """What a rank reads of itself is in ``ranks``, with NCCL's share; the row's figures are the fullest's."""
    with group("recorded") as held:
        found = held.call("reading")
    assert found.peak_reserved_bytes == 1000
    assert found.ranks == tuple(
        Rank(
            peak_reserved_bytes=1000 * rank,
            parameter_bytes=1,
            ledger=Ledger(parallel_bytes=rank),
            communicator_bytes=300,
            bucket_bytes=BUCKETS_BYTES,
        )
        for rank in range(2)
    )
    row = clean_row(measured(found))
    assert build(Reading, row).ranks == found.ranks, "stored and loaded it is the same"


def test_a_rank_that_died_between_calls_is_named():
    """A rank that is gone when it is asked is named too, and the others end."""
    held = group(FAULTY)
    pids = held.pids
    os.kill(pids[1], signal.SIGKILL)
    while not is_gone(pids[1]):
        time.sleep(0.01)
    with pytest.raises(ChildKilled, match=r"^rank 1 of 2: .* killed by SIGKILL"):
        held.call_each("well")
    assert all(map(is_gone, pids))


def reading(reserved, unread=None):
    """A reading of a rank that reserves so much."""
    rank = Rank(peak_reserved_bytes=reserved)
    own = {"peak_reserved_bytes": reserved, "seconds": float(reserved), "unread": unread or {}}
    return Reading(source="measured", fits=True, ranks=(rank,), **own)


def test_the_row_is_of_the_rank_that_reserves_most():
    """The figures are those of the fullest rank, all ranks are kept in order, and what any could not read."""
    found = as_one(
        [reading(2, {"ledger": "why"}), reading(5), reading(5, {"process_bytes": "no"}), reading(1)]
    )
    assert found.peak_reserved_bytes == 5
    assert [rank.peak_reserved_bytes for rank in found.ranks] == [2, 5, 5, 1]
    assert found.unread == {"ledger": "why", "process_bytes": "no"}
    assert found.seconds == 5.0
    assert found.peak_reserved_likely_bytes is None, "no rank has a range"


def test_the_range_is_of_the_fullest_whichever_it_is():
    """Of ranks of 5, of 4 to 7 and of 6 to 6 the fullest holds 6 to 7: the most of their ends."""
    ranks = [reading(5), replace(reading(4), peak_reserved_likely_bytes=(4, 7)), reading(6)]
    assert as_one(ranks).peak_reserved_likely_bytes == (6, 7)

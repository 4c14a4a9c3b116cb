from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stepcost.allocator.caching import Block, CachingAllocator
from stepcost.allocator.history import History, HistoryUnavailable, allocations_of, load, peak_of, save
from stepcost.ledger import GRADIENT, PARAMETER, STATE

MIB = 2**20
programs = st.lists(st.one_of(st.integers(1, 30 * MIB), st.integers(-50, -1)), min_size=1, max_size=100)


def recorded(program: list[int]) -> tuple[History, CachingAllocator]:
    """Return what a recorder would have seen of ``program``, and the allocator that ran it."""
    allocator = CachingAllocator()
    events: list[tuple[str, int, int]] = []
    allocator.on_segment = lambda action, address, size: events.append((f"segment_{action}", address, size))
    used: list[Block] = []
    for number in program:
        if number > 0:
            used.append(allocator.allocate(number))
            events.append(("alloc", used[-1].address, number))
        elif used:
            block = used.pop(number % len(used))
            events.append(("free", block.address, 0))
            allocator.free(block)
    about = {"peak_allocated_bytes": allocator.peak_allocated_bytes}
    return History(segments=[], events=events, marks=[("forward", len(events))], about=about), allocator


@settings(max_examples=50)
@given(programs)
def test_a_replay_counts_what_the_allocator_counted(program: list[int]) -> None:
    """Replaying addresses and requested sizes gives the allocator's own counters to the byte."""
    history, allocator = recorded(program)
    allocations, replayed = allocations_of(history)
    assert replayed.peak_allocated_bytes == allocator.peak_allocated_bytes
    assert replayed.peak_reserved_bytes == allocator.peak_reserved_bytes
    assert sum(one.bytes for one in allocations if one.died is None) == allocator.allocated_bytes
    assert peak_of(history, None).ledger.allocated_bytes == allocator.peak_allocated_bytes


def test_blocks_there_from_the_start_keep_their_kind() -> None:
    """A segment that was there before the recording is taken over, with what is known of its blocks."""
    history = History(
        segments=[(4096, [(MIB, True), (MIB, False)])],
        events=[("alloc", 4096 + MIB, 512), ("free", 4096 + MIB, 512)],
        marks=[("forward", 2)],
        kinds={4096: PARAMETER},
        about={"peak_allocated_bytes": MIB + 512},
    )
    ledger = peak_of(history, 7).ledger
    assert (ledger.parameter_bytes, ledger.workspace_bytes) == (MIB, 512)
    assert (ledger.slack_bytes, ledger.context_bytes) == (MIB - 512, 7)


def test_a_ledger_that_does_not_add_up_is_refused() -> None:
    """Where the replay and the allocator's counter differ there is no ledger, and the reason has both."""
    history, _ = recorded([512])
    history.about["peak_allocated_bytes"] = 1024
    with pytest.raises(HistoryUnavailable, match="512 bytes, the allocator counted 1024"):
        peak_of(history, None)


def test_a_history_without_its_beginning_is_refused() -> None:
    """An event about memory that was never reserved cannot be replayed."""
    history = History(segments=[], events=[("alloc", 4096, 512)], marks=[("forward", 1)])
    with pytest.raises(HistoryUnavailable, match="event 0"):
        allocations_of(history)


def test_a_history_survives_the_file(tmp_path: Path) -> None:
    """What is saved is what is loaded, in a file that is the same whenever it is written, without blanks."""
    history, _ = recorded([512, 3 * MIB, -1])
    history.kinds[4096], history.kinds_after[8192] = PARAMETER, GRADIENT
    save(history, tmp_path / "one.json.gz")
    assert load(tmp_path / "one.json.gz") == history
    packed = (tmp_path / "one.json.gz").read_bytes()
    assert packed[4:8] == bytes(4)  # the time of writing, in seconds
    assert b" " not in gzip.decompress(packed)


def test_what_is_kept_for_backward_is_an_activation() -> None:
    """Of a step by hand: what lives at the end of forward, though freed by the next event.

    Its segment is given back before its end; what lives on is known by what was seen there afterwards.
    """
    history = History(
        segments=[],
        events=[
            ("segment_alloc", 2**30, 20 * MIB),
            ("segment_alloc", 4096, 2 * MIB),
            ("alloc", 4096, MIB),
            ("alloc", 2**30, 15 * MIB),
            ("free", 2**30, 15 * MIB),
            ("segment_free", 2**30, 20 * MIB),
            ("alloc", 4096 + MIB, 512),
        ],
        marks=[("forward", 4), ("backward", 5)],
        kinds_after={4096: STATE, 4096 + MIB: GRADIENT},
        about={"peak_allocated_bytes": 16 * MIB},
    )
    peak = peak_of(history, None)
    assert (peak.event, peak.allocated_bytes) == (3, 16 * MIB)
    assert (peak.ledger.activation_bytes, peak.ledger.optimizer_state_bytes) == (15 * MIB, MIB)
    assert peak.ledger.slack_bytes == 6 * MIB
    allocations, allocator = allocations_of(history)
    assert [one.kind for one in allocations] == [None, STATE, GRADIENT]
    assert (allocator.reserved_bytes, allocator.peak_reserved_bytes) == (2 * MIB, 22 * MIB)

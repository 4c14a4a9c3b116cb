from __future__ import annotations

from dataclasses import asdict

from hypothesis import given
from hypothesis import strategies as st

from stepcost.ledger import (
    ACTIVATION,
    ALWAYS,
    GRADIENT,
    PARAMETER,
    WORKSPACE,
    Allocation,
    kind_of,
    ledger_at_peak,
)

allocations = st.builds(
    lambda size, born, lasts, kind: Allocation(size, born, kind, None if lasts is None else born + 1 + lasts),
    st.integers(1, 1000).map(lambda blocks: blocks * 512),
    st.integers(ALWAYS, 30),
    st.none() | st.integers(0, 10),
    st.none() | st.just(GRADIENT),
)


@given(st.lists(allocations, max_size=30))
def test_the_parts_add_up_to_the_peak(blocks: list[Allocation]) -> None:
    """The ledger's parts are the peak to the byte, and no other moment has more."""
    peak = ledger_at_peak(blocks, forward_ends=[10], reserved_bytes=10**9, context_bytes=None)
    assert peak.ledger.allocated_bytes == peak.allocated_bytes
    assert peak.ledger.slack_bytes == 10**9 - peak.allocated_bytes
    for event in range(ALWAYS, 50):
        assert sum(block.bytes for block in blocks if block.lives_at(event)) <= peak.allocated_bytes


def test_what_forward_leaves_behind_is_an_activation() -> None:
    """Made in forward and alive at its end: kept for backward. All else without a name is workspace."""
    assert kind_of(Allocation(512, 3, died=20), forward_ends=[10]) == ACTIVATION
    assert kind_of(Allocation(512, 3, died=9), forward_ends=[10]) == WORKSPACE
    assert kind_of(Allocation(512, 11, died=12), forward_ends=[10]) == WORKSPACE
    assert kind_of(Allocation(512, ALWAYS), forward_ends=[10]) == WORKSPACE
    assert kind_of(Allocation(512, 3, GRADIENT), forward_ends=[10]) == GRADIENT
    assert kind_of(Allocation(512, 11, died=30), forward_ends=[10, 25]) == ACTIVATION


def test_an_empty_step_has_an_empty_ledger() -> None:
    """Without allocations every part is zero."""
    ledger = ledger_at_peak([], forward_ends=[0], reserved_bytes=0, context_bytes=0).ledger
    assert set(asdict(ledger).values()) == {0}


def test_a_peak_by_hand() -> None:
    """The first of two moments as high is the peak, and its parts are what lives there, kind by kind.

    At event 2: 512 of parameters, 1,024 kept for backward, 2,048 of gradient: 3,584; at 6 as much again.
    """
    blocks = [
        Allocation(512, ALWAYS, PARAMETER),
        Allocation(1024, 1, died=4),
        Allocation(2048, 2, GRADIENT, died=5),
        Allocation(3072, 6),
        Allocation(256, 0, died=2),
    ]
    peak = ledger_at_peak(blocks, forward_ends=[3], reserved_bytes=5000, context_bytes=77)
    assert (peak.event, peak.allocated_bytes) == (2, 3584)
    nothing = dict.fromkeys(
        ("buffer_bytes", "optimizer_state_bytes", "input_bytes", "parallel_bytes", "workspace_bytes"), 0
    )
    assert asdict(peak.ledger) == nothing | {
        "parameter_bytes": 512,
        "activation_bytes": 1024,
        "gradient_bytes": 2048,
        "slack_bytes": 1416,
        "context_bytes": 77,
    }
    held = ledger_at_peak(blocks[:1], forward_ends=[3], reserved_bytes=512, context_bytes=None)
    assert (held.event, held.ledger.parameter_bytes, held.ledger.context_bytes) == (ALWAYS, 512, None)

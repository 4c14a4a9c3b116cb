"""The gate of ``--memory-compare-fail`` on runs made in memory: which rows it judges, and how."""

from __future__ import annotations

from typing import Any

import pytest

from fixtures.memory_gate import MemoryGate

HERE: dict[str, Any] = {"torch": "2", "cudnn": "9", "compute_capability": "9.0", "gpu": "A"}
PROCESSOR = {"cpu": {"brand_raw": "P", "count": 8}}
PEAK = "peak_allocated_bytes"


def step(batch: int, peak: int | None, **more: Any) -> dict[str, Any]:
    """A measured training step."""
    row = {"question": "3a", "timed": "training step", "source": "measured", "model": "m"}
    return row | {"batch_size": batch, PEAK: peak, "fits": peak is not None} | more


def saved(*rows: dict[str, Any], **machine: Any) -> dict[str, Any]:
    """A run as pytest-benchmark loads it."""
    benchmarks = [{"name": f"t[{row['batch_size']}]", "extra_info": row, "stats": {}} for row in rows]
    return {"machine_info": HERE | PROCESSOR | machine, "benchmarks": benchmarks}


def judged(
    *runs: dict[str, Any], rows: list[dict[str, Any]], rules: str = PEAK, **machine: Any
) -> tuple[pytest.ExitCode | None, list[str]]:
    """What the gate returns and says of this session's rows, compared with these runs."""
    gate = MemoryGate.of_flags(rules.split(), "0001")
    assert gate is not None
    for run in runs:
        # pytest-benchmark's machine information says of our fields what the saved run said
        gate.keep(run["machine_info"], run)
    gate.must_have_runs()
    return gate.judge(rows, HERE | machine), gate.lines


def test_every_saved_run_is_compared_with() -> None:
    """One that is exceeded fails the session, whichever it is, and each regression has its line."""
    lower, higher = saved(step(4, 1000)), saved(step(4, 2000))
    line = (
        f"3a, m, batch 4: {PEAK} went from 1,000 to 1,500 (+500), "
        "allowed: exact (same capability, torch and cuDNN)"
    )
    for runs in ((lower, higher), (higher, lower)):
        assert judged(*runs, rows=[step(4, 1500)]) == (pytest.ExitCode.TESTS_FAILED, [line])
    assert judged(higher, rows=[step(4, 1500)]) == (None, [])
    assert len(judged(lower, lower, rows=[step(4, 1500)])[1]) == 2


def test_a_row_that_was_not_run_is_no_regression() -> None:
    """A session may run a part of the suite, or more than the saved one did."""
    two = saved(step(4, 1000), step(8, 2000))
    assert judged(two, rows=[step(8, 2000)]) == (None, [])
    assert judged(saved(step(4, 1000)), rows=[step(4, 1000), step(8, 2000)]) == (None, [])


def test_this_machine_is_judged_as_it_is() -> None:
    """Under another torch 1 % is allowed, though pytest-benchmark was told that the machines are equal."""
    code, lines = judged(saved(step(4, 1000)), rows=[step(4, 1010)], torch="3")
    assert (code, lines) == (None, [])
    code, lines = judged(saved(step(4, 1000)), rows=[step(4, 1011)], torch="3")
    assert code == pytest.ExitCode.TESTS_FAILED
    assert lines == [f"3a, m, batch 4: {PEAK} went from 1,000 to 1,011 (+11), allowed: 1 % (other torch)"]
    assert judged(saved(step(4, 1000), torch="1"), rows=[step(4, 1010)])[0] is None


def test_only_what_was_named_is_gated() -> None:
    """Figures that no rule names may grow; running out of memory is always a regression."""
    grown = step(4, 1000, tensor_bytes=6)
    assert judged(saved(step(4, 1000, tensor_bytes=5)), rows=[grown]) == (None, [])
    code, lines = judged(saved(step(4, 1000, tensor_bytes=5)), rows=[grown], rules="tensor_bytes:0 peak_*:0")
    assert code == pytest.ExitCode.TESTS_FAILED
    assert lines == ["3a, m, batch 4: tensor_bytes went from 5 to 6 (+1), allowed: exact (as asked)"]
    failed = step(4, None, timed="attempt that ran out of memory", reason="no room")
    assert judged(saved(step(4, 1000)), rows=[failed]) == (
        pytest.ExitCode.TESTS_FAILED,
        ["3a, m, batch 4: fitted, and no longer does (no room)"],
    )
    assert judged(saved(failed), rows=[step(4, 1000)]) == (None, [])
    assert judged(saved(step(4, 1000)), rows=[step(4, 900)]) == (None, [])


def test_a_session_without_a_row_in_common_is_not_judged() -> None:
    """One line says why, and the session fails as one that was asked wrongly."""
    assert judged(saved(step(8, 1000)), rows=[step(4, 1000)]) == (
        pytest.ExitCode.USAGE_ERROR,
        ["--memory-compare-fail: nothing to compare: no row of one side is a row of the other "
         "(the nearest rows differ in batch_size 8 -> 4)"],
    )  # fmt: skip


def test_times_are_not_this_gates() -> None:
    """A step ten times as slow is pytest-benchmark's to judge."""
    slow = [
        step(4, 1000, timed="engine step", question="4", engine="graph", rounds_s=[s] * 20)
        for s in (1.0, 10.0)
    ]
    assert judged(saved(slow[0]), rows=[slow[1]]) == (None, [])


def test_without_rules_there_is_no_gate() -> None:
    """No rule, no gate; a gate without a run to compare with is refused."""
    assert MemoryGate.of_flags([], None) is None
    with pytest.raises(ValueError, match=r"^--memory-compare-fail requires --benchmark-compare, which names"):
        MemoryGate.of_flags([PEAK], None)
    with pytest.raises(ValueError, match=r"^--memory-compare-fail: no figure in bytes is called 'median'"):
        MemoryGate.of_flags(["median"], "0001")
    with pytest.raises(pytest.UsageError, match="found no saved run to compare with"):
        judged(rows=[])

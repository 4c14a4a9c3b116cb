"""Two sides of runs, made in memory with numbers worked out by hand: which verdict each figure gets."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from stepcost.report.compare.change_tables import tables
from stepcost.report.compare.result import CannotCompareError, Change, Comparison
from stepcost.report.compare.sides import compare_sides
from stepcost.report.load import Run

MACHINE = {
    "gpu": "A", "compute_capability": "9.0", "torch": "2", "cudnn": "9", "driver": "5", "cuda": "13",
    "cpu": {"brand_raw": "P", "count": 8}, "python_version": "3.12.1",
}  # fmt: skip
SEARCH = {"question": "3a", "timed": "search", "source": "measured", "model": "m"}


def run(rows: Iterable[dict[str, Any]], name: str = "run", /, **machine: Any) -> Run:
    """A run with these rows on the machine of these tests."""
    return Run(name, Path(), rows=tuple(rows), machine=MACHINE | machine)


def step(batch: int, log_s: float = 0.0, /, **fields: Any) -> dict[str, Any]:
    """A measured training step whose 20 rounds all take ``batch * exp(log_s)`` seconds."""
    rounds = {"rounds_s": [batch * math.exp(log_s)] * 20}
    return {"question": "3a", "timed": "training step", "source": "measured", "model": "m",
            "batch_size": batch} | rounds | fields  # fmt: skip


def only(found: Comparison, figure: str, row: str = "") -> Change:
    """The one change of that figure in that row."""
    (change,) = [one for one in found.changes if one.figure == figure and row in one.row]
    return change


@pytest.mark.parametrize(
    ("base", "new", "verdict"),
    [
        ([22_941], [None], "worse"),
        ([None], [22_941], "better"),
        ([None], [None], "same"),
        ([1000], [990], "same"),
        ([1000], [989], "worse"),
        ([1000], [1010], "same"),
        ([1000], [1011], "better"),
        ([1000, 1000], [1000, None], "worse"),
        ([1000, None], [1000], "better"),
        ([1000, 980], [975], "same"),
    ],
)
def test_a_smaller_largest_batch_is_worse(
    base: list[int | None], new: list[int | None], verdict: str
) -> None:
    """None at all is the smallest; of repetitions the smallest counts; 1 % either way is the search's own."""
    olds, news = ([run([SEARCH | {"largest_batch": one}]) for one in side] for side in (base, new))
    found = compare_sides(olds, news)
    assert only(found, "largest_batch").verdict == verdict
    assert found.is_worse is (verdict == "worse")


def test_no_largest_batch_is_named_in_the_tables() -> None:
    """The table of what got worse says that no batch trained, not that nobody looked."""
    found = compare_sides(
        [run([SEARCH | {"largest_batch": 22_941}])], [run([SEARCH | {"largest_batch": None}])]
    )
    (cells,) = tables(found)[0].rows
    assert cells[1:4] == ("largest_batch", "22,941", "none")


PEAK = "peak_allocated_bytes"


@pytest.mark.parametrize(
    ("base", "new", "torch", "verdict"),
    [
        ([1_000_000], [1_000_000], "2", "same"),
        ([1_000_000], [1_000_001], "2", "worse"),
        ([1_000_000], [999_999], "2", "better"),
        ([1_000_000], [1_010_000], "3", "same"),
        ([1_000_000], [1_010_001], "3", "worse"),
        ([1_000_000], [990_000], "3", "same"),
        ([1_000_000], [989_999], "3", "better"),
        ([100, 120, 110], [120], "2", "same"),
        ([100, 120, 110], [90, 121], "2", "worse"),
        ([100, None, 110], [110, None], "2", "same"),
        ([None, 120], [119], "2", "better"),
    ],
)
def test_bytes_at_their_bound_and_one_past_it(
    base: list[int | None], new: list[int | None], torch: str, verdict: str
) -> None:
    """Exact on one build, 1 % to another torch; of repetitions the largest that was read counts."""
    olds, news = (
        [run([step(4) | ({} if one is None else {PEAK: one})], torch=version) for one in side]
        for side, version in ((base, "2"), (new, torch))
    )
    assert only(compare_sides(olds, news), PEAK).verdict == verdict


@pytest.mark.parametrize(
    ("log", "verdict"),
    [(0.0293, "same"), (0.0295, "worse"), (-0.0293, "same"), (-0.0295, "better")],
)
def test_a_captured_step_at_its_bound_and_past_it(log: float, verdict: str) -> None:
    """One run a side: at 1.96 * 0.7 % * sqrt(2) = 0.0194 short of log 1.05 = 0.0488, 5 % is not excluded."""
    graph = {"question": "4", "timed": "engine step", "engine": "graph"}
    found = compare_sides([run([step(4, **graph)])], [run([step(4, log, **graph)])])
    assert only(found, "step_s").verdict == verdict


def _unread(found: Comparison) -> list[tuple[str, ...]]:
    return [
        row for table in tables(found) if table.caption.startswith("No longer read") for row in table.rows
    ]


@pytest.mark.parametrize(
    ("figure", "value", "shown"),
    [
        ("process_bytes", 3_000_000, "3.0"),
        ("context_bytes", 2_000_000, "2.0"),
        ("gpu_busy_s", 0.01, "10.0 ms"),
        ("largest_batch", 1000, "1,000"),
        ("largest_batch_at_full_speed", 900, "900"),
    ],
)
def test_a_figure_that_is_no_longer_read_is_listed(figure: str, value: float, shown: str) -> None:
    """What the base read and the new side did not is a line of a table, judged or not; never a silence."""
    with_it, without = run([step(4, **{figure: value})]), run([step(4)])
    found = compare_sides([with_it], [without])
    assert [cells[1:3] for cells in _unread(found)] == [(figure, shown)]
    assert not found.is_worse
    assert _unread(compare_sides([without], [with_it])) == []


def test_a_step_that_is_no_longer_timed_is_listed() -> None:
    """A row without rounds on the new side is not passed over."""
    found = compare_sides([run([step(4), step(8)])], [run([step(4), step(8, rounds_s=None)])])
    assert [cells[1:3] for cells in _unread(found)] == [("step_s", "8,000 ms")]


def test_figures_of_a_row_that_ran_out_of_memory_are_not_listed_again() -> None:
    """Where a row no longer fits, that is the one thing said of it."""
    base = run([step(4), step(8, process_bytes=5)])
    tried: dict[str, Any] = {"fits": False, "timed": "attempt that ran out of memory", "rounds_s": None}
    found = compare_sides([base], [run([step(4), step(8, **tried)])])
    assert [change.figure for change in found.of("worse")] == ["fits"]
    assert _unread(found) == []


def sides(
    base: list[list[float]], new: list[list[float]], missing: tuple[int, int]
) -> tuple[list[Run], list[Run]]:
    """Runs of steps at batch 1 to 3, by the logarithms of seconds; ``missing``: (run, batch) of the base."""
    made = [
        [[step(batch, one) for batch, one in enumerate(logs, start=1)] for logs in side]
        for side in (base, new)
    ]
    place, batch = missing
    made[0][place] = [row for row in made[0][place] if row["batch_size"] != batch]
    return [run(rows) for rows in made[0]], [run(rows) for rows in made[1]]


def test_one_incomplete_row_does_not_disarm_the_others() -> None:
    """Rows in five runs are judged by their own spread though a third one is in four runs only.

    By hand: squares 2e-4 + 2e-4 over 3 degrees of freedom, times 1/3 + 1/2: a standard error of 0.010541,
    and 3.18245 of them to either side of log 0.3.
    """
    base = [[log] * 3 for log in (0.0, 0.01, -0.01)]
    new = [[0.3 + log] * 3 for log in (0.01, -0.01)]
    found = compare_sides(*sides(base, new, (2, 3)))
    for batch in (1, 2):
        change = only(found, "step_s", f"batch {batch}")
        assert change.verdict == "worse"
        assert change.interval == pytest.approx(
            (math.exp(0.3 - 0.033546), math.exp(0.3 + 0.033546)), rel=1e-5
        )
    assert only(found, "step_s", "batch 3").verdict == "undecided"


def test_what_rows_have_in_common_is_paired_by_run() -> None:
    """A row that a run lacks does not move its later readings into the runs before.

    By hand: the two rows that every run has give runs of 0.1, 0, -0.1 against 0, 0: a ratio of 1, and a
    standard error of sqrt(0.02 / 3 * (1/3 + 1/2)) = 0.074536, of which 3.18245 make the interval.
    """
    base = [[log] * 3 for log in (0.1, 0.0, -0.1)]
    found = compare_sides(*sides(base, [[0.0] * 3] * 2, (0, 3)))
    common = only(found, "step_ratio")
    assert common.ratio == pytest.approx(1)
    assert common.interval == pytest.approx((math.exp(-0.237206), math.exp(0.237206)), rel=1e-5)


@pytest.mark.parametrize("name", [None, "test_step"])
def test_rows_alike_by_every_field_are_compared_in_their_order(name: str | None) -> None:
    """Two rows that nothing tells apart, not even a name, are still two: neither replaces the other."""
    twice = [step(4, name=name, peak_allocated_bytes=size) for size in (100, 200)]
    found = compare_sides([run(twice)], [run([twice[0], twice[1] | {PEAK: 201}])])
    assert [(change.base, change.new) for change in found.changes if change.figure == PEAK] == [
        (100, 100),
        (200, 201),
    ]
    assert not found.gone
    assert not found.added


def test_each_way_of_knowing_the_noise_is_named_with_its_rows() -> None:
    """Where a row was read in fewer runs than the others, a note says how many rows each way counts for."""
    notes = compare_sides(*sides([[0.0] * 3] * 3, [[0.0] * 3] * 2, (0, 3))).notes
    assert any(
        "step_s in 2 of 3 rows: noise between processes from the spread of 5 runs" in one for one in notes
    )
    assert any("step_s in 1 of 3 rows: too few runs" in one for one in notes)


@pytest.mark.parametrize(
    ("name", "other", "said"),
    [
        ("cpu", {"brand_raw": "Q", "count": 8}, "processor"),
        ("cpu", {"brand_raw": "P", "count": 4}, "processor"),
        ("driver", "6", "driver"),
        ("cuda", "12", "CUDA"),
        ("torch", "3", "torch"),
        ("python_version", "3.13.0", "Python"),
    ],
)
def test_runs_of_two_machines_are_no_side(name: str, other: Any, said: str) -> None:
    """Repetitions come from one machine and build; what differs is named in one line."""
    base = [run([step(4)], "one"), run([step(4)], "two", **{name: other})]
    with pytest.raises(CannotCompareError, match=rf"^one and two [^\n]*different {said}$"):
        compare_sides(base, [run([step(4)])])


def medians(*logs: float, engine: str = "eager") -> dict[str, Any]:
    """The suite's reading of its host: the median step in fresh processes, by logarithms of seconds."""
    return {"question": "instrument", "timed": "start and 20 steps", "source": "measured", "engine": engine,
            "process_medians_s": [math.exp(log) for log in logs]}  # fmt: skip


QUIET = (-0.01, -0.01, 0.0, 0.01, 0.01)
"""Standard deviation 0.01, with 4 degrees of freedom."""
LOUD = (-0.03, -0.03, 0.0, 0.03, 0.03)
"""Standard deviation 0.03."""
STEPS = [step(batch) for batch in (1, 2, 3)]
SLOWER = [step(batch, math.log(1.2)) for batch in (1, 2, 3)]


@pytest.mark.parametrize(
    ("base", "new", "width", "verdict"),
    [
        # Twice the variance: sqrt(2e-4 + 2e-4) = 0.02; (4e-4)**2 / (2 * 4e-8 / 4) = 8 degrees: t = 2.306004
        ([QUIET], [QUIET], 0.0461201, "worse"),
        # one reading for both: 4 degrees: t = 2.776445
        ([QUIET], [], 0.0555289, "worse"),
        ([], [QUIET], 0.0555289, "worse"),
        # sqrt(2e-4 + 18e-4) = 0.0447214; (20e-4)**2 / (4e-8 / 4 + 324e-8 / 4) = 4.8780 degrees: t = 2.590032
        ([QUIET], [LOUD], 0.1158297, "undecided"),
        # two readings of a side: 8 degrees and 4: (4e-4)**2 / (4e-8 / 8 + 4e-8 / 4) = 10.6667: t = 2.209406
        ([QUIET, QUIET], [QUIET], 0.0441881, "worse"),
    ],
)  # fmt: skip
def test_the_hosts_own_noise_is_used_with_one_run_a_side(
    base: Any, new: Any, width: float, verdict: str
) -> None:
    """With medians of fresh processes in a run, a step 20 % slower is caught, with the interval they give."""
    found = compare_sides(
        [run([*STEPS, *(medians(*logs) for logs in base)])],
        [run([*SLOWER, *(medians(*logs) for logs in new)])],
    )
    for batch in (1, 2, 3):
        change = only(found, "step_s", f"batch {batch}")
        assert change.interval == pytest.approx((1.2 * math.exp(-width), 1.2 * math.exp(width)), rel=1e-5)
        assert change.verdict == verdict
    assert any("fresh processes" in note and "1.0 %" in note for note in found.notes)


def test_without_the_hosts_noise_one_run_a_side_decides_little() -> None:
    """The same slow-down is undecided where no run holds such medians, or too few of them to tell."""
    for rows in ([], [medians(0.0, 0.01, -0.01)], [medians(*QUIET, engine="graph")]):
        found = compare_sides([run([*STEPS, *rows])], [run([*SLOWER, *rows])])
        assert {only(found, "step_s", f"batch {batch}").verdict for batch in (1, 2, 3)} == {"undecided"}
        assert any("too few runs" in note for note in found.notes)


def test_a_noisy_host_says_so() -> None:
    """Where fresh processes differ by 10 %, a step 20 % slower is not called."""
    noisy = medians(*(10 * log for log in QUIET))
    found = compare_sides([run([*STEPS, noisy])], [run([*SLOWER, noisy])])
    assert not found.is_worse
    assert only(found, "step_s", "batch 1").verdict == "undecided"


def test_captured_steps_use_the_medians_of_captured_steps() -> None:
    """Medians of a captured engine give the noise of captured steps, in place of the assumed 0.7 %.

    From both sides' runs also on two processors; from one side's only where the other is the same machine.
    """
    graph = {"question": "4", "timed": "engine step", "engine": "graph"}
    rows = [step(batch, **graph) for batch in (1, 2)]
    reading = medians(*QUIET, engine="graph")
    other = {"cpu": {"brand_raw": "Q", "count": 8}}
    from_medians, assumed = 0.0461201, 1.959964 * 0.007 * math.sqrt(2)
    for new, width in (
        (run([*rows, reading]), from_medians),
        (run([*rows, reading], **other), from_medians),
        (run(rows), 0.0555289),
        (run(rows, **other), assumed),
    ):
        found = compare_sides([run([*rows, reading])], [new])
        interval = only(found, "step_s", "batch 1").interval
        assert interval == pytest.approx((math.exp(-width), math.exp(width)), rel=1e-5)

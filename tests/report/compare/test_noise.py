"""False alarms and catches, by resampling rounds saved on an H100; seeded. docs/notes/compare.md has more."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.alarms_resampled import runs
from stepcost.report.compare.noise import (
    LEAST_NOISE,
    HostNoise,
    ProcessNoise,
    Samples,
    estimate,
    estimate_together,
    process_noise,
)
from stepcost.report.compare.sides import compare_sides

TIMES = 150
"""Comparisons of whole runs per case: enough to tell 1 % from 5 %, and 95 % from 85 %."""


def alarms(
    seed: int, base: int, new: int, *, noise: float, processes: int = 0, shift: float = 0.0, **planted: float
) -> float:
    """Share of comparisons of whole runs that raise an alarm, with ``planted`` on the new side."""
    host = {"noise": noise, "processes": processes, "shift": shift}
    dice = random.Random(seed)
    raised = 0
    for _ in range(TIMES):
        sides = runs(dice, base, **host), runs(dice, new, **host, **planted)
        raised += compare_sides(*sides).is_worse
    return raised / TIMES


@pytest.mark.parametrize(("base", "new"), [(1, 1), (3, 1), (5, 1), (5, 5)])
@pytest.mark.parametrize("noise", [1.0, 0.1])
def test_a_build_compared_with_itself_hardly_ever_alarms(base: int, new: int, noise: float) -> None:
    """With nothing planted, whole runs raise an alarm at the promised rate of 1 % (three errors allowed)."""
    limit = 0.01 + 3 * (0.01 * 0.99 / TIMES) ** 0.5
    assert alarms(1, base, new, noise=noise) <= limit


@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_a_run_that_knows_its_noise_hardly_ever_alarms(shift: float) -> None:
    """The same with one run a side that holds medians of five processes, also where all its steps shift."""
    limit = 0.01 + 3 * (0.01 * 0.99 / TIMES) ** 0.5
    assert alarms(6, 1, 1, noise=1.0, processes=5, shift=shift) <= limit


def test_a_run_that_knows_its_noise_catches_more() -> None:
    """At a tenth of that host's noise one such run a side catches steps 20 % slower, others do not."""
    assert alarms(7, 1, 1, noise=0.1, processes=5, slower=1.2) >= 0.95
    assert alarms(7, 1, 1, noise=0.1, slower=1.2) <= 0.05


def test_five_percent_is_caught_where_runs_are_repeated() -> None:
    """At a tenth of that host's noise five runs of each side catch a 5 % slower step in 95 %."""
    assert alarms(2, 5, 5, noise=0.1, slower=1.05) >= 0.95


def test_five_percent_more_gpu_work_is_caught_by_one_run_each() -> None:
    """On the noisy host itself, one run of each side catches kernels that take 5 % longer in 95 %."""
    assert alarms(3, 1, 1, noise=1.0, busy_slower=1.05) >= 0.95


def test_one_noisy_run_each_catches_no_small_slow_down() -> None:
    """The limit is real: one run of each side on the noisy host seldom catches 5 %, and never cries wolf."""
    assert alarms(4, 1, 1, noise=1.0, slower=1.05) < 0.1


def test_a_speed_up_is_no_alarm_and_is_seen() -> None:
    """Faster steps are called better where runs were repeated."""
    dice = random.Random(5)
    found = compare_sides(runs(dice, 5, noise=0.1), runs(dice, 5, noise=0.1, slower=1 / 1.2))
    assert not found.is_worse
    assert [change for change in found.of("better") if change.figure == "step_ratio"]


UNKNOWN = HostNoise(None, None)


def samples(base: Sequence[float], new: Sequence[float]) -> Samples:
    """Seconds of the runs of both sides, which have all of them."""
    return Samples(dict(enumerate(base)), dict(enumerate(new)))


def test_the_noise_is_counted_in_runs_not_in_rounds() -> None:
    """Five runs make three degrees of freedom, however many rounds each has."""
    (row,) = estimate([samples((1.0, 1.1, 0.9, 1.0), (1.0,))], UNKNOWN, None)
    assert (row.source, row.freedom, row.drift) == ("runs", 3, 0.0)


@pytest.mark.parametrize(("runs", "source"), [(4, "rows"), (5, "runs")])
def test_five_runs_are_enough(runs: int, source: str) -> None:
    """At five runs of both sides together a row is judged by its own spread, at four by that over rows."""
    rows = [samples([1.0] * (runs - 1), [1.0])] * 2
    assert {one.source for one in estimate(rows, UNKNOWN, None)} == {source}


def test_one_run_each_allows_for_drift() -> None:
    """By hand: of ratios 0.01, 0.03 and 0.02 the deviation is 0.01; two of them, and 30 % for drift."""
    rows = [samples((1.0,), (math.exp(log),)) for log in (0.0, 0.01, 0.03, 0.02)]
    one = estimate(rows, UNKNOWN, None)[0]
    assert (one.source, one.freedom) == ("rows", 2)
    assert one.error == pytest.approx(0.01)
    assert one.drift == pytest.approx(math.log(1.3))


def test_ratios_of_many_runs_tell_the_noise_of_a_ratio_of_few() -> None:
    """By hand: ratios of two runs a side scatter by 0.01, one of a run a side by sqrt(2) as much."""
    steady = [samples((1.0, 1.0), (math.exp(log),) * 2) for log in (0.01, 0.03, 0.02)]
    one = estimate([*steady, samples((1.0,), (1.0,))], UNKNOWN, None)[-1]
    assert one.error == pytest.approx(0.01 * math.sqrt(2))


def test_two_rows_alone_are_not_judged() -> None:
    """Below four rows and five runs nothing tells the noise of a row: no interval, no alarm."""
    rows = [samples((1.0,), (3.0,)), samples((1.0,), (3.1,))]
    for one in (*estimate(rows, UNKNOWN, None), estimate_together(rows, UNKNOWN, None)):
        assert one is not None
        assert one.interval() is None
        assert one.chance(slower=True) == 1.0


def test_rows_that_lack_runs_are_not_in_the_common_ratio() -> None:
    """What rows have in common is of those that every run has; of fewer than two such rows it is unknown."""
    whole = [samples((1.0, 1.0), (factor, factor)) for factor in (1.1, 1.21)]
    partly = Samples({1: 1.0}, {0: 5.0, 1: 5.0})
    together = estimate_together([*whole, partly], UNKNOWN, 0.007)
    assert together is not None
    assert together.ratio == pytest.approx(1.1**1.5)
    assert together.error == pytest.approx(0.007)  # two runs a side: sqrt(1/2 + 1/2)
    assert estimate_together([whole[0], partly], UNKNOWN, 0.007) is None


@pytest.mark.parametrize(
    ("medians_s", "expected"),
    [
        ([(1.0, math.exp(0.02), 1.0, math.exp(0.02))], (math.sqrt(4e-4 / 3), 3)),
        ([(1.0, math.exp(0.02)), (2.0, 2 * math.exp(0.02), 2.0)], (math.sqrt((2e-4 + 8e-4 / 3) / 3), 3)),
        ([(1.0,) * 5], (LEAST_NOISE, 4)),
        ([(1.0, 2.0, 3.0)], None),
        ([(1.0, 2.0), (1.0, 2.0)], None),
        ([(0.0, 1.0, 1.0, 1.0), ()], None),
        ([], None),
    ],
)  # fmt: skip
def test_medians_of_processes_are_pooled_about_their_own_means(
    medians_s: list[tuple[float, ...]], expected: tuple[float, int] | None
) -> None:
    """Each reading counts about its own mean; fewer than three degrees of freedom tell nothing."""
    noise = process_noise(medians_s)
    if expected is None:
        assert noise is None
    else:
        assert noise is not None
        assert noise.deviation == pytest.approx(expected[0])
        assert noise.freedom == expected[1]


@given(
    one=st.tuples(st.floats(0.001, 0.2), st.integers(3, 20)),
    other=st.tuples(st.floats(0.001, 0.2), st.integers(3, 20)),
    runs=st.tuples(st.integers(1, 2), st.integers(1, 2)),
)
def test_two_hosts_are_at_least_as_noisy_as_each(
    one: tuple[float, int], other: tuple[float, int], runs: tuple[int, int]
) -> None:
    """The error is at least each side's own, and the degrees of freedom lie between the fewer and the sum."""
    host = HostNoise(ProcessNoise(*one), ProcessNoise(*other))
    (found,) = estimate([samples((1.0,) * runs[0], (1.0,) * runs[1])], host, None)
    assert found.error is not None
    for (deviation, _), number in zip((one, other), runs, strict=True):
        assert found.error >= deviation * math.sqrt(2 / number) * (1 - 1e-12)
    assert min(one[1], other[1]) * (1 - 1e-9) <= found.freedom <= (one[1] + other[1]) * (1 + 1e-9)

"""False alarms and catches, by resampling rounds saved on an H100; seeded. docs/compare.md has more."""

from __future__ import annotations

import random

import pytest

from experiments.resampling import runs
from stepcost.report.compare.noise import FIGURES, Samples, estimate
from stepcost.report.compare.sides import compare_sides

TIMES = 150
"""Comparisons of whole runs per case: enough to tell 1 % from 5 %, and 95 % from 85 %."""


def alarms(seed: int, base: int, new: int, *, noise: float, **planted: float) -> float:
    """Share of comparisons of whole runs that raise an alarm, with ``planted`` on the new side."""
    dice = random.Random(seed)
    raised = 0
    for _ in range(TIMES):
        sides = runs(dice, base, noise=noise), runs(dice, new, noise=noise, **planted)
        raised += compare_sides(*sides).is_worse
    return raised / TIMES


@pytest.mark.parametrize(("base", "new"), [(1, 1), (3, 1), (5, 1), (5, 5)])
@pytest.mark.parametrize("noise", [1.0, 0.1])
def test_a_build_compared_with_itself_hardly_ever_alarms(base: int, new: int, noise: float) -> None:
    """With nothing planted, whole runs raise an alarm at the promised rate of 1 % (three errors allowed)."""
    limit = 0.01 + 3 * (0.01 * 0.99 / TIMES) ** 0.5
    assert alarms(1, base, new, noise=noise) <= limit


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


def test_the_noise_is_counted_in_runs_not_in_rounds() -> None:
    """Five runs make three to eight degrees of freedom, however many rounds each has."""
    (row, common) = estimate([Samples((1.0, 1.1, 0.9, 1.0), (1.0,))], FIGURES[0])
    assert row.freedom == common.freedom == 3
    assert row.drift == 0.0


def test_one_run_each_allows_for_drift() -> None:
    """Where the noise between runs is unknown, a drift of whole runs is allowed for beside the spread."""
    rows = [Samples((1.0,), (ratio,)) for ratio in (1.01, 1.02, 1.03, 1.02)]
    assert all(one.drift > 0.2 for one in estimate(rows, FIGURES[0]))


def test_two_rows_alone_are_not_judged() -> None:
    """Below three rows and five runs nothing tells the noise: no interval, no alarm."""
    rows = [Samples((1.0,), (3.0,)), Samples((1.0,), (3.1,))]
    for one in estimate(rows, FIGURES[0]):
        assert one.interval() is None
        assert one.chance(slower=True) == 1.0

"""Alarms are counted right, and raised where they should be on runs saved on an H100."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import permutations, product
from pathlib import Path
from statistics import median, stdev

import pytest

from experiments.alarms_planted import main, runs_in
from stepcost.report.compare.sides import compare_sides
from stepcost.report.compare.time_figures import ASSUMED_CAPTURED_NOISE
from stepcost.report.find import REFERENCE
from stepcost.report.load import Run, load
from tests.report.compare.saved import changed, plain_run, save, slower

RUNS = runs_in(Path(__file__).parents[2] / "experiments" / "samples" / "h100-planted.tar.gz")
"""Adam, batch 64: the eager step and the captured one of `fast`, by ``experiments.planted_runs``."""


READINGS = [
    row for row in load(REFERENCE / "h100-80gb-fast.json").rows if row.get("timed") == "start and 20 steps"
]
"""What a run of the suite, minutes before on a host of the same kind, read of its host's noise."""


def worse_figures(base: Run, new: Run) -> set[str]:
    """Names of the figures that got worse, of the captured step or of bytes."""
    return {change.figure for change in compare_sides([base], [new]).of("worse")}


def test_the_samples_are_there() -> None:
    """Seven runs of the build, four with slower steps, two with a tensor more."""
    assert {kind: len(runs) for kind, runs in RUNS.items()} == {"self": 7, "slow": 4, "fat": 2, "busy": 0}


def test_no_run_alarms_against_another_of_its_build() -> None:
    """None of the 42 comparisons of two runs of one build raises an alarm."""
    assert not [pair for pair in permutations(RUNS["self"], 2) if worse_figures(*pair)]


def test_every_slower_run_is_caught() -> None:
    """All 28 comparisons of one run with one run of steps 5 % slower alarm, for the step's time alone."""
    assert {frozenset(worse_figures(*pair)) for pair in product(RUNS["self"], RUNS["slow"])} == {
        frozenset({"step_s"})
    }


def test_every_larger_run_is_caught() -> None:
    """All 14 comparisons with a run that keeps a tensor of 0.1 % of the peak alarm, for bytes alone."""
    for pair in product(RUNS["self"], RUNS["fat"]):
        worse = worse_figures(*pair)
        assert "peak_allocated_bytes" in worse
        assert not [figure for figure in worse if "_bytes" not in figure]


@pytest.mark.parametrize(("of_base", "of_new"), [(True, True), (True, False), (False, True)])
def test_with_the_hosts_own_noise_the_same_alarms(of_base: bool, of_new: bool) -> None:
    """With the noise that a host read, on both sides or one, 0 of 42 alarm, 28 of 28 and 14 of 14 do."""

    def figures(base: Run, new: Run) -> set[str]:
        base = replace(base, rows=(*base.rows, *READINGS * of_base))
        new = replace(new, rows=(*new.rows, *READINGS * of_new))
        return worse_figures(base, new)

    assert [reading["engine"] for reading in READINGS] == ["eager", "fast"]
    assert not [pair for pair in permutations(RUNS["self"], 2) if figures(*pair)]
    assert [figures(*pair) for pair in product(RUNS["self"], RUNS["slow"])] == [{"step_s"}] * 28
    assert all("peak_allocated_bytes" in figures(*pair) for pair in product(RUNS["self"], RUNS["fat"]))


def test_captured_steps_scatter_less_than_is_assumed() -> None:
    """Medians of the captured step in nine processes have a standard deviation below the assumed one."""
    medians = [
        median(row["rounds_s"])
        for run in (*RUNS["self"], *RUNS["fat"])
        for row in run.rows
        if row.get("timed") == "engine step"
    ]
    assert len(medians) == 9
    assert stdev(map(math.log, medians)) == pytest.approx(0.0033, abs=0.0005)
    assert stdev(map(math.log, medians)) < ASSUMED_CAPTURED_NOISE


def test_shares_are_counted_over_saved_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each kind of plant is caught where it can be, and a build compared with itself never alarms."""
    for place in range(5):
        save(slower(plain_run(), 1 + place / 10_000), tmp_path, f"000{place}_self{place}")
    for place in range(2):
        slow = slower(plain_run(), 1.05 + place / 10_000)
        save(slow, tmp_path, f"001{place}_slow{place}")
        save(changed(plain_run(), 0, peak_allocated_bytes=3_011_000), tmp_path, f"002{place}_fat{place}")
    assert main([str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "| 1 self | 1 self | 20 | 0.0 % | 0.0 % | 0.0 % | 0.0 % |" in lines
    assert "| 4 self | 1 self | 5 | 0.0 % | 0.0 % | 0.0 % | 0.0 % |" in lines
    assert "| 1 self | 1 slow | 10 | 0.0 % | 0.0 % | 0.0 % | 0.0 % |" in lines
    assert "| 5 self | 1 slow | 2 | 100.0 % | 0.0 % | 100.0 % | 0.0 % |" in lines
    assert "| 5 self | 2 slow | 1 | 100.0 % | 0.0 % | 100.0 % | 0.0 % |" in lines
    assert "| 1 self | 1 fat | 10 | 100.0 % | 100.0 % | 0.0 % | 0.0 % |" in lines

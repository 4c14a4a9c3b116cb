"""The gate in pytest: ``--memory-compare-fail`` alongside pytest-benchmark's ``--benchmark-compare-fail``."""

from __future__ import annotations

import pytest

pytest_plugins = ["pytester"]

SUITE = """
import os, time

def test_step(benchmark, row):
    fields = {"schema_version": 1, "question": "2a", "source": "predicted", "timed": "training step",
              "model": "made-up", "optimizer": "sgd", "batch_size": int(os.environ.get("BATCH", 4)),
              "fits": os.environ.get("FITS") != "no"}
    if fields["fits"]:
        fields |= {"peak_allocated_bytes": int(os.environ.get("PEAK", 1_000_000)),
                   "peak_reserved_bytes": 2_000_000}
    row(**fields)
    benchmark.pedantic(time.sleep, args=(float(os.environ.get("SLEEP", 0.05)),), rounds=5)
"""
CONFTEST = """
pytest_plugins = ["fixtures.options", "fixtures.suite", "fixtures.rows"]

def pytest_benchmark_update_machine_info(config, machine_info):
    machine_info.update(torch="2.11.0", cudnn="9.19.0")
"""
Door = pytest.Pytester


@pytest.fixture
def door(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A suite of one benchmark with a saved base run; ``PEAK``, ``FITS`` and ``SLEEP`` plant regressions."""
    pytester.makepyfile(test_made_up=SUITE)
    pytester.makeconftest(CONFTEST)
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    assert run(pytester, "--benchmark-save=base").ret == 0
    return pytester


def run(pytester: pytest.Pytester, *flags: str) -> pytest.RunResult:
    """Run the suite with these flags."""
    return pytester.runpytest_inprocess("-p", "no:cacheprovider", *flags)


GATED = ("--benchmark-compare=0001", "--memory-compare-fail=peak_allocated_bytes:0.1%")


def test_nothing_planted_passes(door: Door) -> None:
    """The same bytes pass, whatever the figures named."""
    assert run(door, *GATED, "--memory-compare-fail=peak_*_bytes:0").ret == 0


def test_more_memory_fails_the_session(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    """More than the tolerance fails with pytest-benchmark's own exit code, one line for the regression."""
    monkeypatch.setenv("PEAK", "1001001")
    result = run(door, *GATED)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["*peak_allocated_bytes went from 1,000,000 to 1,001,001 (+1,001)*0.1 %*"])


def test_growth_within_the_tolerance_passes(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exactly the tolerance is still allowed; the exact rule next to it fires."""
    monkeypatch.setenv("PEAK", "1001000")
    assert run(door, *GATED).ret == 0
    assert run(door, GATED[0], "--memory-compare-fail=peak_*_bytes:0").ret == pytest.ExitCode.TESTS_FAILED


def test_other_rows_are_no_pass(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    """A session that shares no row with the saved run cannot be judged: one line says why, and it fails."""
    monkeypatch.setenv("BATCH", "8")
    result = run(door, *GATED)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stdout.fnmatch_lines(
        ["--memory-compare-fail: nothing to compare: no row of one side*batch_size 4 -> 8*"]
    )


def test_no_longer_fitting_fails(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row that ran out of memory has no bytes, and is still a regression."""
    monkeypatch.setenv("FITS", "no")
    result = run(door, *GATED)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["*fitted, and no longer does*"])


def test_time_is_still_gated_by_pytest_benchmark(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    """A slower step fails through ``--benchmark-compare-fail``, an unchanged one does not."""
    timed = (*GATED, "--benchmark-compare-fail=median:100%")
    assert run(door, *timed).ret == 0
    monkeypatch.setenv("SLEEP", "0.15")
    result = run(door, *timed)
    assert result.ret != 0  # an exception of its own: 1 from the command line
    assert "memory gate" not in result.stdout.str()


def test_both_regressions_are_told(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    """A regression in time does not hide one in memory."""
    monkeypatch.setenv("SLEEP", "0.15")
    monkeypatch.setenv("PEAK", "2000000")
    result = run(door, *GATED, "--benchmark-compare-fail=median:100%")
    assert result.ret != 0  # an exception of its own: 1 from the command line
    result.stdout.fnmatch_lines(["*peak_allocated_bytes went from*"])
    assert "Performance has regressed" in result.stdout.str() + result.stderr.str()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--memory-compare-fail=peak_allocated_bytes:0"], "*requires --benchmark-compare*"),
        ([GATED[0], "--memory-compare-fail=median:10%"], "*no figure in bytes is called 'median'*"),
        ([GATED[0], "--memory-compare-fail=tensor_bytes:much"], "*'much' is not a tolerance*"),
    ],
)
def test_bad_values_are_usage_errors(door: Door, flags: list[str], said: str) -> None:
    """What cannot be gated ends the session in one line instead of passing."""
    result = run(door, *flags)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([said])
    assert "Traceback" not in result.stdout.str() + result.stderr.str()


def test_a_base_that_does_not_exist_is_no_pass(door: Door) -> None:
    """Where pytest-benchmark finds no saved run, the session ends before anything is measured."""
    result = run(door, "--benchmark-compare=0009", GATED[1], "-W", "ignore::pytest.PytestWarning")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*found no saved run to compare with*"])

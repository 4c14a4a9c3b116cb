"""What the end of a run shows, and what it leaves to ``-v`` and to pytest-benchmark's own options."""

import json

import pytest

from tests.suite.copied import ENVIRONMENT, copy_suite

SMALL = (
    "--model",
    "small-cnn",
    "--device",
    "cpu",
    "--batch-sizes",
    "32",
    "-k",
    "footprint or step_of or hand",
)
BY_HAND = """
import pytest

@pytest.mark.parametrize("timed", ["training step", "prediction"])
def test_by_hand(row, time_rounds, session, timed):
    row(question="9", source="measured", timed=timed)
    time_rounds(int, 2)

def test_hand_took(row, time_rounds, session):
    row(question="9", source="measured", timed="attempt that ran out of memory")
    time_rounds.took(12.5)
"""


@pytest.fixture
def run(pytester, monkeypatch):
    """Run a copy of the suite with rows of several kinds."""
    copy_suite(pytester.path)
    (pytester.path / "benchmarks" / "test_by_hand.py").write_text(BY_HAND)
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    return lambda *flags: pytester.runpytest_subprocess("benchmarks/", *SMALL, *flags, timeout=300)


def test_tables_are_of_training_steps(run):
    """Without an option only seconds of training steps have a table, and no bar leaves carriage returns."""
    result = run()
    tables = [line for line in result.outlines if " tests -" in line]
    assert len(tables) == 1
    assert "'training step': 1 tests" in tables[0]
    assert "\r" not in result.stdout.str() + result.stderr.str()
    result.stdout.fnmatch_lines(["Without an answer: *2a, *"])
    result.stdout.no_fnmatch_line("*where the time went*")


@pytest.mark.parametrize("flag", ["-v", "--benchmark-columns=median", "--benchmark-group-by=func"])
def test_a_display_option_shows_all_tables(run, flag):
    """pytest-benchmark's own options decide, and ``-v`` shows everything."""
    result = run(flag)
    assert any("test_by_hand[prediction]" in line and "PASSED" not in line for line in result.outlines)
    assert any("where the time went" in line for line in result.outlines) is (flag == "-v")


def test_seconds_of_an_attempt_are_its_own(run, pytester):
    """A row that could not be timed holds the seconds that its reading took, not those of an empty call."""
    run("--benchmark-json=run.json")
    rows = json.loads((pytester.path / "run.json").read_text())["benchmarks"]
    (took,) = [row for row in rows if row["name"] == "test_hand_took"]
    assert took["stats"]["median"] == took["stats"]["max"] == 12.5
    assert took["extra_info"]["rounds_s"] == [12.5]


def test_the_instrument_is_asked_for(run):
    """What measures the measuring is skipped with the marker that asks for it, and runs with that marker."""
    assert run("-k", "border", "-rs").parseoutcomes().keys() >= {"skipped"}
    asked = run("-k", "border", "-m", "instrument")
    assert asked.parseoutcomes()["passed"] == 1

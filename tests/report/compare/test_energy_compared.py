"""The joules of a step on two sides: when more of them are worse."""

from __future__ import annotations

from typing import Any

import pytest

from stepcost.report.compare.result import Comparison
from stepcost.report.compare.sides import Rules, compare_sides
from stepcost.report.load import Run, load
from tests.command import stepcost
from tests.report.compare.saved import changed, engine_run, save

PLACE = 5
"""The row of the engine ``fast``."""


def costing(energy_j: float | None, apart_j: float = 0.02, gpu: str | None = "Made-up GPU") -> dict[str, Any]:
    """A run whose step on ``fast`` costs that, with an interval as far on both sides."""
    interval = None if energy_j is None else [energy_j - apart_j, energy_j + apart_j]
    run = changed(engine_run(), PLACE, energy_j=energy_j, energy_interval_j=interval)
    run["machine_info"]["gpu"] = gpu
    return run


@pytest.fixture
def judged(tmp_path):
    """``judged(base_runs, new_runs, **rules)``: the comparison, and its verdict on joules."""

    def loaded(runs: list[dict[str, Any]], name: str) -> list[Run]:
        return [load(save(run, tmp_path, f"{place:04}_{name}")) for place, run in enumerate(runs, start=1)]

    def judge(base: list[Any], new: list[Any], **rules: Any) -> tuple[Comparison, Any]:
        found = compare_sides(loaded(base, "base"), loaded(new, "new"), Rules(**rules))
        joules = [change for change in found.changes if change.figure == "energy_j"]
        assert len(joules) <= 1
        return found, joules[0] if joules else None

    return judge


@pytest.mark.parametrize(
    ("base", "new", "verdict"),
    [
        # From 2.00 + 0.02 J on, 5 % more is 2.121 J, from which on 2.15 - 0.02 J lies.
        (costing(2.0), costing(2.15), "worse"),
        (costing(2.0), costing(2.14), "same"),
        (costing(2.0), costing(2.15, apart_j=0.05), "same"),
        (costing(2.15), costing(2.0), "better"),
        (costing(2.14), costing(2.0), "same"),
        (costing(2.0), costing(2.0), "same"),
    ],
)
def test_joules_beyond_both_intervals(judged, base, new, verdict):
    """A step is worse that costs five percent more than both intervals explain, and better the other way."""
    found, joules = judged([base], [new])
    assert joules.verdict == verdict
    assert found.is_worse == (verdict == "worse")
    assert joules.why == "5.0 % beyond both intervals"


def test_the_smallest_effect_is_asked_for(judged):
    """--smallest-effect is the tolerance of joules too: 3 % more is worse at 0 % beyond the intervals."""
    assert judged([costing(2.0)], [costing(2.06)])[1].verdict == "same"
    assert judged([costing(2.0)], [costing(2.06)], smallest_effect=0.001)[1].verdict == "worse"


def test_repetitions_widen_the_interval(judged):
    """Two runs of a side, 2.00 and 2.06 J, reach to 2.08 J: 2.15 J is then within five percent."""
    _, joules = judged([costing(2.0), costing(2.06)], [costing(2.15)])
    assert (joules.verdict, joules.base) == ("same", pytest.approx(2.03))


@pytest.mark.parametrize("gpu", ["Another GPU", None])
def test_joules_of_another_card_are_not_judged(judged, gpu):
    """Between two kinds of card, or an unknown one, joules are shown and not judged."""
    found, joules = judged([costing(2.0, gpu=gpu)], [costing(3.0)])
    assert (joules.verdict, joules.why) == ("shown", "not gated: other or unknown gpu")
    assert not any(change.figure == "energy_j" for change in found.of("worse"))


def test_memory_only_judges_no_joules(judged):
    """--memory-only shows joules and does not judge them."""
    assert judged([costing(2.0)], [costing(3.0)], gate_time=False)[1].verdict == "shown"


def test_joules_that_are_no_longer_read_are_said(judged):
    """Joules of one side only are no regression; those of none are not spoken of."""
    found, joules = judged([costing(2.0)], [costing(None)])
    assert joules in found.no_longer_read()
    assert not found.is_worse
    assert judged([costing(None)], [costing(None)])[1] is None


def test_more_joules_end_the_command_with_1(tmp_path, monkeypatch, capsys):
    """``stepcost compare`` shows both figures in joules, and its exit code is that of a regression."""
    monkeypatch.chdir(tmp_path)
    save(costing(2.0), tmp_path, "0001_base")
    save(costing(3.0), tmp_path, "0002_new")
    assert stepcost(["compare", "base", "new"]) == 1
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "energy_j" in line]
    assert "2.00 J" in line
    assert "3.00 J" in line
    assert "1.500" in line

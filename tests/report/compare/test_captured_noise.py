"""Alarms over captured steps, with the differences between two runs that an H100 showed; seeded.

All 15 steps of the second run were slower, so a run is drawn with one shift for all its rows. One pair
tells the size of such a shift, not its distribution: it is taken as normal about zero.
"""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from statistics import fmean, pstdev

from experiments.alarms_resampled import MACHINE
from stepcost.report.compare.sides import compare_sides
from stepcost.report.compare.time_figures import ASSUMED_CAPTURED_NOISE
from stepcost.report.load import Run

STEPS = json.loads(
    (Path(__file__).parents[3] / "experiments" / "samples" / "h100-captured-steps.json").read_text()
)
"""The median step of 15 configurations, each in two processes of one build minutes apart."""
DIFFERENCES = [math.log(step["medians_s"][1] / step["medians_s"][0]) for step in STEPS]
SHIFT = fmean(DIFFERENCES)
"""What all steps of the second process have in common against the first."""
RESIDUALS = [one - SHIFT for one in DIFFERENCES]
TIMES = 300


def run(dice: random.Random, slower: float = 1.0) -> Run:
    """A run of those configurations: all moved by one draw of the shift, each by one of the residuals."""
    shift = dice.gauss(0, SHIFT)
    rows = []
    for step in STEPS:
        moved = (shift + dice.choice(RESIDUALS)) / math.sqrt(2)
        median_s = math.sqrt(math.prod(step["medians_s"])) * math.exp(moved) * slower
        names = {name: step[name] for name in ("batch_size", "engine", "precision")}
        rows.append(
            {"question": "4", "timed": "engine step", "source": "measured", "model": "resnet152"}
            | names
            | {"rounds_s": [median_s] * 20}
        )
    return Run("synthetic", Path(), rows=tuple(rows), machine=MACHINE)


def alarms(seed: int, slower: float) -> float:
    """Share of comparisons of one run with one run that raise an alarm."""
    dice = random.Random(seed)
    return sum(compare_sides([run(dice)], [run(dice, slower)]).is_worse for _ in range(TIMES)) / TIMES


def test_the_assumed_noise_is_what_was_seen() -> None:
    """The standard deviation between processes that is assumed is a little above that of the samples."""
    seen = math.sqrt(sum(one * one for one in DIFFERENCES) / len(DIFFERENCES) / 2)
    assert seen <= ASSUMED_CAPTURED_NOISE <= 1.5 * seen


def test_the_steps_of_a_run_move_together() -> None:
    """All steps of the real pair moved the same way: docs/notes/compare.md has the figures."""
    assert min(DIFFERENCES) > 0
    assert round(100 * SHIFT, 2) == 0.67
    assert round(100 * pstdev(RESIDUALS), 2) == 0.35


def test_one_run_each_is_enough_for_captured_steps() -> None:
    """One run a side: a build with itself alarms in 1 % at most, steps 5 % slower in 95 % at least."""
    assert alarms(1, 1.0) <= 0.01
    assert alarms(2, 1.05) >= 0.95


def test_real_pair_is_no_alarm() -> None:
    """The two real runs, compared as they were, raise no alarm either way."""
    sides = []
    for place in (0, 1):
        rows = tuple(
            {
                "question": "4",
                "timed": "engine step",
                "source": "measured",
                **{name: step[name] for name in ("batch_size", "engine", "precision")},
                "rounds_s": [step["medians_s"][place]] * 20,
            }
            for step in STEPS
        )
        sides.append([Run("real", Path(), rows=rows, machine=MACHINE)])
    assert not compare_sides(sides[0], sides[1]).is_worse
    assert not compare_sides(sides[1], sides[0]).is_worse

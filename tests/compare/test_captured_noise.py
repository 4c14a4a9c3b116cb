"""Alarms over captured steps, with the differences between processes that an H100 showed; seeded."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path

from reports.compare_time import ASSUMED_CAPTURED_NOISE
from reports.gate import compare_sides
from reports.load import Run
from tests.compare.resampling import MACHINE

STEPS = json.loads((Path(__file__).parent / "samples" / "h100-captured-steps.json").read_text())
"""The median step of 15 configurations, each in two processes of one build minutes apart."""
DIFFERENCES = [math.log(step["medians_s"][1] / step["medians_s"][0]) for step in STEPS]
TIMES = 300


def run(dice: random.Random, slower: float = 1.0) -> Run:
    """A run of those configurations, each moved by a difference that one of them showed."""
    rows = []
    for step in STEPS:
        moved = dice.choice((-1, 1)) * dice.choice(DIFFERENCES) / math.sqrt(2)
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

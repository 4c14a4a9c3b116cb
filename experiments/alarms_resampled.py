"""Count how often the gate raises an alarm on resampled whole runs: the table of docs/notes/compare.md.

``python -m experiments.alarms_resampled`` takes some minutes and is seeded.

``samples/h100-step-rounds.json`` holds the rounds of seven rows (20 each) of
two runs of the suite on an H100 whose processor sets the step's time, and the
GPU-busy seconds of four of them, as saved. A synthetic process is one saved
process, drawn from all of them: its rounds by circular blocks, as ratios to
its own median, times a process effect. Process effects are the differences
between the two runs' medians of a row, scaled so that two drawn processes
differ as much as the two saved ones did. ``noise`` scales both.
"""

from __future__ import annotations

import json
import math
import random
import sys
from pathlib import Path
from statistics import median
from typing import Any

from experiments.arguments import parser_of
from stepcost.report.compare.sides import compare_sides
from stepcost.report.load import Run

SAMPLES = json.loads((Path(__file__).parent / "samples" / "h100-step-rounds.json").read_text())
ROUNDS = 20
BLOCK = 5
"""Rounds drawn in a row: neighbouring rounds are alike."""
MACHINE = {
    "gpu": "GPU of the samples",
    "compute_capability": "9.0",
    "torch": "2.11.0",
    "cudnn": "9.19.0",
    "driver": "580",
    "cuda": "13.0",
    "cpu": {"brand_raw": "processor of the samples", "count": 16},
}


def _level(rows: list[dict[str, Any]], place: int) -> float:
    one, other = (median(rounds) for rounds in rows[place]["rounds_s"])
    return math.sqrt(one * other)


PROCESSES = [[math.log(r / median(rounds)) for r in rounds] for row in SAMPLES for rounds in row["rounds_s"]]
"""Every saved process: logarithms of its rounds over its own median."""
EFFECTS = [
    sign * math.log(median(row["rounds_s"][1]) / median(row["rounds_s"][0])) / math.sqrt(2)
    for row in SAMPLES
    for sign in (1, -1)
]
BUSY_EFFECTS = [
    sign * math.log(row["gpu_busy_s"][1] / row["gpu_busy_s"][0]) / math.sqrt(2)
    for row in SAMPLES
    if row["gpu_busy_s"]
    for sign in (1, -1)
]


def run(
    dice: random.Random,
    *,
    noise: float = 1.0,
    slower: float = 1.0,
    busy_slower: float = 1.0,
    processes: int = 0,
    shift: float = 0.0,
) -> Run:
    """One synthetic run; ``slower`` multiplies its steps, ``busy_slower`` its GPU-busy seconds.

    GPU-busy seconds keep their own noise whatever ``noise`` is. With ``processes`` the run holds the medians
    of so many fresh ones, as the suite's own reading of its host. All steps of the run and these medians are
    moved together, by a draw of the process effects times ``shift``.
    """
    rows: list[dict[str, Any]] = []
    moved = slower * math.exp(noise * shift * dice.choice(EFFECTS))
    for place, saved in enumerate(SAMPLES):
        center = _level(SAMPLES, place) * moved * math.exp(noise * dice.choice(EFFECTS))
        rounds = [center * math.exp(noise * ratio) for ratio in _blocks(dice, dice.choice(PROCESSES))]
        row = {**saved["row"], "timed": "training step", "source": "measured", "rounds_s": rounds}
        if saved["gpu_busy_s"]:
            level = math.sqrt(math.prod(saved["gpu_busy_s"]))
            row["gpu_busy_s"] = level * busy_slower * math.exp(dice.choice(BUSY_EFFECTS))
        rows.append(row)
    if processes:
        medians_s = [moved * math.exp(noise * dice.choice(EFFECTS)) for _ in range(processes)]
        rows.append(
            {"question": "instrument", "timed": "start and 20 steps", "source": "measured"}
            | {"engine": "eager", "process_medians_s": medians_s}
        )
    return Run("synthetic", Path(), rows=tuple(rows), machine=MACHINE)


def _blocks(dice: random.Random, rounds: list[float]) -> list[float]:
    drawn: list[float] = []
    while len(drawn) < ROUNDS:
        start = dice.randrange(len(rounds))
        drawn += [rounds[(start + step) % len(rounds)] for step in range(BLOCK)]
    return drawn[:ROUNDS]


def runs(dice: random.Random, number: int, **how: Any) -> list[Run]:
    """Repetitions."""
    return [run(dice, **how) for _ in range(number)]


CASES = (
    (1.0, 1, 1, 0, 0.0),
    (1.0, 1, 1, 5, 0.0),
    (1.0, 1, 1, 5, 1.0),
    (1.0, 5, 1, 0, 0.0),
    (1.0, 10, 1, 0, 0.0),
    (1.0, 5, 5, 0, 0.0),
    (1.0, 30, 30, 0, 0.0),
    (0.3, 1, 1, 0, 0.0),
    (0.3, 1, 1, 5, 0.0),
    (0.3, 1, 1, 5, 1.0),
    (0.3, 10, 10, 0, 0.0),
    (0.1, 1, 1, 0, 0.0),
    (0.1, 1, 1, 5, 0.0),
    (0.1, 1, 1, 5, 1.0),
    (0.1, 5, 1, 0, 0.0),
    (0.1, 10, 1, 0, 0.0),
    (0.1, 5, 5, 0, 0.0),
)
"""Noise (1 is that of the saved host), runs of the base, runs of the new side, medians of fresh processes
that each run holds, and drift (the shift that all steps of a run share, in process effects)."""
PLANTS: tuple[tuple[str, dict[str, float], int], ...] = (
    ("itself", {}, 1000),
    ("step 5 % slower", {"slower": 1.05}, 200),
    ("step 20 % slower", {"slower": 1.2}, 200),
    ("GPU work 5 % more", {"busy_slower": 1.05}, 200),
    ("step 50 % slower", {"slower": 1.5}, 200),
)
"""What is planted, and how many comparisons of whole runs are made."""


def main(arguments: list[str] | None = None) -> int:
    """Print the table as Markdown; return the exit status."""
    parser_of("alarms_resampled", __doc__).parse_args(arguments)
    print(
        "| noise | base runs | new runs | processes | drift |",
        " | ".join(f"{name} ({times})" for name, _, times in PLANTS),
        "|",
    )
    print("|---:" * (5 + len(PLANTS)) + "|")
    for noise, base, new, processes, shift in CASES:
        host = {"noise": noise, "processes": processes, "shift": shift}
        dice = random.Random(7)
        cells = []
        for _, planted, times in PLANTS:
            times = times if base < 20 else times // 4  # noqa: PLW2901 (thirty runs a side take long)
            raised = sum(
                compare_sides(runs(dice, base, **host), runs(dice, new, **host, **planted)).is_worse
                for _ in range(times)
            )
            cells.append(f"{100 * raised / times:.1f} %")
        print(f"| {noise:g} | {base} | {new} | {processes} | {shift:g} |", " | ".join(cells), "|", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

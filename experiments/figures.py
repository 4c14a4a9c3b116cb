"""Prints the table of docs/compare.md: ``python -m experiments.figures`` (some minutes; seeded)."""

from __future__ import annotations

import random

from experiments.resampling import runs
from stepcost.report.compare.sides import compare_sides

CASES = (
    (1.0, 1, 1),
    (1.0, 5, 1),
    (1.0, 10, 1),
    (1.0, 5, 5),
    (1.0, 30, 30),
    (0.3, 1, 1),
    (0.3, 10, 10),
    (0.1, 1, 1),
    (0.1, 5, 1),
    (0.1, 10, 1),
    (0.1, 5, 5),
)
"""Noise (1 is that of the saved host), runs of the base, runs of the new side."""
PLANTS: tuple[tuple[str, dict[str, float], int], ...] = (
    ("itself", {}, 1000),
    ("step 5 % slower", {"slower": 1.05}, 200),
    ("step 20 % slower", {"slower": 1.2}, 200),
    ("GPU work 5 % more", {"busy_slower": 1.05}, 200),
    ("step 50 % slower", {"slower": 1.5}, 200),
)
"""What is planted, and how many comparisons of whole runs are made."""


def main() -> None:
    """Print the share of comparisons that raise an alarm, as a Markdown table."""
    print(
        "| noise | base runs | new runs |", " | ".join(f"{name} ({times})" for name, _, times in PLANTS), "|"
    )
    print("|---:" * (3 + len(PLANTS)) + "|")
    for noise, base, new in CASES:
        dice = random.Random(7)
        cells = []
        for _, planted, times in PLANTS:
            times = times if base < 20 else times // 4  # noqa: PLW2901 (thirty runs a side take long)
            raised = sum(
                compare_sides(runs(dice, base, noise=noise), runs(dice, new, noise=noise, **planted)).is_worse
                for _ in range(times)
            )
            cells.append(f"{100 * raised / times:.1f} %")
        print(f"| {noise:g} | {base} | {new} |", " | ".join(cells), "|", flush=True)


if __name__ == "__main__":
    main()

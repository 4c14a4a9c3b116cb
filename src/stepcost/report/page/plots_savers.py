"""The plot of the ways to save memory: the stack of each, and how long its step takes."""

from __future__ import annotations

from stepcost.report.answers.savers import step_s, steps_of, times_plain
from stepcost.report.load import Run
from stepcost.report.page.drawing import Plot
from stepcost.report.page.plots_memory import stacks
from stepcost.units import ms, significant


def memory_by_saver(run: Run) -> Plot | str:
    """Draw the memory of the plain step and with each way to save it, and times; or say why there is none."""
    steps = steps_of(list(run.rows))
    if steps is None or not steps.others:
        return "No ways to save memory were compared (--savers)."
    drawn = []
    for row in steps.all:
        took, ratio = step_s(row), times_plain(row, steps.plain)
        times = [] if took is None else [ms(took)]
        times += [f"{significant(ratio)} x"] if ratio is not None and row is not steps.plain else []
        drawn.append((row["saver"], row, "".join(f" · {one}" for one in times)))
    timed = any(map(step_s, steps.all))
    title = "Memory with each way to save it, at the peak of a step"
    title += ", and the time of the step" if timed else ""
    key = "x: times as long as the plain step" if timed else ""
    plot = stacks(run, drawn, "memory-by-saver", title, "saver", key)
    return plot or "No ledger of ways to save memory was read."

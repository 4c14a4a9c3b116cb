"""The plot of several GPUs: the stack of each, by how they share a step."""

from __future__ import annotations

from stepcost.report.answers.ranks import gpus_of, labels_of, steps_of
from stepcost.report.answers.savers import step_s
from stepcost.report.load import Run
from stepcost.report.page.drawing import Plot
from stepcost.report.page.plots_memory import stacks
from stepcost.units import ms


def memory_by_rank(run: Run) -> Plot | str:
    """Draw the memory of each GPU with each strategy, and the time of the step; or say why there is none."""
    steps = steps_of(list(run.rows))
    if not any(row.get("ranks") for row in steps):
        return "No step was shared between GPUs (--parallel)."
    drawn = []
    for row, name_of_step in zip(steps, labels_of(steps), strict=True):
        took = step_s(row)
        for place, rank in gpus_of(row):
            # Of the row itself: where it comes from, and its configuration, which the caption says.
            name = f"{name_of_step}, GPU {place}" if row.get("ranks") else name_of_step
            drawn.append((name, row | {"parallel": None} | rank, "" if took is None else f" · {ms(took)}"))
    title = "Memory of each GPU by how they share a step, at the peak of a step"
    plot = stacks(run, drawn, "memory-by-rank", title, "parallel")
    return plot or "No ledger of several GPUs was read."
